"""Meters on a fixed cadence: every tick of every meter becomes one sample, also when nothing could be read.

Tick n of a meter is due at start + n·interval, whatever happened before it. A read that has not ended when the next one
is due makes a ``missing`` sample: it is neither waited for nor delivered late, and no second one is started beside it.
Ticks at which the agent itself came too late (a suspended or overloaded machine) are counted, never made up for.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.energy import EnergyMeter
from agent.faultlog import FaultLog
from agent.sample import Sample
from hil.clock import Clock
from hil.devices import DeviceFailed, DeviceUnavailable, Meter, Quality, Reading

log = logging.getLogger(__name__)

LARGEST_W: Final = 1e12


@dataclass(slots=True)
class Counters:
    """What the ticks of a meter came to; ``missed`` ones have no sample at all, for the agent itself was late."""

    samples: int = 0
    missing: int = 0
    missed: int = 0
    rejected: int = 0
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """A reading and when it was taken: wall time in µs, and monotonic s."""

    reading: Reading | None
    t_us: int
    now: float


class MeterCadence:
    """One meter and its ticks. ``deliver`` gets each sample, on the event loop."""

    def __init__(
        self, meter: Meter, interval_s: float, energy: EnergyMeter, clock: Clock, deliver: Callable[[Sample], None]
    ) -> None:
        self.counters = Counters()
        self.energy = energy
        self.interval_s = interval_s
        self._meter = meter
        self._clock = clock
        self._deliver = deliver
        self._faults = FaultLog(log, f"meter {meter.name}")
        self._lateness = FaultLog(log, f"meter {meter.name}, cadence")
        self._opened = False
        self._failed = False
        self._reading: asyncio.Task[Taken] | None = None

    async def run(self, start: float) -> None:
        """Sample at ``start`` (monotonic s) and every interval from there, until cancelled."""
        tick = 0
        await self._clock.sleep_until(start)
        try:
            while True:
                due = asyncio.create_task(self._clock.sleep_until(start + (tick + 1) * self.interval_s))
                try:
                    self._deliver(self._sample(await self._read_until(due)))
                    await due
                finally:
                    due.cancel()
                tick = self._next_tick(start, tick + 1)
        finally:
            await self._give_up()

    async def _give_up(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        self._reading, self._opened = None, False
        await self._meter.close()

    def _next_tick(self, start: float, tick: int) -> int:
        """The tick that is due now: ``tick``, or a later one where the agent has slept through some."""
        due = math.floor((self._clock.monotonic() - start) / self.interval_s)
        if due <= tick:
            self._lateness.clear()
            return tick
        self.counters.missed += due - tick
        self.energy.miss()
        self._lateness.fault("the agent was too late for a tick")
        return due

    async def _read_until(self, due: asyncio.Task[None]) -> Taken:
        nothing = Taken(None, self._clock.wall_us(), self._clock.monotonic())
        if self._failed:
            return nothing
        if self._reading is not None:  # of an earlier tick: it no longer counts, but must end before the next begins
            await asyncio.wait({self._reading, due}, return_when=asyncio.FIRST_COMPLETED)
            if self._reading.done():
                self._reading = None
        if self._reading is None and not due.done():
            self._reading = asyncio.create_task(self._read(), name=f"read {self._meter.name}")
            await asyncio.wait({self._reading, due}, return_when=asyncio.FIRST_COMPLETED)
            if self._reading.done():
                taken, self._reading = self._reading.result(), None
                return taken
        self._faults.fault(f"no reading within its interval of {self.interval_s:g} s")
        return nothing

    async def _read(self) -> Taken:
        t_us, now = self._clock.wall_us(), self._clock.monotonic()
        try:
            if not self._opened:
                await self._meter.open()
                self._opened = True
            return Taken(await self._meter.read(), t_us, now)
        except DeviceUnavailable as error:
            self._faults.fault(error.what)
        except DeviceFailed as error:
            self._failed = True
            log.error("meter %s: %s; it is read no more", self._meter.name, error.what)
        except Exception as error:  # noqa: BLE001  # a faulty driver must not take the other meters with it
            self.counters.crashes += 1
            self._faults.fault(f"its driver failed with {error!r}", error)
        return Taken(None, t_us, now)

    def _believable(self, reading: Reading | None) -> Reading | None:
        if reading is None:
            return None
        power_w, energy_j = reading.power_w, reading.energy_j
        if power_w is None or reading.quality is Quality.MISSING:
            self._faults.fault(reading.note or "no value")
            return None
        if not abs(power_w) <= LARGEST_W:  # also true of NaN
            self.counters.rejected += 1
            self._faults.fault(f"a reading of {power_w} W was rejected")
            return None
        self._faults.clear()
        if energy_j is not None and not math.isfinite(energy_j):
            self.counters.rejected += 1
            return replace(reading, energy_j=None)
        return reading

    def _sample(self, taken: Taken) -> Sample:
        self.counters.samples += 1
        reading = self._believable(taken.reading)
        if reading is None:
            self.counters.missing += 1
            self.energy.miss()
            return Sample(self._meter.name, taken.t_us, None, None, self.energy.epoch, Quality.MISSING)
        energy = self.energy.take(reading, taken.now)
        return Sample(self._meter.name, taken.t_us, reading.power_w, energy, self.energy.epoch, reading.quality)


class Sampler:
    """All meters of an agent, each on its own cadence: a slow one holds up nobody."""

    def __init__(self, cadences: Sequence[MeterCadence], clock: Clock) -> None:
        self._cadences = cadences
        self._clock = clock

    async def run(self) -> None:
        """Sample until cancelled; then the meters are closed."""
        start = self._clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for cadence in self._cadences:
                tasks.create_task(cadence.run(start))
