from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.actuators.cpufreq import CpufreqActuator, CpufreqConfig
from agent.actuators.cpufreq.curve import frequency_khz, power_w
from hil.devices import Capabilities, DeviceFailed, DeviceUnavailable, Setting
from hil.emulated.sysfs import Tree

CURVE = [[800, 8], [1600, 12], [2400, 20]]
MODES = {"full": {"max_mhz": 9999}, "eco": {"max_mhz": 1200, "epp": "power", "boost": False}}


class Machine:
    """The cpufreq of a machine: ``kind`` is intel, amd or arm."""

    def __init__(self, root: Path, kind: str, policies: int = 2) -> None:
        self.root = root
        self.cpu = root / "devices/system/cpu"
        tree = Tree(root)
        tree.begin()
        for number in range(policies):
            folder = f"devices/system/cpu/cpufreq/policy{number}"
            tree.write(f"{folder}/cpuinfo_min_freq", "800000")
            tree.write(f"{folder}/cpuinfo_max_freq", "2400000")
            tree.write(f"{folder}/scaling_max_freq", "2400000")
            if kind == "arm":
                tree.write(f"{folder}/scaling_available_frequencies", "800000 1100000 1500000 2400000 ")
            else:
                tree.write(f"{folder}/energy_performance_preference", "balance_power")
        if kind == "intel":
            tree.write("devices/system/cpu/intel_pstate/no_turbo", "0")
        if kind == "amd":
            tree.write("devices/system/cpu/cpufreq/boost", "1")

    def actuator(self, **config: Any) -> CpufreqActuator:
        full = {"kind": "cpufreq", "name": "cores", "sysfs_root": str(self.root)} | config
        return CpufreqActuator(msgspec.convert(full, CpufreqConfig))

    def knob(self, name: str, policy: int = 1) -> str:
        return (self.cpu / f"cpufreq/policy{policy}" / name).read_text().strip()

    @property
    def max_mhz(self) -> list[float]:
        return [int(self.knob("scaling_max_freq", policy)) / 1000 for policy in (0, 1)]

    @property
    def boost(self) -> str:
        [switch] = [path for path in (self.cpu / "cpufreq/boost", self.cpu / "intel_pstate/no_turbo") if path.exists()]
        return f"{switch.name} {switch.read_text().strip()}"


Make = Callable[..., Machine]


@pytest.fixture
def machine(tmp_path: Path) -> Make:
    return lambda kind="intel": Machine(tmp_path / "sys", kind)


async def test_what_it_can_do_follows_from_the_configuration(machine: Make) -> None:
    server = machine()
    assert await server.actuator(modes=MODES).open() == Capabilities(profiles=("full", "eco"))
    assert await server.actuator(curve=CURVE).open() == Capabilities(8, 20)
    assert server.max_mhz == [2400, 2400]


async def test_steps_are_told_as_watts(machine: Make) -> None:
    assert (await machine("arm").actuator(curve=CURVE).open()).step_w == pytest.approx(20 - 11.5)


@pytest.mark.parametrize(("kind", "boost"), [("intel", "no_turbo 1"), ("amd", "boost 0")])
async def test_a_mode_turns_every_knob_and_is_read_back(machine: Make, kind: str, boost: str) -> None:
    server = machine(kind)
    actuator = server.actuator(modes=MODES)
    await actuator.open()
    snapshot = await actuator.snapshot()
    await actuator.apply(Setting(profile="eco"))
    assert (server.max_mhz, server.knob("energy_performance_preference"), server.boost) == ([1200] * 2, "power", boost)
    assert (await actuator.readback()).profile == "eco"
    await server.actuator(modes=MODES).restore(snapshot)
    owners = ([2400] * 2, "balance_power", {"no_turbo 1": "no_turbo 0", "boost 0": "boost 1"}[boost])
    assert (server.max_mhz, server.knob("energy_performance_preference"), server.boost) == owners


async def test_a_mode_left_for_another_leaves_nothing_behind(machine: Make) -> None:
    server = machine()
    actuator = server.actuator(modes=MODES)
    await actuator.open()
    await actuator.apply(Setting(profile="eco"))
    await actuator.apply(Setting(profile="full"))
    assert (server.max_mhz, server.knob("energy_performance_preference")) == ([2400] * 2, "balance_power")
    assert (await actuator.readback()).profile == "full"


async def test_knobs_that_are_missing_are_told_and_the_others_work(machine: Make) -> None:
    server = machine("arm")
    actuator = server.actuator(modes=MODES)
    note = (await actuator.open()).note
    assert note == "no energy_performance_preference here; no switch for boost here"
    await actuator.apply(Setting(profile="eco"))
    assert server.max_mhz == [1100, 1100]  # the step below
    assert (await actuator.readback()).profile == "eco"


@pytest.mark.parametrize(("limit_w", "mhz"), [(20, 2400), (16, 2000), (12, 1600), (10, 1200), (8, 800)])
async def test_a_limit_becomes_a_frequency(machine: Make, limit_w: float, mhz: float) -> None:
    server = machine()
    actuator = server.actuator(curve=CURVE)
    await actuator.open()
    await actuator.apply(Setting(limit_w=limit_w))
    assert server.max_mhz == [mhz, mhz]
    assert (await actuator.readback()).limit_w == pytest.approx(limit_w)


async def test_on_a_ladder_a_limit_takes_the_step_below(machine: Make) -> None:
    server = machine("arm")
    actuator = server.actuator(curve=CURVE)
    await actuator.open()
    await actuator.apply(Setting(limit_w=15.0))
    assert server.max_mhz == [1500, 1500]
    assert (await actuator.readback()).limit_w == pytest.approx(11.5)


async def test_of_a_mode_and_a_limit_the_lower_frequency_holds(machine: Make) -> None:
    server = machine()
    actuator = server.actuator(curve=CURVE, modes=MODES)
    await actuator.open()
    await actuator.apply(Setting(limit_w=9.0, profile="eco"))
    assert server.max_mhz == [1000, 1000]
    assert await actuator.readback() == Setting(9.0, "eco")
    await actuator.apply(Setting(limit_w=18.0, profile="eco"))
    assert server.max_mhz == [1200, 1200]


async def test_an_owners_lower_frequency_comes_back(machine: Make) -> None:
    server = machine()
    (server.cpu / "cpufreq/policy0/scaling_max_freq").write_text("2000000\n")
    actuator = server.actuator(curve=CURVE)
    await actuator.open()
    snapshot = await actuator.snapshot()
    await actuator.apply(Setting(limit_w=8.0))
    later = server.actuator(curve=CURVE)
    await later.open()
    for _ in range(2):
        await later.restore(snapshot)
        assert server.max_mhz == [2000, 2400]


async def test_no_cpufreq_is_told(tmp_path: Path) -> None:
    actuator = CpufreqActuator(CpufreqConfig(name="cores", curve=((800, 8), (1600, 12)), sysfs_root=str(tmp_path)))
    with pytest.raises(DeviceFailed, match="no cpufreq here"):
        await actuator.open()


async def test_garbage_is_unavailable(machine: Make) -> None:
    server = machine()
    actuator = server.actuator(curve=CURVE)
    await actuator.open()
    (server.cpu / "cpufreq/policy1/scaling_max_freq").write_text("<unsupported>\n")
    with pytest.raises(DeviceUnavailable, match="policy1: scaling_max_freq holds garbage"):
        await actuator.readback()


@pytest.mark.parametrize("setting", [Setting(limit_w=-1.0), Setting(limit_w=float("nan")), Setting(profile="warp")])
async def test_what_it_does_not_know_changes_nothing(machine: Make, setting: Setting) -> None:
    server = machine()
    actuator = server.actuator(curve=CURVE, modes=MODES)
    await actuator.open()
    with pytest.raises(DeviceFailed):
        await actuator.apply(setting)
    assert server.max_mhz == [2400, 2400]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"curve": [[800, 8]]},
        {"curve": [[800, 8], [700, 9]]},
        {"curve": [[800, 8], [900, 8]]},
        {"modes": {"Eco": {}}},
        {"modes": {"eco": {"epp": "x; reboot"}}},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kind": "cpufreq", "name": "cores"} | config, CpufreqConfig)


def test_the_curve_goes_both_ways_and_ends_level() -> None:
    curve = [(800.0, 8.0), (1600.0, 12.0), (2400.0, 20.0)]
    assert [power_w(curve, khz) for khz in (1, 800_000, 2_000_000, 9_000_000)] == [8, 8, 16, 20]
    assert [frequency_khz(curve, limit_w) for limit_w in (1, 8, 16, 99)] == [800_000, 800_000, 2_000_000, 2_400_000]
