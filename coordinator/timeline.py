"""Which step happens when: the only place that maps simulated to real time.

Step ``k`` covers the simulated interval from ``start + k·interval`` on and is taken at its end, when the power over it
has been measured. Agents know real time alone.
"""

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

from hil.clock import utc
from hil.units import MICROSECONDS_PER_SECOND


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The run's grid of steps. ``real_start_us`` is the wall time at which step 0's interval began."""

    start_us: int
    real_start_us: int
    interval_s: float
    speed: float
    steps: int | None

    @property
    def real_interval_s(self) -> float:
        """Real seconds from one step to the next."""
        return self.interval_s / self.speed

    def simulated_us(self, k: int) -> int:
        """The simulated instant at which step ``k``'s interval begins."""
        return self.start_us + round(k * self.interval_s * MICROSECONDS_PER_SECOND)

    def simulated(self, k: int, zone: ZoneInfo) -> datetime:
        """The same as a time of day, in a zone."""
        return utc(self.simulated_us(k)).astimezone(zone)

    def real_us(self, k: int) -> int:
        """The wall time at which step ``k``'s interval begins."""
        return self.real_start_us + round(k * self.real_interval_s * MICROSECONDS_PER_SECOND)

    def simulated_of_real(self, real_us: int) -> int:
        """The simulated instant that belongs to a wall time."""
        return self.start_us + round((real_us - self.real_start_us) * self.speed)


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done on waking: ``missed`` steps from ``first`` on that went by, then step ``first + missed``."""

    first: int
    missed: int
    lateness_s: float


class Pacer:
    """Turns a timeline into monotonic deadlines, and tells how many were missed."""

    def __init__(self, timeline: Timeline, wall_us: int, monotonic: float) -> None:
        # One reading of both clocks ties them together; later jumps of the wall clock change nothing.
        self._timeline = timeline
        self._origin = monotonic - (wall_us - timeline.real_start_us) / MICROSECONDS_PER_SECOND

    def began(self, k: int) -> float:
        """Monotonic time at which step ``k``'s interval begins."""
        return self._origin + k * self._timeline.real_interval_s

    def deadline(self, k: int) -> float:
        """Monotonic time at which step ``k`` is due."""
        return self.began(k + 1)

    def due(self, k: int, monotonic: float) -> Due:
        """What is due now, when ``k`` is the next step not yet taken."""
        late = monotonic - self.deadline(k)
        missed = max(0, int(late // self._timeline.real_interval_s))
        if self._timeline.steps is not None:
            missed = min(missed, max(0, self._timeline.steps - 1 - k))
        return Due(k, missed, max(0.0, monotonic - self.deadline(k + missed)))
