"""What an electrical meter makes of a node's power: voltage, current and the rest, in agreement with each other."""

import enum
from collections.abc import Mapping
from typing import Final

VOLTAGE_V: Final = 230.0
FREQUENCY_HZ: Final = 50.0
POWER_FACTOR: Final = 0.98

LEAST_W: Final = 1e-6
"""What is less no meter can tell from nothing."""

PHASES: Final = 3


class Quantity(enum.StrEnum):
    """What meters show, in canonical units; a phase's quantities are named by it."""

    POWER_W = "power_w"
    VOLTAGE_V = "voltage_v"
    CURRENT_A = "current_a"
    FREQUENCY_HZ = "frequency_hz"
    POWER_FACTOR = "power_factor"
    APPARENT_VA = "apparent_va"
    ENERGY_J = "energy_j"
    POWER_L1_W = "power_l1_w"
    POWER_L2_W = "power_l2_w"
    POWER_L3_W = "power_l3_w"
    VOLTAGE_L1_V = "voltage_l1_v"
    VOLTAGE_L2_V = "voltage_l2_v"
    VOLTAGE_L3_V = "voltage_l3_v"
    CURRENT_L1_A = "current_l1_a"
    CURRENT_L2_A = "current_l2_a"
    CURRENT_L3_A = "current_l3_a"


def phases_of(quantities: frozenset[Quantity]) -> int:
    """Over how many phases a meter with these quantities sees its load: 3 where it has any phase's but the first's."""
    return PHASES if any("_l2_" in quantity for quantity in quantities) else 1


def shown(power_w: float, energy_j: float, phases: int = 1) -> Mapping[Quantity, float]:
    """Every quantity of a load that is the same on each of its phases; those of other phases carry nothing."""
    power_w = power_w if power_w >= LEAST_W else 0.0
    apparent_va = power_w / POWER_FACTOR
    values = {
        Quantity.POWER_W: power_w,
        Quantity.VOLTAGE_V: VOLTAGE_V,
        Quantity.CURRENT_A: apparent_va / VOLTAGE_V,
        Quantity.FREQUENCY_HZ: FREQUENCY_HZ,
        Quantity.POWER_FACTOR: POWER_FACTOR,
        Quantity.APPARENT_VA: apparent_va,
        Quantity.ENERGY_J: energy_j,
    }
    for phase in range(1, PHASES + 1):
        share = 1 / phases if phase <= phases else 0.0
        values[Quantity(f"power_l{phase}_w")] = power_w * share
        values[Quantity(f"voltage_l{phase}_v")] = VOLTAGE_V
        values[Quantity(f"current_l{phase}_a")] = apparent_va * share / VOLTAGE_V
    return values
