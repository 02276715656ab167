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


@dataclass(frozen=True, slots=True)
class Trait:
    """The units a quantity comes in, with their factors (the canonical one first), and its widest possible range."""

    units: dict[str, float]
    low: float
    high: float


_JOULES_PER_KWH: Final = JOULES_PER_WH * WH_PER_KWH

TRAITS: Final = {
    Quantity.POWER_W: Trait({"W": 1.0, "kW": WATTS_PER_KILOWATT, "mW": WATTS_PER_MILLIWATT}, -1e9, 1e9),
    Quantity.ENERGY_J: Trait(
        {"J": 1.0, "mJ": 1e-3, "kJ": 1e3, "Wh": JOULES_PER_WH, "kWh": _JOULES_PER_KWH, "MWh": 1e3 * _JOULES_PER_KWH},
        0.0,
        1e18,
    ),
    Quantity.VOLTAGE_V: Trait({"V": 1.0, "mV": 1e-3, "kV": 1e3}, -1e6, 1e6),
    Quantity.CURRENT_A: Trait({"A": 1.0, "mA": 1e-3, "kA": 1e3}, -1e6, 1e6),
    Quantity.FREQUENCY_HZ: Trait({"Hz": 1.0, "mHz": 1e-3}, 0.0, 1e4),
    Quantity.POWER_FACTOR: Trait({"1": 1.0, "%": 1e-2}, -2.0, 2.0),
    Quantity.APPARENT_VA: Trait({"VA": 1.0, "kVA": 1e3}, -1e9, 1e9),
}
