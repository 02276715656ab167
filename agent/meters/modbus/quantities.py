"""What a register can tell, in which units devices tell it, and what is believable."""

import enum
from dataclasses import dataclass
from typing import Final

from hil.units import JOULES_PER_WH, WATTS_PER_KILOWATT, WATTS_PER_MILLIWATT, WH_PER_KWH


class Quantity(enum.StrEnum):
    """The quantities of a register table, in canonical units."""

    POWER_W = "power_w"
    ENERGY_J = "energy_j"
    VOLTAGE_V = "voltage_v"
    CURRENT_A = "current_a"
    FREQUENCY_HZ = "frequency_hz"
    POWER_FACTOR = "power_factor"
    APPARENT_VA = "apparent_va"
    POWER_L1_W = "power_l1_w"
    POWER_L2_W = "power_l2_w"
    POWER_L3_W = "power_l3_w"
    VOLTAGE_L1_V = "voltage_l1_v"
    VOLTAGE_L2_V = "voltage_l2_v"
    VOLTAGE_L3_V = "voltage_l3_v"
    CURRENT_L1_A = "current_l1_a"
    CURRENT_L2_A = "current_l2_a"
    CURRENT_L3_A = "current_l3_a"


PHASE_POWERS: Final = (Quantity.POWER_L1_W, Quantity.POWER_L2_W, Quantity.POWER_L3_W)
PHASE_VOLTAGES: Final = (Quantity.VOLTAGE_L1_V, Quantity.VOLTAGE_L2_V, Quantity.VOLTAGE_L3_V)
PHASE_CURRENTS: Final = (Quantity.CURRENT_L1_A, Quantity.CURRENT_L2_A, Quantity.CURRENT_L3_A)


@dataclass(frozen=True, slots=True)
class Trait:
    """A quantity's units with their factors (the canonical one first), and its widest possible range.

    A value may pass the ends of a range by ``slack``, in the canonical unit: the noise and offset of an idle meter.
    """

    units: dict[str, float]
    low: float
    high: float
    slack: float


_JOULES_PER_KWH: Final = JOULES_PER_WH * WH_PER_KWH

_POWER: Final = Trait({"W": 1.0, "kW": WATTS_PER_KILOWATT, "mW": WATTS_PER_MILLIWATT}, -1e6, 1e6, 0.5)
_VOLTAGE: Final = Trait({"V": 1.0, "mV": 1e-3, "kV": 1e3}, -1e5, 1e5, 0.5)
_CURRENT: Final = Trait({"A": 1.0, "mA": 1e-3, "kA": 1e3}, -5e3, 5e3, 0.5)
_ENERGY: Final = Trait(
    {"J": 1.0, "mJ": 1e-3, "kJ": 1e3, "Wh": JOULES_PER_WH, "kWh": _JOULES_PER_KWH, "MWh": 1e3 * _JOULES_PER_KWH},
    0.0,
    1e18,
    0.5,
)

TRAITS: Final[dict[Quantity, Trait]] = {
    Quantity.POWER_W: _POWER,
    Quantity.ENERGY_J: _ENERGY,
    Quantity.VOLTAGE_V: _VOLTAGE,
    Quantity.CURRENT_A: _CURRENT,
    Quantity.FREQUENCY_HZ: Trait({"Hz": 1.0, "mHz": 1e-3}, 0.0, 1e3, 0.5),
    Quantity.POWER_FACTOR: Trait({"1": 1.0, "%": 1e-2}, -1.0, 1.0, 0.02),
    Quantity.APPARENT_VA: Trait({"VA": 1.0, "kVA": 1e3}, -1e6, 1e6, 0.5),
    **dict.fromkeys(PHASE_POWERS, _POWER),
    **dict.fromkeys(PHASE_VOLTAGES, _VOLTAGE),
    **dict.fromkeys(PHASE_CURRENTS, _CURRENT),
}
