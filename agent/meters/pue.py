"""How much more a building draws than the machines that a meter sees: power usage effectiveness, ≥ 1.

In a meter's configuration, one of::

    pue: 1.3
    pue: {curve: [[200, 1.8], [1000, 1.4], [4000, 1.25]]}   # [load in W, PUE], lines in between, the ends held
    pue: {file: pue.csv}                                    # relative to the configuration

The file has a column ``pue``, and either ``time`` (ISO 8601; UTC where no zone is given) or ``t_s`` (seconds of the
day, UTC, for a day that repeats). A value holds until the next. Before and after a file with dates, the value that is
nearest stands in, and readings are ``estimated``.
"""

import itertools
from bisect import bisect_right
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

import msgspec

from agent.meters.tracefile import Column, Recording, load_recording
from hil.units import MICROSECONDS_PER_SECOND
from hil.yamlfile import Document, Fault, Section

SECONDS_PER_DAY: Final = 86_400.0
COLUMN: Final = Column("pue", "a number of at least 1", lowest=1.0)

Factor = Annotated[float, msgspec.Meta(ge=1, le=100)]


class PueConfig(Section, frozen=True, kw_only=True):
    """A PUE that changes: with the load, or with time."""

    curve: Annotated[tuple[tuple[float, Factor], ...], msgspec.Meta(min_length=2)] | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if (self.curve is None) == (self.file is None):
            raise ValueError("expected either curve or file")
        if self.curve and any(b[0] <= a[0] for a, b in itertools.pairwise(self.curve)):
            raise ValueError("expected loads that rise from one point of the curve to the next")


class Pue(Protocol):
    """A PUE."""

    def at(self, load_w: float, t_us: int) -> tuple[float, bool]:
        """The factor at a load in W and an instant (wall time, µs), and whether it is known rather than assumed."""


@dataclass(frozen=True, slots=True)
class ConstantPue:
    """Always the same."""

    factor: float

    def at(self, load_w: float, t_us: int) -> tuple[float, bool]:  # noqa: ARG002
        """The factor."""
        return self.factor, True


@dataclass(frozen=True, slots=True)
class CurvePue:
    """By load: lines between points (W, factor), and beyond them the ends."""

    points: tuple[tuple[float, float], ...]

    def at(self, load_w: float, t_us: int) -> tuple[float, bool]:  # noqa: ARG002
        """The factor at a load in W."""
        right = bisect_right(self.points, load_w, key=lambda point: point[0])
        if right in {0, len(self.points)}:
            return self.points[min(right, len(self.points) - 1)][1], True
        (low_w, low), (high_w, high) = self.points[right - 1], self.points[right]
        return low + (high - low) * (load_w - low_w) / (high_w - low_w), True


@dataclass(frozen=True, slots=True)
class RecordedPue:
    """By time: as recorded, or as on every day."""

    times_s: tuple[float, ...]
    factors: tuple[float, ...]
    dated: bool

    def at(self, load_w: float, t_us: int) -> tuple[float, bool]:  # noqa: ARG002
        """The factor at an instant."""
        t_s = t_us / MICROSECONDS_PER_SECOND
        if not self.dated:
            # Before the first of a day holds the last of the day before, at place -1.
            return self.factors[bisect_right(self.times_s, t_s % SECONDS_PER_DAY) - 1], True
        place = bisect_right(self.times_s, t_s) - 1
        return self.factors[max(place, 0)], self.times_s[0] <= t_s <= self._end_s

    @property
    def _end_s(self) -> float:
        """Until when the last value holds: for as long as the rows are apart on average."""
        first, last = self.times_s[0], self.times_s[-1]
        return last + (last - first) / max(len(self.times_s) - 1, 1)


def make_pue(config: float | PueConfig, document: Document[Any]) -> Pue:
    """The PUE that ``config`` describes; not to be used if a fault was noted in ``document``."""
    if not isinstance(config, PueConfig):
        return ConstantPue(config)
    if config.curve is not None:
        return CurvePue(config.curve)
    path = document.resolve(config.file or "")
    recording = load_recording(path, COLUMN, document)
    if not recording.dated and not all(0 <= t_s < SECONDS_PER_DAY for t_s in recording.times_s):
        fault = Fault(str(path), None, "t_s", "beyond a day", "expected seconds of the day, from 0 to 86400; or time")
        document.faults.append(fault)
    return _recorded(recording)


def _recorded(recording: Recording) -> RecordedPue:
    factors = tuple(factor for factor in recording.values if factor is not None)
    return RecordedPue(recording.times_s, factors, recording.dated)
