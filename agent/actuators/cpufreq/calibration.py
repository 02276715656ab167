"""Measuring a curve: the node's power at one highest frequency after the other, under a steady load."""

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from agent.actuators.cpufreq.actuator import CpufreqActuator
from agent.actuators.cpufreq.curve import Point
from hil.clock import Clock
from hil.devices import DeviceUnavailable, Meter, Quality
from hil.units import KILOHERTZ_PER_MEGAHERTZ

SETTLE_S: Final = 1.0
READ_EVERY_S: Final = 0.25
USABLE: Final = frozenset({Quality.GOOD, Quality.ESTIMATED})


class NoCurve(Exception):
    """What was measured makes no curve; says why."""


async def measure(
    actuator: CpufreqActuator, meter: Meter, count: int, hold_s: float, clock: Clock, tell: Callable[[Point], None]
) -> list[Point]:
    """The power in W at ``count`` frequencies in MHz, each held for ``hold_s``, rising. Raises NoCurve, DeviceError.

    The frequency stays where it was last held: the caller restores it.
    """
    points = []
    for frequency_khz in await actuator.frequencies_khz(count):
        await actuator.hold_khz(frequency_khz)
        await clock.sleep_until(clock.monotonic() + SETTLE_S)
        point = frequency_khz / KILOHERTZ_PER_MEGAHERTZ, await _power_w(meter, hold_s, clock)
        tell(point)
        points.append(point)
    return rising(points)


def rising(points: Sequence[Point]) -> list[Point]:
    """The points that draw more than all slower ones. Raises NoCurve where fewer than two do."""
    curve: list[Point] = []
    for point in points:
        if not curve or point[1] > curve[-1][1]:
            curve.append(point)
    if len(curve) < 2:
        raise NoCurve("the meter shows no more power at a higher frequency, so the frequency is no way to limit it")
    return curve


async def _power_w(meter: Meter, hold_s: float, clock: Clock) -> float:
    """The median of what the meter shows; a single look that fails costs nothing."""
    seen: list[float] = []
    end = clock.monotonic() + hold_s
    while clock.monotonic() < end:
        await clock.sleep_until(clock.monotonic() + READ_EVERY_S)
        try:
            reading = await meter.read()
        except DeviceUnavailable:
            continue
        if reading.power_w is not None and reading.quality in USABLE:
            seen.append(reading.power_w)
    if not seen:
        raise NoCurve(f"{meter.name}: no reading in {hold_s:g} s")
    return statistics.median(seen)
