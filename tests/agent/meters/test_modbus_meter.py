"""The meter on the emulated PDU, over TCP, and on a server that answers late."""

import asyncio
import logging
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent.meters.modbus import ModbusBuses, ModbusMeter, ModbusMeterConfig, plan_of
from hil.clock import Clock, ManualClock
from hil.devices import DeviceUnavailable, Quality, Reading
from hil.emulated.electrical import Quantity as Shown
from hil.emulated.load import ConstantLoad
from hil.emulated.modbustcp import ModbusTcpPort
from hil.emulated.modbusunit import Fault
from hil.emulated.node import EmulatedNode
from hil.emulated.pdu import EmulatedPdu
from hil.emulated.world import World
from hil.yamlfile import Document


def meter(port: int, buses: ModbusBuses, clock: Clock, **changes: object) -> ModbusMeter:
    place = {"host": "127.0.0.1", "port": port}
    whole = {"name": "outlet-1", "kind": "modbus", "profile": "wattloop-pdu", "outlet": 1, "timeout_s": 0.2}
    config = msgspec.convert(place | whole | changes, ModbusMeterConfig)
    document: Document[ModbusMeterConfig] = Document(Path("agent.yaml"))
    plan = plan_of(config, document, ())
    document.check()
    assert plan is not None
    return ModbusMeter(config, plan, buses, clock)


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand())
        self.other = EmulatedNode("jetson-2", ConstantLoad(power_w=4.0).demand())
        self.world = World([self.node, self.other], self.clock)
        self.pdu = EmulatedPdu("pdu-1", {1: self.node, 2: self.other})
        self.second = EmulatedPdu("pdu-2", {1: self.other})
        self.port = ModbusTcpPort("127.0.0.1", 0, {1: self.pdu, 2: self.second}, self.world.advance, self.clock)
        self.buses = ModbusBuses(self.clock)

    def meter(self, **changes: object) -> ModbusMeter:
        return meter(self.port.port, self.buses, self.clock, **changes)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.port.start()
    yield bench
    await bench.port.stop()


@pytest.fixture
async def outlet(bench: Bench) -> AsyncIterator[ModbusMeter]:
    one = bench.meter()
    await one.open()
    yield one
    await one.close()


async def test_power_and_energy_as_the_outlet_shows_them(outlet: ModbusMeter, bench: Bench):
    assert await outlet.read() == Reading(15.0, 0.0, Quality.GOOD)
    await bench.clock.advance(10.0)
    bench.world.advance()
    bench.node.cap_w = 7.5
    assert await outlet.read() == Reading(7.5, 150.0)


async def test_meters_of_one_port_read_their_own_outlets_and_units(bench: Bench):
    meters = [bench.meter(), bench.meter(outlet=2), bench.meter(unit=2)]
    for one in meters:
        await one.open()
    readings = await asyncio.gather(*(one.read() for one in meters))
    assert [reading.power_w for reading in readings] == [15.0, 4.0, 4.0]
    await meters[0].close()
    assert (await meters[1].read()).power_w == 4.0
    for one in meters:
        await one.close()


async def test_a_negative_offset_survives_as_read_and_good(outlet: ModbusMeter, bench: Bench):
    bench.node.cap_w = 0.0
    bench.pdu.override(1, Shown.POWER_W, -0.01)
    reading = await outlet.read()
    assert reading.power_w == pytest.approx(-0.01)
    assert reading.quality is Quality.GOOD


async def test_registers_are_believed_whatever_the_node_draws(outlet: ModbusMeter, bench: Bench):
    bench.pdu.override(1, Shown.POWER_W, 33.0)
    assert (await outlet.read()).power_w == 33.0


@pytest.mark.parametrize(
    ("fault", "condition"),
    [(Fault.NAN, "power_w is not a number"), (Fault.EXCEPTION, r"exception 4 \(device failure\)")],
)
async def test_a_faulty_unit_gives_no_reading_and_then_recovers(
    outlet: ModbusMeter, bench: Bench, fault: Fault, condition: str
):
    bench.pdu.fault = fault
    for _ in range(3):
        with pytest.raises(DeviceUnavailable, match=f"outlet-1: {condition}"):
            await outlet.read()
    bench.pdu.fault = None
    assert (await outlet.read()).power_w == 15.0


async def test_a_power_that_cannot_be_is_no_reading(outlet: ModbusMeter, bench: Bench):
    bench.pdu.override(1, Shown.POWER_W, -15.0)
    with pytest.raises(DeviceUnavailable, match="power_w is -15, possible are 0 to 100000"):
        await outlet.read()


async def test_garbage_never_raises_anything_but_unavailable(outlet: ModbusMeter, bench: Bench):
    bench.pdu.fault = Fault.GARBAGE
    refused = 0
    for _ in range(300):
        try:
            reading = await outlet.read()
        except DeviceUnavailable:
            refused += 1
        else:
            assert reading.power_w is not None
            assert -0.5 <= reading.power_w <= 100_000.5
    assert refused > 100


async def test_a_silent_unit_is_unavailable_costs_its_neighbour_little_and_comes_back(
    outlet: ModbusMeter, bench: Bench
):
    neighbour = bench.meter(name="neighbour", unit=2)
    await neighbour.open()
    bench.pdu.fault = Fault.SILENT
    for _ in range(10):  # of which only the first two cost their timeout
        with pytest.raises(DeviceUnavailable, match=r"outlet-1: no answer from unit 1 within 0\.2 s"):
            await outlet.read()
        assert (await neighbour.read()).power_w == 4.0
    bench.pdu.fault = None
    with pytest.raises(DeviceUnavailable, match="no answer"):
        await outlet.read()
    await bench.clock.advance(2.0)
    assert (await outlet.read()).power_w == 15.0
    await neighbour.close()


async def test_a_restarted_device_is_found_again(outlet: ModbusMeter, bench: Bench):
    await outlet.read()
    await bench.port.stop()
    with pytest.raises(DeviceUnavailable, match="outlet-1: "):
        await outlet.read()
    with pytest.raises(DeviceUnavailable, match="connection refused"):
        await outlet.read()
    await bench.port.start()  # at the same port
    await bench.clock.advance(60.0)
    assert (await outlet.read()).power_w == 15.0


async def test_a_counter_that_is_no_number_takes_nothing_from_the_power(bench: Bench, caplog: pytest.LogCaptureFixture):
    table = {
        "power_w": {"address": 1000, "type": "f32", "function": 4},
        "energy_j": {"address": 1002, "type": "f32", "function": 4},  # it shows the voltage; good enough for a counter
    }
    one = bench.meter(profile=None, outlet=None, registers=table)
    await one.open()
    caplog.set_level(logging.INFO)
    assert (await one.read()).energy_j == 230.0
    bench.pdu.override(1, Shown.VOLTAGE_V, -5.0)
    for _ in range(3):
        assert await one.read() == Reading(15.0, None)
    bench.pdu.override(1, Shown.VOLTAGE_V, None)
    assert (await one.read()).energy_j == 230.0
    assert [record.message for record in caplog.records if "outlet-1" in record.message] == [
        "meter outlet-1: energy_j is -5, possible are 0 to 1e+18; no energy meanwhile",
        "meter outlet-1: its energy counter is back",
    ]
    await one.close()


async def test_what_comes_too_late_is_never_taken_for_the_next_answer():
    requests = 0
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        late = b""
        try:
            while True:
                tid, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                await reader.readexactly(length - 1)
                requests += 1
                answer = struct.pack(">HHHBBBf", tid, 0, 7, unit, 3, 4, float(requests))
                # The first request of a connection is answered with the second one's transaction id.
                writer.write(late)
                late = struct.pack(">H", tid + 1) + answer[2:]
                if requests == 2:
                    writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            if requests == 2:
                ended.set()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    table = {"power_w": {"address": 0, "type": "f32"}}
    port = server.sockets[0].getsockname()[1]
    clock = ManualClock()
    one = meter(port, ModbusBuses(clock), clock, profile=None, outlet=None, registers=table, timeout_s=0.1)
    await one.open()
    with pytest.raises(DeviceUnavailable, match="no answer"):
        await one.read()
    assert (await one.read()).power_w == 2.0
    await one.close()
    await ended.wait()
    server.close()
