"""Every shipped profile: an emulated device shows a node through it, and a meter reads the node back."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import yaml

from agent.meters.modbus import ModbusBuses, ModbusMeter, ModbusMeterConfig, plan_of
from hil.clock import ManualClock
from hil.devices import DeviceUnavailable, Quality
from hil.emulated.load import ConstantLoad
from hil.emulated.modbustcp import ModbusTcpPort
from hil.emulated.modbusunit import Fault
from hil.emulated.node import EmulatedNode
from hil.emulated.profileunit import ProfileUnit
from hil.emulated.registermap import load_map
from hil.emulated.world import World
from hil.yamlfile import Document

PROFILES = Path(__file__).parents[2] / "agent" / "meters" / "profiles"
SHOWABLE = [path for path in sorted(PROFILES.glob("*.yaml")) if "registers" in yaml.safe_load(path.read_text())]


class HastyClock(ManualClock):
    """The silence that some devices need passes at once."""

    async def sleep_until(self, deadline: float) -> None:
        await self.advance(max(0.0, deadline - self.monotonic()))


class Bench:
    def __init__(self, path: Path, power_w: float) -> None:
        self.clock = HastyClock()
        self.node = EmulatedNode("n", ConstantLoad(power_w=power_w).demand())
        self.node.advance(1000.0)
        self.world = World([self.node], self.clock)
        registers = load_map(path)
        self.outlet = registers.outlet_count
        self.unit = ProfileUnit("u", {self.outlet: self.node}, registers)
        self.port = ModbusTcpPort("127.0.0.1", 0, {1: self.unit}, self.world.advance, self.clock)

    def meter(self, path: Path) -> ModbusMeter:
        options = {"name": "m", "kind": "modbus", "host": "127.0.0.1", "port": self.port.port, "profile": str(path)}
        if "outlets" in yaml.safe_load(path.read_text()):
            options["outlet"] = self.outlet
        config = msgspec.convert(options, ModbusMeterConfig)
        document: Document[ModbusMeterConfig] = Document(Path("agent.yaml"))
        plan = plan_of(config, document, ())
        document.check()
        assert plan is not None
        return ModbusMeter(config, plan, ModbusBuses(self.clock), self.clock)


@asynccontextmanager
async def reading(path: Path, power_w: float) -> AsyncIterator[tuple[Bench, ModbusMeter]]:
    bench = Bench(path, power_w)
    await bench.port.start()
    one = bench.meter(path)
    await one.open()
    try:
        yield bench, one
    finally:
        await one.close()
        await bench.port.stop()


@pytest.mark.parametrize("power_w", [0.0, 60.0, 1500.0])
@pytest.mark.parametrize("path", SHOWABLE, ids=lambda path: path.stem)
async def test_what_a_device_shows_is_read_back_and_believed(path: Path, power_w: float):
    async with reading(path, power_w) as (bench, one):
        for _ in range(11):
            await bench.clock.advance(1.0)
            found = await one.read()
            assert (found.quality, found.note) == (Quality.GOOD, "")
            assert found.power_w == pytest.approx(power_w, abs=max(1.0, 0.001 * power_w))


@pytest.mark.parametrize("path", SHOWABLE, ids=lambda path: path.stem)
async def test_garbage_in_its_registers_is_never_read_as_an_absurd_power(path: Path):
    async with reading(path, 60.0) as (bench, one):
        await one.read()
        bench.unit.fault = Fault.GARBAGE
        for _ in range(10):
            await bench.clock.advance(1.0)
            try:
                found = await one.read()
            except DeviceUnavailable:
                continue
            assert found.power_w is not None
            assert math.isfinite(found.power_w)
