import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from agent.energy import EnergyMeter
from agent.sample import Sample
from agent.sampler import MeterCadence, Sampler
from hil.clock import ManualClock, settle
from hil.devices import DeviceFailed, DeviceUnavailable, Quality, Reading


@dataclass
class ScriptedMeter:
    """A meter whose answers a test writes down; the last one stands for ever."""

    answers: list[Callable[[], Awaitable[Reading]]]
    name: str = "m"
    opened: int = 0
    reads: int = 0
    closed: int = 0
    open_errors: list[Exception] = field(default_factory=list)

    async def open(self) -> None:
        self.opened += 1
        if self.open_errors:
            raise self.open_errors.pop(0)

    async def read(self) -> Reading:
        self.reads += 1
        return await self.answers[min(self.reads, len(self.answers)) - 1]()

    async def close(self) -> None:
        self.closed += 1


def shows(power_w: float | None, **more: object) -> Callable[[], Awaitable[Reading]]:
    async def answer() -> Reading:
        return Reading(power_w, **more)  # type: ignore[arg-type]

    return answer


def fails(error: Exception) -> Callable[[], Awaitable[Reading]]:
    async def answer() -> Reading:
        raise error

    return answer


def takes(clock: ManualClock, seconds: float, power_w: float) -> Callable[[], Awaitable[Reading]]:
    async def answer() -> Reading:
        await clock.sleep_until(clock.monotonic() + seconds)
        return Reading(power_w)

    return answer


class Bench:
    """Meters on a manual clock, and what they delivered."""

    def __init__(self, *meters: ScriptedMeter, interval_s: float = 1.0, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.samples: list[Sample] = []
        self.cadences = [
            MeterCadence(meter, interval_s, EnergyMeter(), self.clock, self.samples.append) for meter in meters
        ]
        self._sampler = Sampler(self.cadences, self.clock)

    async def run(self, seconds: float) -> list[Sample]:
        task = asyncio.create_task(self._sampler.run())
        await self.clock.advance(seconds)
        task.cancel()
        await asyncio.wait({task})
        return self.samples

    def powers(self) -> list[float | None]:
        return [sample.power_w for sample in self.samples]


async def test_ticks_come_at_start_plus_n_intervals() -> None:
    bench = Bench(ScriptedMeter([shows(15.0)]), interval_s=0.5)
    start = bench.clock.wall_us()
    samples = await bench.run(2.0)
    assert [sample.t_us - start for sample in samples] == [0, 500_000, 1_000_000, 1_500_000, 2_000_000]
    assert {sample.quality for sample in samples} == {Quality.GOOD}


async def test_a_slow_read_shifts_no_later_tick() -> None:
    clock = ManualClock()
    bench = Bench(ScriptedMeter([takes(clock, 0.4, 1.0)]), clock=clock)
    start = clock.wall_us()
    samples = await bench.run(3.5)
    assert [sample.t_us - start for sample in samples] == [0, 1_000_000, 2_000_000, 3_000_000]


async def test_a_failed_read_is_missing_and_never_zero(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    silent = fails(DeviceUnavailable("m", "no answer"))
    bench = Bench(ScriptedMeter([shows(15.0), silent, silent, shows(16.0)]))
    samples = await bench.run(3.0)
    assert [(sample.power_w, sample.quality) for sample in samples] == [
        (15.0, Quality.GOOD),
        (None, Quality.MISSING),
        (None, Quality.MISSING),
        (16.0, Quality.GOOD),
    ]
    assert samples[1].energy is None
    assert caplog.messages == ["meter m: no answer", "meter m: works again, after 2 failures"]


async def test_a_failed_device_is_read_no_more_but_still_shown_missing(caplog: pytest.LogCaptureFixture) -> None:
    meter = ScriptedMeter([shows(15.0), fails(DeviceFailed("m", "no such register"))])
    bench = Bench(meter)
    await bench.run(4.0)
    assert bench.powers() == [15.0, None, None, None, None]
    assert meter.reads == 2
    assert caplog.messages == ["meter m: no such register; it is read no more"]


async def test_a_meter_that_cannot_be_opened_yet_is_opened_again() -> None:
    meter = ScriptedMeter([shows(15.0)], open_errors=[DeviceUnavailable("m", "busy")])
    bench = Bench(meter)
    await bench.run(1.0)
    assert bench.powers() == [None, 15.0]
    assert meter.opened == 2


async def test_a_faulty_driver_harms_only_its_own_samples(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(ScriptedMeter([fails(KeyError("x"))], name="bad"), ScriptedMeter([shows(1.0)], name="good"))
    samples = await bench.run(2.0)
    assert [sample.power_w for sample in samples if sample.meter == "good"] == [1.0, 1.0, 1.0]
    assert [sample.power_w for sample in samples if sample.meter == "bad"] == [None, None, None]
    assert bench.cadences[0].counters.crashes == 3
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("power_w", [math.nan, math.inf, -math.inf, 1e13])
async def test_what_is_no_power_is_rejected_and_counted(power_w: float) -> None:
    bench = Bench(ScriptedMeter([shows(power_w)]))
    await bench.run(1.0)
    assert bench.powers() == [None, None]
    assert bench.cadences[0].counters.rejected == 2


async def test_a_little_negative_power_is_a_reading() -> None:
    bench = Bench(ScriptedMeter([shows(-0.01)]))
    samples = await bench.run(0.0)
    assert [(sample.power_w, sample.quality) for sample in samples] == [(-0.01, Quality.GOOD)]


async def test_an_energy_that_is_no_number_leaves_the_power_standing() -> None:
    bench = Bench(ScriptedMeter([shows(5.0, energy_j=math.nan)]))
    samples = await bench.run(0.0)
    assert samples[0].power_w == 5.0
    assert bench.cadences[0].counters.rejected == 1


async def test_a_reading_of_quality_missing_has_no_power() -> None:
    bench = Bench(ScriptedMeter([shows(5.0, quality=Quality.MISSING, note="calibrating")]))
    await bench.run(0.0)
    assert bench.powers() == [None]


async def test_quality_is_passed_on() -> None:
    bench = Bench(ScriptedMeter([shows(5.0, quality=Quality.ESTIMATED)]))
    samples = await bench.run(0.0)
    assert samples[0].quality is Quality.ESTIMATED


async def test_a_read_that_exceeds_its_interval_is_missing_and_not_late() -> None:
    clock = ManualClock()
    meter = ScriptedMeter([shows(1.0), takes(clock, 1.2, 99.0), shows(3.0)])
    bench = Bench(meter, clock=clock)
    samples = await bench.run(3.0)
    assert bench.powers() == [1.0, None, 3.0, 3.0]
    start = samples[0].t_us
    # The third tick had to wait for the late read to end; its stamp says when it was really read.
    assert [sample.t_us - start for sample in samples] == [0, 1_000_000, 2_200_000, 3_000_000]


async def test_reads_never_overlap_on_one_meter() -> None:
    clock = ManualClock()
    meter = ScriptedMeter([takes(clock, 10.0, 1.0)])
    bench = Bench(meter, clock=clock)
    await bench.run(9.0)
    assert meter.reads == 1
    assert bench.powers() == [None] * 9


async def test_a_permanently_slow_meter_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    bench = Bench(ScriptedMeter([takes(clock, 1.5, 1.0)]), clock=clock)
    await bench.run(60.0)
    assert set(bench.powers()) == {None}
    assert caplog.messages == ["meter m: no reading within its interval of 1 s"]


async def test_a_slow_meter_delays_no_other() -> None:
    clock = ManualClock()
    bench = Bench(ScriptedMeter([takes(clock, 50.0, 1.0)], name="slow"), ScriptedMeter([shows(2.0)]), clock=clock)
    samples = await bench.run(3.0)
    assert [sample.power_w for sample in samples if sample.meter == "m"] == [2.0] * 4


class StallingClock(ManualClock):
    """A machine that wakes nobody before ``until``, as one does that is stopped or overloaded."""

    until = 0.0

    async def sleep_until(self, deadline: float) -> None:
        await super().sleep_until(max(deadline, self.until))


async def test_ticks_that_the_agent_slept_through_are_counted_and_not_bunched() -> None:
    clock = StallingClock()
    bench = Bench(ScriptedMeter([shows(1.0)]), clock=clock)
    start, wall = clock.monotonic(), clock.wall_us()
    task = asyncio.create_task(bench.run(8.0))
    await settle()
    clock.until = start + 6.2
    samples = await task
    assert [(sample.t_us - wall) / 1e6 for sample in samples] == [0.0, 1.0, 6.2, 7.0, 8.0]
    assert bench.cadences[0].counters.missed == 4
    assert bench.cadences[0].energy.gaps == 1


async def test_meters_are_closed_at_the_end() -> None:
    meter = ScriptedMeter([shows(1.0)])
    await Bench(meter).run(1.0)
    assert meter.closed == 1
