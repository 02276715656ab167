import asyncio
import struct
from pathlib import Path

import msgspec
import pytest
from pymodbus.client import AsyncModbusTcpClient

from hil.clock import ManualClock
from hil.emulated.client import ControlClient
from hil.emulated.config import EmulationConfig
from hil.emulated.journal import JournalError, read_journal
from hil.emulated.listen import ListenError
from hil.emulated.messages import SetCap
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
    assert not any(emulation_port._server for emulation_port in emulation._ports.values())
    blocker.close()
    await blocker.wait_closed()


async def test_a_journal_that_cannot_be_kept_stops_the_start(tmp_path: Path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(JournalError):
        await Emulation(config(), ManualClock(), {"a": tmp_path / "a.csv"}).start()
