"""The actors of a microgrid: real nodes, whose power is measured, and models, whose power is computed."""

from dataclasses import dataclass
from typing import Protocol

from coordinator.microgrid.step import ActorInput, Role


@dataclass(frozen=True, slots=True)
class MeterRef:
    """A meter as its agent names it; written ``agent/meter`` in a scenario."""

    agent: str
    meter: str

    def __str__(self) -> str:
        return f"{self.agent}/{self.meter}"


@dataclass(frozen=True, slots=True)
class NodeActor:
    """A real computer. ``meters``: the primary one, then fallbacks; empty for any meter that measures the node.

    ``nameplate_w`` is what it can draw at most, for when nothing better is known.
    """

    name: str
    role: Role
    node: str
    meters: tuple[MeterRef, ...]
    nameplate_w: float


class PowerSource(Protocol):
    """Where a modelled power comes from."""

    def mean(self, start_us: int, end_us: int) -> float | None:
        """Mean power in W over the interval; None where it is over."""


@dataclass(frozen=True, slots=True)
class ModelActor:
    """An actor that exists as numbers only: a trace, a constant, a model."""

    name: str
    role: Role
    source: PowerSource

    def power_w(self, start_us: int, end_us: int) -> float:
        """Mean instrument power in W over the interval; 0 once the source is over."""
        power_w = self.source.mean(start_us, end_us)
        return 0.0 if power_w is None else power_w

    def input(self, start_us: int, end_us: int) -> ActorInput:
        """The actor's part in a step's input."""
        return ActorInput(self.name, self.role, self.power_w(start_us, end_us))


Actor = NodeActor | ModelActor
