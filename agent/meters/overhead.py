"""A meter with what it cannot see added: a fixed offset, and the building around it.

In the configuration of any meter::

    offset_w: 12        # fans, disks, the power supply's own loss: W, always on
    pue: 1.3            # cooling and distribution, see agent.meters.pue

The reading is ``(power + offset_w) · PUE``, and its energy agrees with it. A limit is still one on the machine itself:
where it is checked against this meter, leave both out.
"""

from dataclasses import dataclass, replace

from agent.meters.pue import ConstantPue, Pue
from hil.clock import Clock
from hil.devices import Meter, Quality, Reading


@dataclass(frozen=True, slots=True)
class Overhead:
    """What is added to a power: first an offset in W, then a factor."""

    offset_w: float
    pue: Pue

    @property
    def scale(self) -> float | None:
        """The factor, where it is always the same and nothing is added: then it fits a counter, too."""
        return self.pue.factor if isinstance(self.pue, ConstantPue) and self.offset_w == 0 else None


@dataclass(frozen=True, slots=True)
class _Count:
    """The device's counter at one reading, and the monotonic instant in s."""

    energy_j: float
    epoch: int | None
    at: float


class OverheadMeter:
    """Another meter's readings with overhead."""

    def __init__(self, meter: Meter, overhead: Overhead, clock: Clock) -> None:
        self._meter = meter
        self._overhead = overhead
        self._clock = clock
        self._last: _Count | None = None
        self._energy_j = 0.0
        self._epoch = 0

    @property
    def name(self) -> str:
        """The meter's name in the agent's configuration."""
        return self._meter.name

    async def open(self) -> None:
        """Open the meter behind."""
        await self._meter.open()

    async def read(self) -> Reading:
        """Power in W with overhead, and an energy that agrees with it; ``estimated`` where the PUE is not known."""
        reading = await self._meter.read()
        if reading.power_w is None:
            return reading
        load_w = reading.power_w + self._overhead.offset_w
        factor, known = self._overhead.pue.at(load_w, self._clock.wall_us())
        reading = replace(self._with_energy(reading, factor), power_w=load_w * factor)
        if known or reading.quality is not Quality.GOOD:
            return reading
        return replace(reading, quality=Quality.ESTIMATED, note="the PUE's file does not reach to this time")

    async def close(self) -> None:
        """Close the meter behind."""
        await self._meter.close()

    def _with_energy(self, reading: Reading, factor: float) -> Reading:
        if reading.energy_j is None:
            return reading
        if self._overhead.scale is not None:
            return replace(reading, energy_j=reading.energy_j * self._overhead.scale)
        self._add(_Count(reading.energy_j, reading.counter_epoch, self._clock.monotonic()), factor)
        return replace(reading, energy_j=self._energy_j, counter_epoch=self._epoch)

    def _add(self, count: _Count, factor: float) -> None:
        """Add what the device counted since the last reading, and the overhead of that time."""
        last, self._last = self._last, count
        if last is None or count.epoch != last.epoch or count.energy_j < last.energy_j:
            self._epoch += last is not None
            self._energy_j = 0.0
            return
        offset_j = self._overhead.offset_w * (count.at - last.at)
        self._energy_j += (count.energy_j - last.energy_j + offset_j) * factor
