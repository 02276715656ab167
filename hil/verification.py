"""Does a limit show at the meter? One decision per applied limit, by whoever holds the meter's samples."""

import math
from collections import deque
from typing import Final

from hil.devices import Quality
from hil.wire import Effect

COUNTING: Final = frozenset({Quality.GOOD, Quality.ESTIMATED})


class Verification:
    """Watches a meter after a limit of ``limit_w`` was applied at ``started``, and decides once.

    VERIFIED after ``needed`` readings in a row of at most ``tolerance`` × limit. INEFFECTIVE when that has not happened
    within ``within_s`` and at least ``needed`` readings have been seen (a run under way may end first). Only numbers of
    quality good or estimated count: silence decides nothing, so without a meter the effect stays PENDING.
    """

    def __init__(
        self, limit_w: float, *, started: float, needed: int = 3, tolerance: float = 1.05, within_s: float = 10.0
    ) -> None:
        self.effect = Effect.PENDING
        self._ceiling_w = limit_w * tolerance
        self._started = started
        self._within_s = within_s
        self._needed = needed
        self._run = 0
        self._recent: deque[float] = deque(maxlen=needed)

    @property
    def measured_w(self) -> float | None:
        """Mean power in W of the last ``needed`` readings that counted, ≥ 0 for a load; None before the first."""
        return sum(self._recent) / len(self._recent) if self._recent else None

    def observe(self, power_w: float | None, quality: Quality, now: float) -> Effect:
        """The effect, given one more reading at ``now`` (seconds on the clock of ``started``); final once decided."""
        if self.effect is not Effect.PENDING or now < self._started:
            return self.effect
        if power_w is None or not math.isfinite(power_w) or quality not in COUNTING:
            return self.effect
        self._recent.append(power_w)
        self._run = self._run + 1 if power_w <= self._ceiling_w else 0
        if self._run >= self._needed:
            self.effect = Effect.VERIFIED
        elif self._run == 0 and len(self._recent) == self._needed and now - self._started >= self._within_s:
            self.effect = Effect.INEFFECTIVE
        return self.effect
