"""What a controller sees and what it may ask for: the interface of user code.

A controller is any class with a ``step`` method::

    class NightSaving:
        def __init__(self, node: str, limit_w: float) -> None:
            self.node, self.limit_w = node, limit_w

        def step(self, seen: Observation) -> Iterable[Action]:
            if seen.time.hour >= 20:
                yield Limit(self.node, self.limit_w, reason="night")

Actions stand until they are replaced: asking for the same thing again is no change, and costs nothing. They take
effect at the next step. A controller that keeps state may offer ``snapshot() -> object`` (of JSON values) and
``restore(state)``; the run then resumes with it after a crash.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from coordinator.microgrid.step import Energy, Role
from hil.devices import Quality


@dataclass(frozen=True, slots=True)
class ForecastPoint:
    """A forecast value and the instant from which it holds."""

    time: datetime
    value: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast as it was known: issued at ``issued``, points in order of time, each held to the next one."""

    issued: datetime
    points: tuple[ForecastPoint, ...]

    def between(self, start: datetime, end: datetime) -> tuple[float, ...]:
        """The values that hold at some instant from ``start`` up to, not including, ``end``."""
        inside = []
        for index, point in enumerate(self.points):
            follows = self.points[index + 1].time if index + 1 < len(self.points) else None
            if point.time < end and (follows is None or follows > start):
                inside.append(point.value)
        return tuple(inside)


class Signals(Protocol):
    """The named signals of the scenario as they stand at one instant."""

    def value(self, name: str) -> float | None:
        """The signal's value, in the unit that the scenario states; None where it is unknown."""

    def forecast(self, name: str) -> Forecast | None:
        """The newest forecast issued by now; None where there is none."""


@dataclass(frozen=True, slots=True)
class ActorView:
    """An actor in the step just taken: mean site power (production +, consumption −) and how far to trust it."""

    name: str
    role: Role
    p_w: float
    quality: Quality
    age_s: float | None


@dataclass(frozen=True, slots=True)
class StorageView:
    """The storage at the end of the step just taken."""

    soc: float
    min_soc: float
    capacity_wh: float
    charge_power_w: float | None

    @property
    def energy_wh(self) -> float:
        """What is in it."""
        return self.soc * self.capacity_wh


@dataclass(frozen=True, slots=True)
class Observation:
    """What a controller sees after a step. ``time`` is the simulated instant at its end, in the scenario's zone."""

    microgrid: str
    step: int
    time: datetime
    interval_s: float
    actors: Mapping[str, ActorView]
    p_delta_w: float
    p_grid_w: float
    islanded: bool
    storage: StorageView | None
    energy: Energy
    signals: Signals


@dataclass(frozen=True, slots=True)
class MinSoc:
    """Do not discharge the battery below ``soc`` (0..1)."""

    soc: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ChargePower:
    """Charge the battery at ``power_w`` (≥ 0), from the grid where the sun does not reach; None ends it."""

    power_w: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Island:
    """Cut the microgrid off the grid (True) or connect it again (False)."""

    islanded: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """Keep a node's power at or below ``limit_w``; renewed until ``Release`` or another ``Limit``."""

    node: str
    limit_w: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """Put a node into a named mode of its own configuration."""

    node: str
    profile: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """End whatever this controller asked of a node."""

    node: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Put a line among the run's events."""

    text: str


Action = MinSoc | ChargePower | Island | Limit | Profile | Release | Note


class Controller(Protocol):
    """Decides after each step."""

    def step(self, seen: Observation) -> Iterable[Action] | None:
        """What should change; nothing, or None, to leave all as it is."""


@runtime_checkable
class Resumable(Protocol):
    """A controller whose own state survives a crash of the coordinator."""

    def snapshot(self) -> object:
        """The state, of JSON values."""

    def restore(self, state: object) -> None:
        """Take up a state that ``snapshot`` gave."""
