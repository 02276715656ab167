import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.actuators.rapl import RaplActuator, RaplActuatorConfig
from agent.actuators.rapl.register import write_number
from hil.devices import Capabilities, DeviceFailed, DeviceUnavailable, Setting
from hil.emulated.load import ConstantLoad
from hil.emulated.node import EmulatedNode, NodeTraits
from hil.emulated.sysfs import EmulatedPowercap, RaplConfig, Tree


class Machine:
    """A node of 200 W and at most 400 W behind an emulated powercap tree, with each write to it noted."""

    def __init__(self, root: Path, **layout: Any) -> None:
        self.root = root
        self.node = EmulatedNode("server", ConstantLoad(power_w=200.0).demand(), NodeTraits(max_w=400.0))
        config = msgspec.convert({"name": "rapl", "node": "server", "root": str(root)} | layout, RaplConfig)
        self.powercap = EmulatedPowercap(config, Tree(root), self.node)
        self.powercap.begin()
        self.writes: list[tuple[str, int, int]] = []
        self.refusals: dict[str, int] = {}

    def actuator(self, **more: Any) -> RaplActuator:
        config = {"kind": "rapl", "name": "cpu", "min_w": 20, "sysfs_root": str(self.root)} | more
        return RaplActuator(msgspec.convert(config, RaplActuatorConfig), self.write)

    def write(self, path: Path, number: int) -> None:
        if path.parent.name in self.refusals:
            raise OSError(self.refusals[path.parent.name], os.strerror(self.refusals[path.parent.name]))
        write_number(path, number)
        self.writes.append((path.parent.name, *self.limits(path.parent.name)))

    def limits(self, zone: str = "intel-rapl:0") -> tuple[int, int]:
        """The long-term and short-term limit of a zone in W."""
        folder = self.root / "class/powercap" / zone
        texts = [(folder / f"constraint_{index}_power_limit_uw").read_text() for index in (0, 1)]
        return int(texts[0]) // 1_000_000, int(texts[1]) // 1_000_000


Make = Callable[..., Machine]


@pytest.fixture
def machine(tmp_path: Path) -> Make:
    return lambda **layout: Machine(tmp_path / "sys", **layout)


async def test_opening_tells_the_bounds_and_changes_nothing(machine: Make) -> None:
    server = machine(packages=2)
    assert await server.actuator().open() == Capabilities(20.0, 400.0, 0.25)
    assert server.limits("intel-rapl:0") == server.limits("intel-rapl:1") == (200, 250)
    assert await server.actuator(max_w=300).open() == Capabilities(20.0, 300.0, 0.25)


async def test_a_limit_is_shared_by_the_packages_and_caps_the_node(machine: Make) -> None:
    server = machine(packages=2)
    actuator = server.actuator()
    await actuator.open()
    await actuator.apply(Setting(limit_w=100.0))
    assert server.limits("intel-rapl:0") == server.limits("intel-rapl:1") == (50, 62)
    assert await actuator.readback() == Setting(limit_w=100.0)
    server.powercap.obey()
    assert server.node.power_w == 100.0


async def test_twin_registers_are_both_set_and_the_lower_is_in_force(machine: Make) -> None:
    server = machine(mmio=True)
    actuator = server.actuator()
    await actuator.open()
    await actuator.apply(Setting(limit_w=100.0))
    assert server.limits("intel-rapl:0") == server.limits("intel-rapl-mmio:0") == (100, 125)
    write_number(server.root / "class/powercap/intel-rapl-mmio:0/constraint_0_power_limit_uw", 6_000_000)
    assert await actuator.readback() == Setting(limit_w=6.0)


async def test_the_long_term_limit_is_never_the_higher_one(machine: Make) -> None:
    server = machine()
    actuator = server.actuator(burst=1)
    await actuator.open()
    server.writes.clear()
    for limit_w in (100.0, 30.0, 300.0, 400.0, 20.0):
        await actuator.apply(Setting(limit_w=limit_w))
    assert len(server.writes) == 10
    assert all(long <= short for _, long, short in server.writes)
    assert server.limits() == (20, 20)


async def test_the_short_term_limit_never_rises_above_the_owners(machine: Make) -> None:
    server = machine()
    actuator = server.actuator(burst=2)
    await actuator.open()
    await actuator.apply(Setting(limit_w=390.0))
    assert server.limits() == (390, 500)


async def test_enabled_is_never_written(machine: Make) -> None:
    server = machine(mmio=True, psys=True)
    actuator = server.actuator()
    await actuator.open()
    snapshot = await actuator.snapshot()
    await actuator.apply(Setting(limit_w=30.0))
    await actuator.restore(snapshot)
    assert {zone for zone, _, _ in server.writes} == {"intel-rapl:0", "intel-rapl-mmio:0"}
    assert server.limits() == (400, 500)


async def test_another_life_restores_what_the_owner_had(machine: Make) -> None:
    server = machine(packages=2, mmio=True)
    write_number(server.root / "class/powercap/intel-rapl:1/constraint_0_power_limit_uw", 150_000_000)
    first = server.actuator()
    await first.open()
    snapshot = await first.snapshot()
    await first.apply(Setting(limit_w=40.0))
    later = server.actuator()
    assert (await later.open()).max_w == 400.0  # what is set is no measure of what can be
    for _ in range(2):
        await later.restore(snapshot)
        assert server.limits("intel-rapl:0") == (200, 250)
        assert server.limits("intel-rapl:1") == (150, 250)
    await later.apply(Setting(limit_w=40.0))
    await later.apply(Setting())
    assert server.limits("intel-rapl:1") == (150, 250)


async def test_processors_that_take_no_limit_are_told(machine: Make) -> None:
    with pytest.raises(DeviceFailed, match="show their energy here and take no limit"):
        await machine(vendor="amd").actuator().open()


async def test_no_powercap_is_told(tmp_path: Path) -> None:
    actuator = RaplActuator(RaplActuatorConfig(name="cpu", min_w=20, sysfs_root=str(tmp_path)))
    with pytest.raises(DeviceFailed, match="no powercap here"):
        await actuator.open()


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (errno.ENODATA, "the limit cannot be set, probably locked by the firmware"),
        (errno.EACCES, r"permission denied, needs group wattloop-actuators \(see docs/how-to/limit-a-node.md\)"),
        (errno.EROFS, r"read-only file system, needs group wattloop-actuators"),
        (errno.EIO, "input/output error"),
    ],
)
async def test_registers_that_cannot_be_set_are_told_when_opening(machine: Make, refusal: int, said: str) -> None:
    server = machine()
    server.refusals["intel-rapl:0"] = refusal
    with pytest.raises(DeviceFailed, match=f"intel-rapl:0: {said}"):
        await server.actuator().open()


async def test_a_locked_register_beside_a_free_one_is_told_and_counts(machine: Make) -> None:
    server = machine(mmio=True)
    write_number(server.root / "class/powercap/intel-rapl:0/constraint_0_power_limit_uw", 120_000_000)
    server.refusals["intel-rapl:0"] = errno.ENODATA
    actuator = server.actuator()
    capabilities = await actuator.open()
    assert capabilities.max_w == 120.0
    assert "intel-rapl:0: the limit cannot be set" in capabilities.note
    await actuator.apply(Setting(limit_w=60.0))
    assert await actuator.readback() == Setting(limit_w=60.0)
    assert server.limits("intel-rapl:0") == (120, 500)
    assert server.limits("intel-rapl-mmio:0") == (60, 75)


async def test_a_zone_that_is_switched_off_is_left_so(machine: Make) -> None:
    server = machine()
    (server.root / "class/powercap/intel-rapl:0/enabled").write_text("0\n")
    with pytest.raises(DeviceFailed, match="intel-rapl:0: switched off"):
        await server.actuator().open()
    assert server.writes == []


async def test_one_that_is_locked_later_is_unavailable(machine: Make) -> None:
    server = machine()
    actuator = server.actuator()
    await actuator.open()
    server.refusals["intel-rapl:0"] = errno.ENODATA
    with pytest.raises(DeviceUnavailable, match="locked by the firmware"):
        await actuator.apply(Setting(limit_w=60.0))


async def test_garbage_is_unavailable(machine: Make) -> None:
    server = machine()
    actuator = server.actuator()
    await actuator.open()
    (server.root / "class/powercap/intel-rapl:0/constraint_0_power_limit_uw").write_text("-1\n")
    with pytest.raises(DeviceUnavailable, match="holds garbage"):
        await actuator.readback()


@pytest.mark.parametrize("setting", [Setting(limit_w=19.9), Setting(limit_w=float("nan")), Setting(profile="eco")])
async def test_what_lies_outside_changes_nothing(machine: Make, setting: Setting) -> None:
    server = machine()
    actuator = server.actuator()
    await actuator.open()
    server.writes.clear()
    with pytest.raises(DeviceFailed):
        await actuator.apply(setting)
    assert server.writes == []


async def test_bounds_that_do_not_meet_are_told(machine: Make) -> None:
    with pytest.raises(DeviceFailed, match="takes at most 400 W, which is less than min_w"):
        await machine().actuator(min_w=500).open()


async def test_a_snapshot_says_every_limit(machine: Make) -> None:
    actuator = machine(packages=1).actuator()
    await actuator.open()
    limits = {"intel-rapl:0": {"long_uw": 400_000_000, "short_uw": 500_000_000}}
    assert json.loads(await actuator.snapshot()) == {"limits": limits}
