import asyncio
from pathlib import Path

import pytest

from agent.actuators.cpufreq import CpufreqActuator, CpufreqConfig
from agent.actuators.cpufreq.calibration import NoCurve, measure, rising
from agent.actuators.cpufreq.curve import Point
from hil.clock import ManualClock
from hil.devices import DeviceUnavailable, Quality, Reading
from hil.emulated.sysfs import Tree

POLICY = "devices/system/cpu/cpufreq/policy0"


class FrequencyMeter:
    """Shows what a machine draws whose power rises with the square of its frequency; each third look fails."""

    name = "outlet"

    def __init__(self, root: Path) -> None:
        self._path = root / POLICY / "scaling_max_freq"
        self._looks = 0
        self.dead = False

    async def open(self) -> None:
        pass

    async def read(self) -> Reading:
        self._looks += 1
        if self.dead or self._looks % 3 == 0:
            raise DeviceUnavailable(self.name, "silent")
        if self._looks % 3 == 1:
            return Reading(1000.0, quality=Quality.SUSPECT)
        gigahertz = int(self._path.read_text()) / 1e6
        return Reading(5 + 4 * gigahertz**2)

    async def close(self) -> None:
        pass


class Bench:
    def __init__(self, root: Path, steps: str = "") -> None:
        tree = Tree(root)
        tree.begin()
        knobs = {"cpuinfo_min_freq": "1000000", "cpuinfo_max_freq": "2000000", "scaling_max_freq": "2000000"}
        for name, text in (knobs | ({"scaling_available_frequencies": steps} if steps else {})).items():
            tree.write(f"{POLICY}/{name}", text)
        self.actuator = CpufreqActuator(CpufreqConfig(name="cores", curve=((1, 1), (2, 2)), sysfs_root=str(root)))
        self.meter = FrequencyMeter(root)
        self.told: list[Point] = []

    async def measure(self, count: int) -> list[Point]:
        clock = ManualClock()
        work = asyncio.create_task(measure(self.actuator, self.meter, count, 3.0, clock, self.told.append))
        while not work.done():
            await asyncio.sleep(0)  # the files are read by a thread
            await clock.advance(0.25)
        return await work


async def test_the_curve_is_what_the_meter_shows(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert await bench.measure(3) == [(1000.0, 9.0), (1500.0, 14.0), (2000.0, 21.0)]
    assert len(bench.told) == 3


async def test_on_a_ladder_its_steps_are_measured(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "1000000 1200000 2000000")
    assert [megahertz for megahertz, _ in await bench.measure(6)] == [1000.0, 1200.0, 2000.0]


async def test_a_dead_meter_makes_no_curve(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.meter.dead = True
    with pytest.raises(NoCurve, match="outlet: no reading in 3 s"):
        await bench.measure(3)


def test_points_that_do_not_rise_are_left_out() -> None:
    assert rising([(1, 5), (2, 4.9), (3, 7), (4, 7), (5, 8)]) == [(1, 5), (3, 7), (5, 8)]
    with pytest.raises(NoCurve, match="no more power at a higher frequency"):
        rising([(1, 5), (2, 5)])
