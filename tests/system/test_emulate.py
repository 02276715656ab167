"""``wattloop-hil emulate`` as a process."""

import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pymodbus.client import ModbusSerialClient, ModbusTcpClient

from hil.emulated.journal import energy_between_j, read_journal
from hil.emulated.ready import Ready, read_ready

pytestmark = pytest.mark.system

SCRIPT = Path(sys.executable).with_name("wattloop-hil")
PROFILE = """\
registers:
  power_w: {address: 7, type: i32, scale: 0.01}
  voltage_v: {address: 9, type: u16, scale: 0.1}
"""
WORLD = """\
nodes:
  - {name: jetson-1, load: {kind: constant, power_w: 15}, lag_ms: 10, noise_w: 0.1, journal: jetson-1.csv}
pdus:
  - {name: pdu-1, outlets: {1: jetson-1}}
"""


def emulate(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [SCRIPT, "emulate", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def running(folder: Path, *arguments: str | Path, world: str = WORLD) -> Iterator[tuple[subprocess.Popen[str], Ready]]:
    (folder / "world.yaml").write_text(world)
    path = folder / "ready.json"
    process = emulate(folder / "world.yaml", "--ready-file", path, *arguments)
    try:
        deadline = time.monotonic() + 30
        while (ready := read_ready(path)) is None:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process, ready
    finally:
        process.kill()
        process.communicate()


def say(ready: Ready, **request: object) -> dict[str, object]:
    with socket.create_connection((ready.control.host, ready.control.port), timeout=10) as connection:
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, object] = json.loads(connection.makefile().readline())
        return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_everything_is_and_ends_at_once(tmp_path: Path, number: signal.Signals):
    with running(tmp_path) as (process, ready):
        assert ready.pid == process.pid
        began = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
        assert time.monotonic() - began < 2.0
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == [
        f"pdu pdu-1: modbus tcp 127.0.0.1:{ready.pdus['pdu-1'].port} unit 1",
        f"control: 127.0.0.1:{ready.control.port}",
        f"journal of jetson-1: {tmp_path / 'jetson-1.csv'}",
    ]


def test_a_cap_is_seen_in_the_registers_and_the_journal_agrees_with_the_counter(tmp_path: Path):
    with running(tmp_path, "--journal-dir", tmp_path / "journals") as (process, ready):
        place = ready.pdus["pdu-1"]
        with ModbusTcpClient(place.host, port=place.port, timeout=10) as client:

            def outlet() -> tuple[float, float, int]:
                first_us = time.time_ns() // 1000
                words = client.read_input_registers(1000, count=16, device_id=1).registers
                stamp_us = (first_us + time.time_ns() // 1000) // 2
                fields = struct.unpack(">ffffffQ", struct.pack(">16H", *words))
                return fields[0], fields[6] / 1000, stamp_us

            power_w, start_j, start_us = outlet()
            assert power_w == pytest.approx(15.0, abs=0.31)
            say(ready, op="set_cap", node="jetson-1", cap_w=7.5)
            deadline = time.monotonic() + 10
            while outlet()[0] > 7.9:
                assert time.monotonic() < deadline
            time.sleep(0.5)  # energy to compare
            _, end_j, end_us = outlet()
        process.terminate()
        process.communicate(timeout=10)
    rows = read_journal(tmp_path / "journals" / "jetson-1.csv")
    assert energy_between_j(rows, start_us, end_us) == pytest.approx(end_j - start_j, rel=0.02)
    assert not (tmp_path / "jetson-1.csv").exists()


def test_a_port_in_use_is_one_plain_line(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as blocker:
        port = blocker.getsockname()[1]
        (tmp_path / "w.yaml").write_text(f"{WORLD}control: {{port: {port}}}\n")
        process = emulate(tmp_path / "w.yaml")
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err == f"wattloop-hil: control: cannot listen on 127.0.0.1:{port}: address already in use\n"


def test_a_bad_file_is_a_line_a_fault(tmp_path: Path):
    path = tmp_path / "w.yaml"
    path.write_text("nodes: [{name: A, load: {kind: constant}}]\n")
    process = emulate(path)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert [line.removeprefix(f"{path}:1: nodes[0].").split(":")[0] for line in err.splitlines()] == [
        "name",
        "load.power_w",
    ]


def test_a_file_that_is_not_there_is_one_plain_line(tmp_path: Path):
    process = emulate(tmp_path / "none.yaml")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err == f"{tmp_path / 'none.yaml'}: file: unreadable: No such file or directory\n"


def test_a_ready_file_that_cannot_be_written_is_one_plain_line(tmp_path: Path):
    (tmp_path / "w.yaml").write_text(WORLD)
    process = emulate(tmp_path / "w.yaml", "--ready-file", tmp_path / "no" / "ready.json")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == f"wattloop-hil: {tmp_path / 'no' / 'ready.json'}: no such file or directory\n"


def test_a_device_on_a_serial_line_is_read_by_a_master_of_another_make(tmp_path: Path):
    (tmp_path / "device.yaml").write_text(PROFILE)
    serial = "{link: run/tty, baudrate: 19200}"
    units = f"units:\n  - {{name: meter, profile: device.yaml, node: jetson-1, unit: 5, serial: {serial}}}\n"
    with running(tmp_path, world=WORLD + units) as (process, ready):
        place = ready.serial["meter"]
        with ModbusSerialClient(place.link, baudrate=19200, timeout=5, retries=0) as client:
            high, low, tenths = client.read_holding_registers(7, count=3, device_id=place.unit).registers
        process.terminate()
        out, _ = process.communicate(timeout=10)
    assert ((high << 16) + low) / 100 == pytest.approx(15.0, abs=0.31)
    assert tenths == 2300
    assert f"unit meter: modbus rtu {tmp_path / 'run' / 'tty'} unit 5\n" in out
    assert not (tmp_path / "run" / "tty").is_symlink()
