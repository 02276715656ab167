"""The public grid: how much it gives and takes, and what is left when it does not suffice."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grid:
    """A connection to the grid; limits in W, both ≥ 0."""

    import_limit_w: float = math.inf
    export_limit_w: float = math.inf


NO_GRID = Grid(import_limit_w=0.0, export_limit_w=0.0)


def settle(rest_w: float, import_limit_w: float, export_limit_w: float) -> tuple[float, float, float]:
    """Grid power (export +, import −), unserved and curtailed power (≥ 0), in W, of what the battery leaves over."""
    p_grid_w = min(max(rest_w, -import_limit_w), export_limit_w) + 0.0  # + 0.0: no import is 0.0, never −0.0
    over_w = rest_w - p_grid_w
    return p_grid_w, max(0.0, -over_w), max(0.0, over_w)
