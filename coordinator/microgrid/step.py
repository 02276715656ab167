"""What goes into a microgrid's step and what comes out of it.

Instrument values come in (``power_w``, in the device's own direction); the role applies the sign once, here. Site
values go out: production +, consumption −, battery discharge +, charge −, grid export +, import −. Each step keeps

    Σ actors + battery − grid + unserved − curtailed = 0
"""

import enum
import math
from dataclasses import dataclass

import msgspec

from hil.devices import Quality
from hil.units import energy_wh


class Role(enum.StrEnum):
    """Which way an actor's power counts in the balance."""

    LOAD = "load"
    PRODUCER = "producer"

    def site_power_w(self, power_w: float) -> float:
        """The instrument value as a site value: production +, consumption −."""
        return power_w if self is Role.PRODUCER else -power_w


@dataclass(frozen=True, slots=True)
class ActorInput:
    """Mean instrument power of one actor over the step; ``age_s`` is None for models and traces."""

    name: str
    role: Role
    power_w: float
    quality: Quality = Quality.GOOD
    age_s: float | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a controller or a person may change between two steps.

    ``min_soc``: the battery is not discharged below it, 0..1. ``charge_power_w``: charge at this power whatever the
    sun does (None: the policy decides). ``islanded``: nothing flows from or to the grid.
    """

    min_soc: float
    charge_power_w: float | None = None
    islanded: bool = False


@dataclass(frozen=True, slots=True)
class StepInput:
    """Everything a step depends on but the microgrid's own state. ``t_us`` is the simulated instant at its start."""

    k: int
    t_us: int
    dt_s: float
    actors: tuple[ActorInput, ...]
    carbon_g_per_kwh: float | None = None
    price_per_mwh: float | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """A step's outcome: mean site powers over the interval, state at its end.

    ``emissions_g`` is None where power was imported and the carbon intensity was unknown. ``residual_w`` is what the
    balance above leaves, for the record; it is 0 to 1e-9 of the largest power.
    """

    k: int
    t_us: int
    dt_s: float
    p_actors_w: tuple[float, ...]
    p_delta_w: float
    p_battery_w: float
    p_grid_w: float
    p_unserved_w: float
    p_curtailed_w: float
    soc: float | None
    settings: Settings
    emissions_g: float | None
    residual_w: float


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy by direction, all in Wh and ≥ 0; of one step, or summed over a run."""

    produced: float = 0.0
    consumed: float = 0.0
    imported: float = 0.0
    exported: float = 0.0
    charged: float = 0.0
    discharged: float = 0.0
    unserved: float = 0.0
    curtailed: float = 0.0

    @classmethod
    def of_step(cls, result: StepResult) -> "Energy":
        """The energy of one step."""

        def wh(power_w: float) -> float:
            return energy_wh(max(0.0, power_w), result.dt_s)

        return cls(
            produced=math.fsum(wh(p) for p in result.p_actors_w),  # sum() rounds as the Python version likes
            consumed=math.fsum(wh(-p) for p in result.p_actors_w),
            imported=wh(-result.p_grid_w),
            exported=wh(result.p_grid_w),
            charged=wh(-result.p_battery_w),
            discharged=wh(result.p_battery_w),
            unserved=wh(result.p_unserved_w),
            curtailed=wh(result.p_curtailed_w),
        )

    def plus(self, other: "Energy") -> "Energy":
        """The sum, direction by direction."""
        return Energy(
            **{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__},
        )
