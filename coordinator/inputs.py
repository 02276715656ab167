"""From meter samples to one power per node and step, with an honest quality when samples are missing.

Ages are counted in real meter periods: a value is good to 2, held to 3, then estimated as the larger of itself and the
5-minute 95th percentile; beyond 10 periods, or before the first sample, the node counts with its nameplate power: for a
battery's sake an unknown load is a full load, never none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from coordinator.records import InputRow, InputSource, SampleRange
from hil.devices import Quality

GOOD_PERIODS: Final = 2.0
HELD_PERIODS: Final = 3.0
ESTIMATED_PERIODS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Look:
    """What one meter has to show at a step.

    ``mean_w``, ``quality`` and ``samples`` tell of the usable samples since the last look (None: there were none);
    ``newest_w`` is the newest usable sample ever, ``newest`` which one that was, ``age_s`` the real seconds since it
    arrived; ``p95_w`` the 95th percentile of the last 5 minutes; ``interval_s`` the meter's period.
    """

    mean_w: float | None
    quality: Quality
    samples: SampleRange | None
    newest_w: float | None
    newest: SampleRange | None
    age_s: float | None
    p95_w: float | None
    interval_s: float


class MeterWindow(Protocol):
    """The samples of one meter as they come in."""

    @property
    def heard(self) -> bool:
        """Whether a usable sample ever came in."""

    def look(self) -> Look:
        """What arrived since the last look."""


class NodeInput:
    """One node's power: the first of its meters that has something to say, in order of preference."""

    def __init__(self, actor: str, nameplate_w: float, meters: Callable[[], Sequence[MeterWindow]]) -> None:
        self.actor = actor
        self._nameplate_w = nameplate_w
        self._meters = meters

    def take(self) -> InputRow:
        """The node's mean power since the last step, or the best that is known of it."""
        looks = [meter.look() for meter in self._meters()]  # every one, so that none piles up samples
        fresh = (self._fresh(look) for look in looks)
        estimates = (self._estimate(look) for look in looks)
        return next((row for row in (*fresh, *estimates) if row is not None), self._nameplate())

    def _fresh(self, look: Look) -> InputRow | None:
        if look.mean_w is not None:
            return InputRow(self.actor, look.mean_w, look.quality, InputSource.MEASURED, look.age_s, look.samples)
        if look.newest_w is None or look.age_s is None or look.age_s > HELD_PERIODS * look.interval_s:
            return None
        quality = look.quality if look.age_s <= GOOD_PERIODS * look.interval_s else Quality.STALE
        return InputRow(self.actor, look.newest_w, quality, InputSource.HELD, look.age_s, look.newest)

    def _estimate(self, look: Look) -> InputRow | None:
        if look.newest_w is None or look.age_s is None or look.age_s > ESTIMATED_PERIODS * look.interval_s:
            return None
        power_w = look.newest_w if look.p95_w is None else max(look.newest_w, look.p95_w)
        return InputRow(self.actor, power_w, Quality.ESTIMATED, InputSource.ESTIMATED, look.age_s)

    def _nameplate(self) -> InputRow:
        return InputRow(self.actor, self._nameplate_w, Quality.MISSING, InputSource.NAMEPLATE)
