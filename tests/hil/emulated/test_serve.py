import asyncio
import struct
from pathlib import Path

import msgspec
import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer import FramerType

from hil.clock import ManualClock
from hil.emulated.client import ControlClient, ControlRefused
from hil.emulated.config import EmulationConfig
from hil.emulated.electrical import Quantity
from hil.emulated.journal import JournalError, read_journal
from hil.emulated.listen import ListenError
from hil.emulated.messages import Delay, Override, SetCap
from hil.emulated.serve import Emulation


def config(**changes: object) -> EmulationConfig:
    whole = {
        "nodes": [{"name": "a", "load": {"kind": "constant", "power_w": 15}, "lag_ms": 0}],
        "pdus": [{"name": "p", "outlets": {1: "a"}}, {"name": "q", "outlets": {1: "a"}}],
    }
    return msgspec.convert(whole | changes, EmulationConfig)


async def power_w(port: int, unit: int = 1) -> float:
    async with AsyncModbusTcpClient("127.0.0.1", port=port, timeout=5, retries=0) as client:
        answer = await client.read_input_registers(1000, count=2, device_id=unit)
        (value,) = struct.unpack(">f", struct.pack(">2H", *answer.registers))
        return float(value)


async def test_a_cap_through_the_control_socket_is_seen_through_every_pdu_and_in_the_journal(tmp_path: Path):
    emulation = Emulation(config(), ManualClock(), {"a": tmp_path / "a.csv"})
    ready = await emulation.start()
    stop = asyncio.Event()
    running = asyncio.create_task(emulation.run_until(stop))
    client = ControlClient("127.0.0.1", ready.control.port)
    assert ready.pdus["p"].port != ready.pdus["q"].port
    assert [await power_w(place.port) for place in ready.pdus.values()] == [15.0, 15.0]
    await client.request(SetCap(node="a", cap_w=7.5))
    assert [await power_w(place.port) for place in ready.pdus.values()] == [7.5, 7.5]
    stop.set()
    await running
    await emulation.stop()
    await emulation.stop()
    await client.close()
    assert read_journal(tmp_path / "a.csv")[-1].cap_w == 7.5


async def test_units_with_the_same_place_share_a_port():
    first = Emulation(config(), ManualClock(), {})
    port = (await first.start()).pdus["p"].port
    await first.stop()
    nodes = [
        {"name": "a", "load": {"kind": "constant", "power_w": 15}},
        {"name": "b", "load": {"kind": "constant", "power_w": 4}},
    ]
    pdus = [
        {"name": "p", "port": port, "unit": 1, "outlets": {1: "a"}},
        {"name": "q", "port": port, "unit": 2, "outlets": {1: "b"}},
    ]
    shared = Emulation(config(nodes=nodes, pdus=pdus), ManualClock(), {})
    await shared.start()
    assert [await power_w(port, unit) for unit in (1, 2)] == [15.0, 4.0]
    await shared.stop()


async def test_a_start_that_fails_leaves_nothing_listening(tmp_path: Path):
    blocker = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = blocker.sockets[0].getsockname()[1]
    emulation = Emulation(config(control={"port": port}), ManualClock(), {})
    with pytest.raises(ListenError, match="control"):
        await emulation.start()
    assert not any(listening._server for listening in emulation._ports.all())
    blocker.close()
    await blocker.wait_closed()


async def test_a_journal_that_cannot_be_kept_stops_the_start(tmp_path: Path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(JournalError):
        await Emulation(config(), ManualClock(), {"a": tmp_path / "a.csv"}).start()


async def test_every_view_of_a_node_shows_the_same_power(tmp_path: Path):
    profile = tmp_path / "p.yaml"
    profile.write_text("function: 3\nword_order: little\nregisters:\n  power_w: {address: 7, type: i32, scale: 0.1}\n")
    units = [
        {"name": "u", "profile": str(profile), "node": "a", "unit": 3},
        {"name": "v", "profile": str(profile), "node": "a", "unit": 4, "framing": "rtu"},
        {"name": "w", "profile": str(profile), "node": "a", "unit": 5, "serial": {"link": str(tmp_path / "tty")}},
    ]
    emulation = Emulation(config(units=units), ManualClock(), {})
    ready = await emulation.start()
    client = ControlClient("127.0.0.1", ready.control.port)
    await client.request(SetCap(node="a", cap_w=7.5))
    found = [await power_w(ready.pdus["p"].port)]
    for framer, place in ((FramerType.SOCKET, ready.units["u"]), (FramerType.RTU, ready.units["v"])):
        async with AsyncModbusTcpClient(place.host, port=place.port, framer=framer, timeout=5, retries=0) as modbus:
            low, high = (await modbus.read_holding_registers(7, count=2, device_id=place.unit or 0)).registers
        found.append(((high << 16) + low) / 10)
    assert found == [7.5, 7.5, 7.5]
    assert (ready.serial["w"].link, ready.serial["w"].unit) == (str(tmp_path / "tty"), 5)
    await client.close()
    await emulation.stop()
    assert not (tmp_path / "tty").is_symlink()


async def test_units_can_be_made_to_fail_through_the_control_socket(tmp_path: Path):
    profile = tmp_path / "p.yaml"
    profile.write_text("registers:\n  power_w: {address: 7, type: i16}\n")
    emulation = Emulation(config(units=[{"name": "u", "profile": str(profile), "node": "a"}]), ManualClock(), {})
    ready = await emulation.start()
    client = ControlClient("127.0.0.1", ready.control.port)
    await client.request(Override(pdu="u", outlet=1, quantity=Quantity.POWER_W, value=3.0))
    await client.request(Delay(pdu="u", delay_s=0.5))
    assert list(emulation.units["u"].words(3, 7, 1)) == [3]
    assert emulation.units["u"].delay_s == 0.5
    with pytest.raises(ControlRefused, match="does not show voltage_v"):
        await client.request(Override(pdu="u", outlet=1, quantity=Quantity.VOLTAGE_V, value=3.0))
    await client.close()
    await emulation.stop()
