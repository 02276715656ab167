"""The line, read by pymodbus's own serial client."""

import os
import termios
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pymodbus.client import AsyncModbusSerialClient
from pymodbus.exceptions import ModbusIOException
from pymodbus.framer.rtu import FramerRTU

from hil.clock import SystemClock
from hil.emulated.listen import ListenError
from hil.emulated.load import ConstantLoad
from hil.emulated.modbusunit import Fault
from hil.emulated.node import EmulatedNode
from hil.emulated.pdu import EmulatedPdu
from hil.emulated.serialline import LineSettings, SerialLine


class Bench:
    def __init__(self, link: Path, settings: LineSettings) -> None:
        node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand())
        self.units = {1: EmulatedPdu("pdu-1", {1: node}), 7: EmulatedPdu("pdu-7", {1: node})}
        self.line = SerialLine(link, settings, self.units, lambda: None, SystemClock())


@pytest.fixture
def settings() -> LineSettings:
    return LineSettings(baudrate=115_200, turnaround_s=0.0)


@pytest.fixture
async def bench(tmp_path: Path, settings: LineSettings) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "run" / "tty", settings)
    await bench.line.start()
    yield bench
    await bench.line.stop()


@contextmanager
def client(bench: Bench, **changes: object) -> Iterator[AsyncModbusSerialClient]:
    options = {"baudrate": 115_200, "timeout": 0.3, "retries": 0} | changes
    client = AsyncModbusSerialClient(str(bench.line.link), **options)
    try:
        yield client
    finally:
        client.close()


async def power_words(bench: Bench, unit: int = 1, **changes: object) -> list[int]:
    with client(bench, **changes) as one:
        assert await one.connect()
        return (await one.read_input_registers(1000, count=2, device_id=unit)).registers


async def test_units_answer_as_they_do_elsewhere(bench: Bench):
    assert await power_words(bench) == [0x4170, 0]  # 15.0
    assert await power_words(bench, 7) == [0x4170, 0]


async def test_a_second_master_comes_after_the_first_has_gone(bench: Bench):
    for _ in range(3):
        assert await power_words(bench) == [0x4170, 0]


async def test_exceptions(bench: Bench):
    with client(bench) as one:
        await one.connect()
        codes = [
            (await one.read_input_registers(5000, count=2, device_id=1)).exception_code,
            (await one.read_holding_registers(1000, count=2, device_id=1)).exception_code,
            (await one.write_register(1000, 1, device_id=1)).exception_code,
        ]
    assert codes == [2, 1, 1]


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.DAMAGED])
async def test_a_faulty_unit_is_not_understood_and_its_neighbour_is(bench: Bench, fault: Fault):
    bench.units[1].fault = fault
    with pytest.raises(ModbusIOException):
        await power_words(bench)
    assert await power_words(bench, 7) == [0x4170, 0]


async def test_a_unit_that_is_not_there_is_silent(bench: Bench):
    with pytest.raises(ModbusIOException, match="No response"):
        await power_words(bench, 3)


async def test_a_master_with_another_speed_is_not_understood(bench: Bench):
    with pytest.raises(ModbusIOException, match="No response"):
        await power_words(bench, baudrate=9600)
    assert await power_words(bench) == [0x4170, 0]


@pytest.mark.parametrize("settings", [LineSettings(baudrate=9600, stopbits=2, turnaround_s=0.02)], ids=str)
async def test_bytes_take_their_time(bench: Bench):
    began = time.monotonic()
    with client(bench, baudrate=9600, stopbits=2, timeout=2) as one:
        await one.connect()
        words = (await one.read_input_registers(1000, count=16, device_id=1)).registers
    assert len(words) == 16
    assert time.monotonic() - began >= 0.02 + (8 + 37) * 11 / 9600


@pytest.mark.parametrize("settings", [LineSettings(baudrate=115_200, turnaround_s=0.0, echo=True)], ids=str)
async def test_an_adapter_may_hear_itself(bench: Bench):
    terminal = os.open(bench.line.link, os.O_RDWR | os.O_NOCTTY)
    flags = termios.tcgetattr(terminal)
    flags[4] = flags[5] = termios.B115200
    termios.tcsetattr(terminal, termios.TCSANOW, flags)
    asked = bytes.fromhex("01 04 03 e8 00 02")
    asked += FramerRTU.compute_CRC(asked).to_bytes(2, "big")
    os.write(terminal, asked)
    os.set_blocking(terminal, False)
    heard = b""
    began = time.monotonic()
    while len(heard) < 17 and time.monotonic() - began < 5:
        await SystemClock().sleep_until(time.monotonic() + 0.001)
        try:
            heard += os.read(terminal, 100)
        except BlockingIOError:
            continue
    os.close(terminal)
    assert heard[:11] == asked + b"\x01\x04\x04"


async def test_a_request_in_pieces_and_noise_before_one_are_as_on_a_real_line(bench: Bench):
    terminal = os.open(bench.line.link, os.O_RDWR | os.O_NOCTTY)
    flags = termios.tcgetattr(terminal)
    flags[4] = flags[5] = termios.B115200
    termios.tcsetattr(terminal, termios.TCSANOW, flags)
    os.set_blocking(terminal, False)
    os.write(terminal, b"\x00\x01\x04")  # a frame that is none
    await SystemClock().sleep_until(time.monotonic() + 0.05)
    with pytest.raises(BlockingIOError):
        os.read(terminal, 100)
    os.close(terminal)
    assert await power_words(bench) == [0x4170, 0]


async def test_the_link_comes_and_goes_with_the_line(bench: Bench):
    assert bench.line.link.is_symlink()
    await bench.line.stop()
    await bench.line.stop()
    assert not bench.line.link.is_symlink()


async def test_a_link_left_by_an_emulation_that_was_killed_is_taken_over(tmp_path: Path, settings: LineSettings):
    link = tmp_path / "tty"
    link.symlink_to("/dev/pts/no-such-terminal")
    bench = Bench(link, settings)
    await bench.line.start()
    assert await power_words(bench) == [0x4170, 0]
    await bench.line.stop()


async def test_a_file_in_the_place_of_the_link_is_left_alone(tmp_path: Path, settings: LineSettings):
    link = tmp_path / "tty"
    link.write_text("mine")
    with pytest.raises(ListenError, match=r"pdu-1, pdu-7: cannot link .*/tty to a terminal: file exists"):
        await Bench(link, settings).line.start()
    assert link.read_text() == "mine"
