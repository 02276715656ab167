"""One emulated node, read by the agent's meters through everything that shows it: all must see the same."""

from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from agent.meters.modbus import ModbusBuses, ModbusMeter, ModbusMeterConfig, plan_of
from agent.meters.rapl import RaplMeter, RaplMeterConfig
from hil.clock import ManualClock, SystemClock
from hil.devices import Meter, Quality, Reading
from hil.emulated.client import ControlClient
from hil.emulated.config import EmulationConfig
from hil.emulated.messages import SetCap
from hil.emulated.ready import Ready
from hil.emulated.serve import Emulation
from hil.yamlfile import Document

PROFILES = Path(__file__).parents[2] / "agent" / "meters" / "profiles"
THREE_PHASES = """
profile: three-phases
vendor: v
model: m
status: guess
source: s
word_order: little
block: {gap: 10}
registers:
  power_w: {address: 0, type: i32, scale: 0.001}
  power_l1_w: {address: 2, type: i32, scale: 0.001}
  power_l2_w: {address: 4, type: i32, scale: 0.001}
  power_l3_w: {address: 6, type: i32, scale: 0.001}
  energy_j: {address: 8, type: u64, unit: mJ}
"""


class Views:
    """Every view of one node, and its meter."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        (folder / "three.yaml").write_text(THREE_PHASES)
        pdu = str(PROFILES / "wattloop-pdu.yaml")
        line = {"link": "tty", "baudrate": 115_200, "turnaround_ms": 0}
        world = {
            "nodes": [{"name": "n", "load": {"kind": "constant", "power_w": 200}, "idle_w": 20, "lag_ms": 0}],
            "pdus": [{"name": "pdu", "outlets": {1: "n"}}, {"name": "pdu-rtu", "outlets": {1: "n"}, "framing": "rtu"}],
            "units": [
                {"name": "three", "profile": "three.yaml", "node": "n"},
                {"name": "line", "profile": pdu, "outlets": {7: "n"}, "unit": 2, "serial": line},
            ],
            "rapl": [{"name": "rapl", "node": "n", "root": "sys", "packages": 2, "dram_share": 0.2}],
        }
        config = msgspec.convert(world, EmulationConfig)
        roots = {"rapl": folder / "sys"}
        self.emulation = Emulation(config, clock, {}, roots, lambda name: folder / name)
        self.node = self.emulation.world.nodes["n"]
        self.folder = folder
        self.clock = clock

    def meters(self, ready: Ready) -> dict[str, Meter]:
        pdu = {"profile": "wattloop-pdu", "outlet": 1}
        found: dict[str, Meter] = {name: self._modbus(name, pdu, ready) for name in ("pdu", "pdu-rtu")}
        found["three"] = self._modbus("three", {"profile": "three.yaml"}, ready)
        serial = {"port": ready.serial["line"].link, "baudrate": 115_200}
        found["line"] = self._meter(
            {"name": "line", "serial": serial, "unit": 2, "outlet": 7, "profile": "wattloop-pdu"}
        )
        found["rapl"] = RaplMeter(RaplMeterConfig(name="rapl"), self.folder / "sys", 1.0, self.clock)
        return found

    def _modbus(self, name: str, options: dict[str, object], ready: Ready) -> ModbusMeter:
        place = {**ready.pdus, **ready.units}[name]
        return self._meter({"name": name, "host": place.host, "port": place.port, "framing": place.framing} | options)

    def _meter(self, options: dict[str, object]) -> ModbusMeter:
        config = msgspec.convert({"kind": "modbus"} | options, ModbusMeterConfig)
        document: Document[ModbusMeterConfig] = Document(self.folder / "agent.yaml")
        plan = plan_of(config, document, ())
        document.check()
        assert plan is not None
        return ModbusMeter(config, plan, ModbusBuses(SystemClock()), self.clock)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        self.emulation.world.advance()
        for tree in self.emulation.rapl.values():
            tree.show()


class FilledClock(ManualClock):
    """Who sleeps lets time pass for the node as well: no one else does while a reading waits."""

    def __init__(self) -> None:
        super().__init__()
        self.views: Views | None = None

    async def sleep_until(self, deadline: float) -> None:
        if self.views is not None:
            await self.views.pass_time(max(0.0, deadline - self.monotonic()))


@pytest.fixture
def views(tmp_path: Path) -> Views:
    clock = FilledClock()
    clock.views = Views(tmp_path, clock)
    return clock.views


async def test_every_meter_reads_the_same_power_and_energy_of_the_node(views: Views):
    async with AsyncExitStack() as stack:
        ready = await views.emulation.start()
        stack.push_async_callback(views.emulation.stop)
        control = ControlClient(ready.control.host, ready.control.port)
        stack.push_async_callback(control.close)
        meters = views.meters(ready)
        for meter in meters.values():
            await meter.open()
            stack.push_async_callback(meter.close)
        before, drawn_j = await _read(views, meters), views.node.energy_j
        for cap_w, power_w in ((None, 200.0), (90.0, 90.0)):
            await control.request(SetCap(node="n", cap_w=cap_w))
            await _read(views, meters)
            readings = await _read(views, meters)
            assert {name: reading.quality for name, reading in readings.items()} == dict.fromkeys(meters, Quality.GOOD)
            powers = {name: reading.power_w for name, reading in readings.items()}
            assert powers == pytest.approx(dict.fromkeys(meters, power_w), rel=1e-3)
        gained = {
            name: (reading.energy_j or 0.0) - (before[name].energy_j or 0.0) for name, reading in readings.items()
        }
        drawn_j = views.node.energy_j - drawn_j
        assert gained == pytest.approx(dict.fromkeys(meters, drawn_j), rel=5e-3)  # a reading takes a millisecond or two


async def _read(views: Views, meters: dict[str, Meter]) -> dict[str, Reading]:
    """One reading of each, all of the same instant, a second after the last."""
    await views.pass_time(1.0)
    return {name: await meter.read() for name, meter in meters.items()}
