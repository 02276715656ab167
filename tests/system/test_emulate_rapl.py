"""One emulated node, seen through its processors' counters, its outlet and its own journal by a process beside it."""

import asyncio
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymodbus.client import ModbusTcpClient

from agent.meters.rapl import RaplMeter, RaplMeterConfig
from hil.clock import SystemClock
from hil.emulated.journal import read_journal
from hil.emulated.ready import Ready, read_ready

pytestmark = pytest.mark.system

SCRIPT = Path(sys.executable).with_name("wattloop-hil")
WORLD = """\
nodes:
  - {name: server-1, load: {kind: constant, power_w: 250}, lag_ms: 10, max_w: 400, journal: server-1.csv}
pdus:
  - {name: pdu-1, outlets: {1: server-1}}
rapl:
  - {name: rapl-1, node: server-1, root: sys, packages: 2, dram_share: 0.2}
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Ready]:
    (tmp_path / "world.yaml").write_text(WORLD)
    process = subprocess.Popen([SCRIPT, "emulate", tmp_path / "world.yaml", "--ready-file", tmp_path / "ready.json"])
    try:
        deadline = time.monotonic() + 30
        while (ready := read_ready(tmp_path / "ready.json")) is None:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield ready
    finally:
        process.terminate()
        process.wait(10)
    assert list((tmp_path / "sys").iterdir()) == []


def outlet_w(ready: Ready) -> float:
    place = ready.pdus["pdu-1"]
    with ModbusTcpClient(place.host, port=place.port, timeout=10) as client:
        answer = client.read_input_registers(1000, count=2, device_id=1)
        (power_w,) = struct.unpack(">f", struct.pack(">2H", *answer.registers))
        return float(power_w)


async def test_all_views_of_a_node_agree(world: Ready) -> None:
    assert [*world.rapl] == ["rapl-1"]
    meter = RaplMeter(RaplMeterConfig(name="cpu"), Path(world.rapl["rapl-1"]), 1.0, SystemClock())
    await meter.open()
    await asyncio.sleep(1.0)
    reading = await meter.read()
    await meter.close()
    outlet = await asyncio.to_thread(outlet_w, world)
    journal = await asyncio.to_thread(read_journal, Path(world.journals["server-1"]))
    assert reading.power_w == pytest.approx(250.0, rel=0.05)  # the machine that runs this may be busy
    assert (outlet, journal[-1].power_w) == (pytest.approx(250.0), pytest.approx(250.0))
