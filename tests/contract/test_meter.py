"""What every meter promises, on every meter there is. A new one adds a factory to METERS."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from agent.meters.cpu import CpuMeter, CpuMeterConfig
from agent.meters.modbus import ModbusBuses, ModbusMeter, ModbusMeterConfig, plan_of
from agent.meters.modbus.endpoint import SerialConfig
from agent.meters.modbus.fixture import Fixture
from agent.meters.modbus.profile import FOLDER, load_profile
from agent.meters.rapl import RaplMeter, RaplMeterConfig
from agent.meters.replay import ReplayMeter, ReplayMeterConfig, load_trace
from hil.clock import ManualClock, SystemClock
from hil.devices import DeviceUnavailable, Meter, Quality
from hil.emulated.load import ConstantLoad
from hil.emulated.modbustcp import ModbusTcpPort
from hil.emulated.node import EmulatedNode
from hil.emulated.pdu import EmulatedPdu
from hil.emulated.serialline import LineSettings, SerialLine
from hil.emulated.sysfs import EmulatedPowercap, RaplConfig, Tree
from hil.emulated.world import World
from hil.yamlfile import Document


@dataclass
class Subject:
    """A meter, and the world around it; ``take_away`` is None where there is nothing that could go missing."""

    meter: Meter
    pass_time: Callable[[float], Awaitable[None]]
    take_away: Callable[[], Awaitable[None]] | None = None
    bring_back: Callable[[], Awaitable[None]] | None = None


@asynccontextmanager
async def modbus(folder: Path) -> AsyncIterator[Subject]:
    clock = ManualClock()
    node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand())
    world = World([node], clock)
    port = ModbusTcpPort("127.0.0.1", 0, {1: EmulatedPdu("pdu-1", {1: node})}, world.advance, clock)
    await port.start()
    config = ModbusMeterConfig(name="outlet-1", host=port.host, port=port.port, profile="wattloop-pdu", outlet=1)
    document: Document[ModbusMeterConfig] = Document(folder / "agent.yaml")
    plan = plan_of(config, document, ())
    assert plan is not None
    meter = ModbusMeter(config, plan, ModbusBuses(clock), clock)
    yield Subject(meter, clock.advance, port.stop, port.start)
    await port.stop()


@asynccontextmanager
async def modbus_rtu(folder: Path) -> AsyncIterator[Subject]:
    class HastyClock(ManualClock):
        """The silence between two frames on the line passes at once."""

        async def sleep_until(self, deadline: float) -> None:
            await self.advance(max(0.0, deadline - self.monotonic()))

    clock = HastyClock()
    node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand())
    world = World([node], clock)
    settings = LineSettings(115_200, turnaround_s=0.0)
    line = SerialLine(folder / "tty", settings, {1: EmulatedPdu("pdu-1", {1: node})}, world.advance, SystemClock())
    await line.start()
    serial = SerialConfig(port=str(line.link), baudrate=115_200)
    config = ModbusMeterConfig(name="outlet-1", serial=serial, profile="wattloop-pdu", outlet=1)
    document: Document[ModbusMeterConfig] = Document(folder / "agent.yaml")
    plan = plan_of(config, document, ())
    assert plan is not None
    yield Subject(ModbusMeter(config, plan, ModbusBuses(clock), clock), clock.advance, line.stop, line.start)
    await line.stop()


class SunSpecInverter:
    """A server with the words of the profile's fixture; it can be stopped, and started again where it was."""

    def __init__(self) -> None:
        (fixture,) = load_profile(FOLDER / "sunspec-inverter.yaml").fixtures
        self._words = [SimData(at, values=list(words), datatype=DataType.REGISTERS) for at, words in joined(fixture)]
        self._server: ModbusTcpServer | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = ModbusTcpServer([SimDevice(1, simdata=self._words)], address=("127.0.0.1", self.port))
        await self._server.serve_forever(background=True)
        self.port = self._server.transport.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.shutdown()
            self._server = None


def joined(fixture: Fixture) -> list[tuple[int, list[int]]]:
    """The words of a fixture in as few runs as there are: a request may reach from one entry into the next."""
    runs: list[tuple[int, list[int]]] = []
    for address, words in sorted(fixture.words.items()):
        if runs and runs[-1][0] + len(runs[-1][1]) == address:
            runs[-1][1].extend(words)
        else:
            runs.append((address, list(words)))
    return runs


@asynccontextmanager
async def modbus_sunspec(folder: Path) -> AsyncIterator[Subject]:
    clock, inverter = ManualClock(), SunSpecInverter()
    await inverter.start()
    config = ModbusMeterConfig(name="inverter", host="127.0.0.1", port=inverter.port, profile="sunspec-inverter")
    plan = plan_of(config, Document(folder / "agent.yaml"), ())
    assert plan is not None
    meter = ModbusMeter(config, plan, ModbusBuses(clock), clock)
    yield Subject(meter, clock.advance, inverter.stop, inverter.start)
    await inverter.stop()


@asynccontextmanager
async def cpu(folder: Path) -> AsyncIterator[Subject]:
    del folder
    clock = ManualClock()

    def times() -> SimpleNamespace:
        on = clock.monotonic()
        return SimpleNamespace(user=on, nice=0, system=on, irq=0, softirq=0, steal=0, idle=2 * on, iowait=0)

    yield Subject(CpuMeter(CpuMeterConfig(name="host", idle_w=10, max_w=60), clock, times), clock.advance)


@asynccontextmanager
async def replay(folder: Path) -> AsyncIterator[Subject]:
    clock = ManualClock()
    path = folder / "trace.csv"
    path.write_text("t_s,power_w\n0,15\n3,7.5\n6,20\n", encoding="utf-8")
    trace = load_trace(path, Document(folder / "agent.yaml"))
    yield Subject(ReplayMeter(ReplayMeterConfig(name="trace", file=str(path)), trace, clock), clock.advance)


@asynccontextmanager
async def rapl(folder: Path) -> AsyncIterator[Subject]:
    node = EmulatedNode("server-1", ConstantLoad(power_w=15.0).demand())
    tree = EmulatedPowercap(RaplConfig(name="rapl-1", node="server-1", root="sys"), Tree(folder / "sys"), node)

    class FilledClock(ManualClock):
        """Who sleeps lets time pass, and the counters with it: no one else does while a reading waits."""

        async def sleep_until(self, deadline: float) -> None:
            await pass_time(max(0.0, deadline - self.monotonic()))

    clock = FilledClock()
    world = World([node], clock)

    async def pass_time(seconds: float) -> None:
        await clock.advance(seconds)
        world.advance()
        tree.show()

    async def take_away() -> None:
        tree.end()

    async def bring_back() -> None:
        tree.begin()

    world.advance()
    tree.begin()
    meter = RaplMeter(RaplMeterConfig(name="cpu", max_w=100), folder / "sys", 1.0, clock)
    yield Subject(meter, pass_time, take_away, bring_back)
    tree.end()


METERS: dict[str, Callable[[Path], AbstractAsyncContextManager[Subject]]] = {
    "cpu": cpu,
    "modbus": modbus,
    "modbus-rtu": modbus_rtu,
    "modbus-sunspec": modbus_sunspec,
    "rapl": rapl,
    "replay": replay,
}


@pytest.fixture(params=sorted(METERS))
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    async with METERS[request.param](tmp_path) as subject:
        yield subject
        await subject.meter.close()


async def test_it_has_a_name_before_it_is_opened_and_closes_unopened(subject: Subject):
    assert subject.meter.name
    await subject.meter.close()
    await subject.meter.close()


async def test_readings_are_finite_or_say_why_not(subject: Subject):
    await subject.meter.open()
    for _ in range(10):
        await subject.pass_time(1.0)
        reading = await subject.meter.read()
        if reading.quality is Quality.MISSING:
            assert reading.power_w is None
        else:
            assert reading.power_w is not None
            assert math.isfinite(reading.power_w)
        if reading.quality is not Quality.GOOD:
            assert reading.note


async def test_a_counter_is_finite_and_never_falls(subject: Subject):
    await subject.meter.open()
    before_j = 0.0
    for _ in range(10):
        await subject.pass_time(1.0)
        energy_j = (await subject.meter.read()).energy_j
        if energy_j is not None:
            assert math.isfinite(energy_j)
            assert energy_j >= before_j
            before_j = energy_j


async def test_it_opens_again_after_closing(subject: Subject):
    for _ in range(2):
        await subject.meter.open()
        await subject.pass_time(1.0)
        assert (await subject.meter.read()).power_w is not None
        await subject.meter.close()


async def test_a_reading_given_up_does_not_spoil_the_next(subject: Subject):
    await subject.meter.open()
    await subject.pass_time(1.0)
    reading = asyncio.ensure_future(subject.meter.read())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await subject.pass_time(1.0)
    assert (await subject.meter.read()).power_w is not None


async def test_a_device_that_is_gone_gives_no_reading_until_it_is_back(subject: Subject):
    if subject.take_away is None or subject.bring_back is None:
        pytest.skip("nothing that could go missing")
    await subject.meter.open()
    await subject.meter.read()
    await subject.take_away()
    for _ in range(3):
        with pytest.raises(DeviceUnavailable):
            await subject.meter.read()
        await subject.pass_time(1.0)
    await subject.bring_back()
    await subject.pass_time(600.0)
    assert (await subject.meter.read()).power_w is not None


async def test_a_device_that_is_gone_at_the_start_is_no_reason_not_to_open(subject: Subject):
    if subject.take_away is None or subject.bring_back is None:
        pytest.skip("nothing that could go missing")
    await subject.take_away()
    await subject.meter.open()
    with pytest.raises(DeviceUnavailable):
        await subject.meter.read()
    await subject.bring_back()
    await subject.pass_time(600.0)
    assert (await subject.meter.read()).power_w is not None
