from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent.meters.cpu import CpuMeter, CpuMeterConfig, interpolate
from hil.clock import ManualClock, SystemClock
from hil.devices import DeviceUnavailable, Quality

CURVE = (44.0, 55.0, 61.0, 67.0, 73.0, 79.0, 86.0, 93.0, 101.0, 110.0, 119.0)


class Processors:
    """Processor times that a test moves on."""

    def __init__(self) -> None:
        self.now = SimpleNamespace(
            user=50.0, nice=1.0, system=20.0, irq=1.0, softirq=1.0, steal=9.0, idle=900.0, iowait=5.0
        )

    def __call__(self) -> SimpleNamespace:
        return SimpleNamespace(**vars(self.now))

    def run(self, busy: float, idle: float) -> None:
        self.now.user += busy / 2
        self.now.system += busy / 2
        self.now.idle += idle / 2
        self.now.iowait += idle / 2


async def opened(processors: Processors, **config: Any) -> CpuMeter:
    clock = ManualClock()
    meter = CpuMeter(CpuMeterConfig(name="host", **config), clock, processors)
    await meter.open()
    await clock.advance(1.0)
    return meter


@pytest.mark.parametrize(("busy", "idle", "power_w"), [(0, 2, 10), (2, 0, 60), (1, 1, 35), (0.5, 1.5, 22.5)])
async def test_power_follows_the_load_since_the_last_reading(busy: float, idle: float, power_w: float) -> None:
    processors = Processors()
    meter = await opened(processors, idle_w=10, max_w=60)
    processors.run(2, 0)
    await meter.read()
    processors.run(busy, idle)
    reading = await meter.read()
    assert reading.power_w == pytest.approx(power_w)
    assert reading.quality is Quality.ESTIMATED
    assert reading.note


async def test_a_curve_is_followed_between_its_points() -> None:
    assert [interpolate(CURVE, load) for load in (0.0, 0.1, 0.15, 0.5, 0.95, 1.0)] == pytest.approx(
        [44, 55, 58, 79, 114.5, 119]
    )
    assert interpolate(CURVE, 1.2) == 119
    processors = Processors()
    meter = await opened(processors, curve_w=CURVE, trust="good")
    processors.run(3, 7)
    reading = await meter.read()
    assert reading.power_w == pytest.approx(67)
    assert reading.quality is Quality.GOOD


async def test_time_that_the_hypervisor_took_is_neither_load_nor_rest() -> None:
    processors = Processors()
    meter = await opened(processors, idle_w=10, max_w=60)
    processors.run(1, 1)
    processors.now.steal += 100
    assert (await meter.read()).power_w == pytest.approx(35)


async def test_no_time_is_no_reading() -> None:
    meter = await opened(Processors(), idle_w=10, max_w=60)
    with pytest.raises(DeviceUnavailable, match="no processor time"):
        await meter.read()


async def test_times_that_step_back_are_no_reading_and_the_next_one_is() -> None:
    processors = Processors()
    meter = await opened(processors, idle_w=10, max_w=60)
    processors.run(1, -0.5)
    with pytest.raises(DeviceUnavailable, match="backwards"):
        await meter.read()
    processors.run(1, 1)
    assert (await meter.read()).power_w == pytest.approx(35)


async def test_reading_unopened_is_no_reading() -> None:
    with pytest.raises(DeviceUnavailable):
        await CpuMeter(CpuMeterConfig(name="host", idle_w=1, max_w=2), ManualClock(), Processors()).read()


async def test_this_machine_gives_a_power_between_idle_and_full() -> None:
    meter = CpuMeter(CpuMeterConfig(name="host", idle_w=10, max_w=60), SystemClock())
    await meter.open()
    power_w = (await meter.read()).power_w
    assert power_w is not None
    assert 10 <= power_w <= 60


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"idle_w": 10},
        {"max_w": 10},
        {"idle_w": 10, "max_w": 60, "curve_w": CURVE},
        {"idle_w": 10, "curve_w": CURVE},
        {"idle_w": 60, "max_w": 10},
        {"curve_w": CURVE[::-1]},
        {"curve_w": CURVE[:10]},
        {"idle_w": -1, "max_w": 10},
        {"idle_w": 1, "max_w": 10, "trust": "blindly"},
    ],
)
def test_a_configuration_that_makes_no_curve_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kind": "cpu", "name": "host", **config}, CpuMeterConfig)
