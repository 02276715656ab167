"""The node's power over its highest frequency: straight lines between points."""

import itertools
from collections.abc import Sequence

from hil.units import KILOHERTZ_PER_MEGAHERTZ

Point = tuple[float, float]


def power_w(curve: Sequence[Point], frequency_khz: int) -> float:
    """The power in W at a frequency; beyond the ends that of the nearest point."""
    return _interpolate(curve, frequency_khz / KILOHERTZ_PER_MEGAHERTZ)


def frequency_khz(curve: Sequence[Point], limit_w: float) -> int:
    """The highest frequency in kHz whose power is within the limit; that of the first point where none is."""
    turned = [(watts, megahertz) for megahertz, watts in curve]
    return int(_interpolate(turned, limit_w) * KILOHERTZ_PER_MEGAHERTZ)


def _interpolate(points: Sequence[Point], x: float) -> float:
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]
