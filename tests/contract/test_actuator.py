"""What every actuator promises, on every actuator there is. A new one adds a factory to ACTUATORS."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.actuators.cpufreq import CpufreqActuator, CpufreqConfig
from agent.actuators.emulated import EmulatedActuator, EmulatedActuatorConfig
from agent.actuators.rapl import RaplActuator, RaplActuatorConfig
from hil.clock import ManualClock
from hil.devices import Actuator, DeviceError, DeviceUnavailable, Setting
from hil.emulated.control import ControlServer
from hil.emulated.load import ConstantLoad
from hil.emulated.node import EmulatedNode, NodeTraits
from hil.emulated.sysfs import EmulatedPowercap, RaplConfig, Tree
from hil.emulated.world import World


@dataclass
class Subject:
    """A device that one actuator after another can be made for, and what the device itself says.

    ``free_w`` is the limit that it shows when it has none of ours: some devices always have one.
    """

    make: Callable[[], Actuator]
    limit_w: Callable[[], float | None]
    take_away: Callable[[], Awaitable[None]]
    bring_back: Callable[[], Awaitable[None]]
    free_w: float | None = None


@asynccontextmanager
async def emulated(_: Path) -> AsyncIterator[Subject]:
    node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand())
    server = ControlServer("127.0.0.1", 0, World([node], ManualClock()), {})
    await server.start()
    config = EmulatedActuatorConfig(name="board", node="jetson-1", port=server.port, min_w=5, max_w=20)
    yield Subject(lambda: EmulatedActuator(config), lambda: node.cap_w, server.stop, server.start)
    await server.stop()


@asynccontextmanager
async def rapl(folder: Path) -> AsyncIterator[Subject]:
    node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand(), NodeTraits(max_w=20.0))
    powercap = EmulatedPowercap(
        RaplConfig(name="rapl", node="jetson-1", root=str(folder), mmio=True), Tree(folder), node
    )
    powercap.begin()
    limit = folder / "class/powercap/intel-rapl:0/constraint_0_power_limit_uw"
    aside = limit.with_name("aside")

    async def take_away() -> None:
        limit.rename(aside)

    async def bring_back() -> None:
        aside.rename(limit)

    def limit_w() -> float:
        return int(limit.read_text()) / 1e6

    config = RaplActuatorConfig(name="board", min_w=5, max_w=20, sysfs_root=str(folder))
    yield Subject(lambda: RaplActuator(config), limit_w, take_away, bring_back, free_w=20.0)
    powercap.end()


@asynccontextmanager
async def cpufreq(folder: Path) -> AsyncIterator[Subject]:
    """A frequency of as many kHz as the node draws mW."""
    tree = Tree(folder)
    tree.begin()
    policy = "devices/system/cpu/cpufreq/policy0"
    for name, text in {"cpuinfo_min_freq": "5000", "cpuinfo_max_freq": "20000", "scaling_max_freq": "20000"}.items():
        tree.write(f"{policy}/{name}", text)
    highest = folder / policy / "scaling_max_freq"
    aside = highest.with_name("aside")

    async def take_away() -> None:
        highest.rename(aside)

    async def bring_back() -> None:
        aside.rename(highest)

    def limit_w() -> float:
        return int(highest.read_text()) / 1000

    config = CpufreqConfig(name="board", curve=((5, 5), (20, 20)), sysfs_root=str(folder))
    yield Subject(lambda: CpufreqActuator(config), limit_w, take_away, bring_back, free_w=20.0)
    tree.end()


ACTUATORS: dict[str, Callable[[Path], AbstractAsyncContextManager[Subject]]] = {
    "cpufreq": cpufreq,
    "emulated": emulated,
    "rapl": rapl,
}


@pytest.fixture(params=sorted(ACTUATORS))
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    async with ACTUATORS[request.param](tmp_path) as subject:
        yield subject


@pytest.fixture
async def actuator(subject: Subject) -> AsyncIterator[Actuator]:
    actuator = subject.make()
    yield actuator
    await actuator.close()


async def test_making_one_touches_nothing(subject: Subject):
    await subject.take_away()
    actuator = subject.make()
    assert actuator.name == "board"
    await actuator.close()
    await actuator.close()


async def test_opening_tells_the_bounds_and_changes_nothing(actuator: Actuator, subject: Subject):
    before = subject.limit_w()
    capabilities = await actuator.open()
    assert capabilities.min_w is not None
    assert capabilities.max_w is not None
    assert 0 <= capabilities.min_w < capabilities.max_w
    assert capabilities.step_w >= 0
    assert subject.limit_w() == before


async def test_what_is_applied_is_read_back_and_stands_in_the_device(actuator: Actuator, subject: Subject):
    capabilities = await actuator.open()
    assert capabilities.min_w is not None
    assert capabilities.max_w is not None
    for limit_w in (capabilities.min_w, (capabilities.min_w + capabilities.max_w) / 2, capabilities.max_w):
        await actuator.apply(Setting(limit_w=limit_w))
        read_back = await actuator.readback()
        assert read_back.limit_w == pytest.approx(limit_w, abs=capabilities.step_w)
        assert subject.limit_w() == pytest.approx(limit_w, abs=capabilities.step_w)


async def test_applying_nothing_lifts_the_limit(actuator: Actuator, subject: Subject):
    capabilities = await actuator.open()
    await actuator.apply(Setting(limit_w=capabilities.min_w))
    await actuator.apply(Setting())
    assert await actuator.readback() == Setting(limit_w=subject.free_w)
    assert subject.limit_w() == subject.free_w


async def test_applying_twice_is_applying_once(actuator: Actuator):
    capabilities = await actuator.open()
    for _ in range(2):
        await actuator.apply(Setting(limit_w=capabilities.min_w))
    assert (await actuator.readback()).limit_w == capabilities.min_w


@pytest.mark.parametrize("before_w", [None, "max"])
async def test_a_snapshot_is_restored_also_by_another_life(actuator: Actuator, subject: Subject, before_w: str | None):
    capabilities = await actuator.open()
    await actuator.apply(Setting(limit_w=capabilities.max_w if before_w else None))
    before = await actuator.readback()
    snapshot = await actuator.snapshot()
    assert isinstance(snapshot, str)
    await actuator.apply(Setting(limit_w=capabilities.min_w))
    await actuator.close()
    later = subject.make()
    await later.open()
    for _ in range(2):
        await later.restore(snapshot)
        assert await later.readback() == before
    await later.close()


async def test_restoring_works_without_opening(actuator: Actuator, subject: Subject):
    await actuator.open()
    snapshot = await actuator.snapshot()
    await actuator.apply(Setting(limit_w=10.0))
    later = subject.make()
    await later.restore(snapshot)
    assert subject.limit_w() == subject.free_w
    await later.close()


@pytest.mark.parametrize("text", ["", "{}", "null", '{"cap_w": "x"}', "rubbish"])
async def test_a_snapshot_that_is_none_changes_nothing(actuator: Actuator, text: str):
    capabilities = await actuator.open()
    await actuator.apply(Setting(limit_w=capabilities.min_w))
    with pytest.raises(DeviceError):
        await actuator.restore(text)
    assert (await actuator.readback()).limit_w == capabilities.min_w


@pytest.mark.parametrize("setting", [Setting(limit_w=-1.0), Setting(limit_w=float("nan")), Setting(profile="warp")])
async def test_what_lies_outside_the_capabilities_changes_nothing(actuator: Actuator, setting: Setting):
    capabilities = await actuator.open()
    await actuator.apply(Setting(limit_w=capabilities.min_w))
    with pytest.raises(DeviceError):
        await actuator.apply(setting)
    assert (await actuator.readback()).limit_w == capabilities.min_w


async def test_closing_leaves_the_setting(actuator: Actuator, subject: Subject):
    capabilities = await actuator.open()
    await actuator.apply(Setting(limit_w=capabilities.min_w))
    await actuator.close()
    await actuator.close()
    assert subject.limit_w() == capabilities.min_w


async def test_a_device_that_is_gone_is_unavailable_until_it_is_back(actuator: Actuator, subject: Subject):
    capabilities = await actuator.open()
    await subject.take_away()
    attempts = [
        actuator.open,
        actuator.readback,
        actuator.snapshot,
        lambda: actuator.apply(Setting(limit_w=capabilities.min_w)),
    ]
    for attempt in attempts:
        with pytest.raises(DeviceUnavailable):
            await attempt()
    await subject.bring_back()
    await actuator.apply(Setting(limit_w=capabilities.min_w))
    assert (await actuator.readback()).limit_w == capabilities.min_w
