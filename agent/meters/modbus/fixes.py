"""What some devices' numbers need before they mean what they say. Profiles name these; other code they cannot hold."""

from collections.abc import Callable
from typing import Final, Literal

FixName = Literal["divide_by_ten_above_100", "four_quadrant_pf"]


def divide_by_ten_above_100(value: float) -> float:
    """A frequency of which some firmware of Eastron's SDM meters shows ten times as much."""
    return value / 10 if value > 100 else value


def four_quadrant_pf(value: float) -> float:
    """A power factor from Schneider Electric's four-quadrant code, in which 2 − PF tells that it is leading."""
    if value > 1:
        return 2 - value
    return -2 - value if value < -1 else value


FIXES: Final[dict[FixName, Callable[[float], float]]] = {
    "divide_by_ten_above_100": divide_by_ten_above_100,
    "four_quadrant_pf": four_quadrant_pf,
}
