"""A sample: what one meter showed at one tick."""

from dataclasses import dataclass

from hil.devices import Quality


@dataclass(frozen=True, slots=True)
class EnergyState:
    """A cumulative energy in J. ``epoch`` counts the times it started anew; ``device``: kept by the device itself."""

    energy_j: float
    epoch: int
    device: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """One tick of one meter, not yet numbered. ``power_w`` is in the meter's own direction, None where missing."""

    meter: str
    t_us: int
    power_w: float | None
    energy: EnergyState | None
    energy_epoch: int
    quality: Quality
