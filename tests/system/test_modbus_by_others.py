"""Both ends of the wire against programs that we did not write: mbpoll reads what we emulate, we read libmodbus.

The addresses are typed by hand, from the vendors' documents and from the emulator's: no table of the project is used.
"""

import asyncio
import ctypes.util
import os
import pty
import re
import shutil
import subprocess
import sys
import time
import tty
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import yaml

from agent.meters.modbus import ModbusBuses, ModbusMeter, ModbusMeterConfig, plan_of
from agent.meters.modbus.endpoint import SerialConfig
from agent.meters.modbus.profile import FOLDER
from hil.broker import free_port
from hil.clock import SystemClock
from hil.devices import Quality, Reading
from hil.emulated.ready import Ready, read_ready
from hil.yamlfile import Document

pytestmark = pytest.mark.system

SCRIPTS = Path(sys.executable).parent
SERVER = Path(__file__).with_name("libmodbus_server.py")
WORLD = {
    "nodes": [{"name": "jetson-1", "load": {"kind": "constant", "power_w": 1500}, "max_w": 2000, "lag_ms": 1}],
    "pdus": [{"name": "pdu-1", "port": 0, "unit": 1, "outlets": {2: "jetson-1"}}],
    "units": [
        {"name": "sdm", "profile": f"{FOLDER}/eastron-sdm630.yaml", "node": "jetson-1", "unit": 5, "port": 0},
        {"name": "em24", "profile": f"{FOLDER}/carlo-gavazzi-em24.yaml", "node": "jetson-1", "unit": 7, "port": 0},
        {
            "name": "line",
            "profile": f"{FOLDER}/eastron-sdm630.yaml",
            "node": "jetson-1",
            "unit": 3,
            "serial": {"link": "tty", "baudrate": 9600},
        },
    ],
}


def missing(what: str) -> None:
    """Skip; in CI fail, for there it must not go missing unseen."""
    refuse = pytest.fail if os.environ.get("CI") else pytest.skip
    refuse(f"{what} is not installed")


@pytest.fixture(scope="module")
def mbpoll() -> str:
    path = shutil.which("mbpoll")
    if path is None:
        missing("mbpoll")
    assert path is not None
    return path


@pytest.fixture(scope="module")
def libmodbus() -> None:
    if ctypes.util.find_library("modbus") is None:
        missing("libmodbus")


# mbpoll reads us


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ready, Path]]:
    folder = tmp_path_factory.mktemp("a world")
    (folder / "world.yaml").write_text(yaml.safe_dump(WORLD))
    command = [SCRIPTS / "wattloop-hil", "emulate", folder / "world.yaml", "--ready-file", folder / "ready.json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while (ready := read_ready(folder / "ready.json")) is None:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield ready, folder
        process.kill()


def polled(mbpoll: str, *arguments: str | int) -> dict[int, float]:
    """The values that mbpoll prints, by the addresses that it prints."""
    command = [mbpoll, "-0", "-1", "-o", "5", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return {int(at): float(value) for at, value in re.findall(r"^\[(\d+)\]:\s+(\S+)", done.stdout, re.MULTILINE)}


def test_mbpoll_sees_the_emulated_pdu_s_outlet(mbpoll: str, emulated: tuple[Ready, Path]):
    place = emulated[0].pdus["pdu-1"]
    shown = polled(
        mbpoll, "-m", "tcp", "-p", place.port, "-a", 1, "-t", "3:float", "-B", "-r", 1020, "-c", 6, place.host
    )
    assert shown == {
        1020: pytest.approx(1500, rel=1e-3),
        1022: pytest.approx(230, rel=1e-3),
        1024: pytest.approx(1500 / 230 / 0.98, rel=1e-3),
        1026: pytest.approx(50, rel=1e-3),
        1028: pytest.approx(0.98, rel=1e-3),
        1030: pytest.approx(1500 / 0.98, rel=1e-3),
    }


def test_mbpoll_is_refused_where_the_pdu_has_nothing(mbpoll: str, emulated: tuple[Ready, Path]):
    place = emulated[0].pdus["pdu-1"]
    command = [mbpoll, "-0", "-1", "-m", "tcp", "-p", str(place.port), "-a", "1", "-t", "3", "-r", "500", place.host]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Illegal data address" in done.stdout + done.stderr


def test_mbpoll_sees_an_emulated_sdm630(mbpoll: str, emulated: tuple[Ready, Path]):
    place = emulated[0].units["sdm"]
    where = ("-m", "tcp", "-p", place.port, "-a", 5, "-t", "3:float", "-B", place.host)
    # Eastron SDM630-Modbus protocol V1.8: 30001 phase 1 volts, 30053 total system power, 30071 frequency
    assert polled(mbpoll, "-r", 0x00, *where) == {0x00: pytest.approx(230, rel=0.01)}
    assert polled(mbpoll, "-r", 0x34, *where) == {0x34: pytest.approx(1500, rel=1e-3)}
    assert polled(mbpoll, "-r", 0x46, *where) == {0x46: pytest.approx(50, rel=1e-3)}


def test_mbpoll_sees_an_emulated_em24_with_its_low_word_first(mbpoll: str, emulated: tuple[Ready, Path]):
    place = emulated[0].units["em24"]
    shown = polled(mbpoll, "-m", "tcp", "-p", place.port, "-a", 7, "-t", "3:int", "-r", 0x28, place.host)
    assert shown == {0x28: pytest.approx(15_000, rel=1e-3)}  # tenths of a watt


def test_mbpoll_sees_a_meter_on_an_emulated_serial_line(mbpoll: str, emulated: tuple[Ready, Path]):
    line = emulated[1] / "tty"
    settings = ("-m", "rtu", "-b", 9600, "-P", "none", "-a", 3, "-t", "3:float", "-B")
    assert polled(mbpoll, *settings, "-r", 0x34, line) == {0x34: pytest.approx(1500, rel=1e-3)}


# We read libmodbus

SDM630 = {0x00: 230.5, 0x02: 231.5, 0x04: 229.5, 0x06: 2.0, 0x08: 3.0, 0x0A: 1.5}
SDM630 |= {0x0C: 461.0, 0x0E: 694.5, 0x10: 344.25, 0x34: 1499.75, 0x38: 1499.75, 0x3E: 1.0, 0x46: 50.0, 0x48: 1234.5}


@contextmanager
def serving(*arguments: str | int) -> Iterator[None]:
    values = [f"{address}={value}" for address, value in SDM630.items()]
    command = [sys.executable, SERVER, *map(str, arguments), *values]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.kill()


async def readings(config: ModbusMeterConfig) -> Sequence[Reading]:
    document: Document[ModbusMeterConfig] = Document(Path("agent.yaml"))
    plan = plan_of(config, document, ())
    document.check()
    assert plan is not None
    clock = SystemClock()
    meter = ModbusMeter(config, plan, ModbusBuses(clock), clock)
    await meter.open()
    try:
        return [await meter.read() for _ in range(3)]
    finally:
        await meter.close()


SHOWN = Reading(1499.75, pytest.approx(1234.5 * 3.6e6), Quality.GOOD)


@pytest.mark.usefixtures("libmodbus")
async def test_a_meter_reads_a_libmodbus_server():
    port = free_port()
    with serving("tcp", port, 1):
        config = ModbusMeterConfig(name="m", host="127.0.0.1", port=port, profile="eastron-sdm630")
        assert await readings(config) == [SHOWN] * 3


@asynccontextmanager
async def cable() -> AsyncIterator[tuple[str, str]]:
    """Two serial ports that are wired to each other."""
    ends = [pty.openpty() for _ in range(2)]
    loop = asyncio.get_running_loop()
    for (master, slave), (other, _) in zip(ends, reversed(ends), strict=True):
        tty.setraw(slave)
        loop.add_reader(master, lambda source=master, sink=other: os.write(sink, os.read(source, 512)))
    try:
        yield os.ttyname(ends[0][1]), os.ttyname(ends[1][1])
    finally:
        for master, slave in ends:
            loop.remove_reader(master)
            os.close(master)
            os.close(slave)


@pytest.mark.usefixtures("libmodbus")
async def test_a_meter_reads_a_libmodbus_server_on_a_serial_line():
    async with cable() as (ours, theirs):
        with serving("rtu", theirs, 9):
            serial = SerialConfig(port=ours, baudrate=19200)
            config = ModbusMeterConfig(name="m", serial=serial, unit=9, profile="eastron-sdm630")
            assert await readings(config) == [SHOWN] * 3


@pytest.mark.usefixtures("libmodbus")
def test_a_scan_finds_a_libmodbus_server():
    port = free_port()
    with serving("tcp", port, 1):
        command = [SCRIPTS / "wattloop-agent", "scan", f"127.0.0.1:{port}", "--units", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "profile: eastron-sdm630" in done.stdout
    assert "now 1500 W, 230.5 V, 231.5 V, 229.5 V, 50.00 Hz, 1234.50 kWh" in done.stdout
