"""RTU over a pseudo-terminal and behind a converter; what comes back is written here byte by byte, or emulated."""

import asyncio
import fcntl
import os
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.bus import ModbusBus
from agent.meters.modbus.connection import connect
from agent.meters.modbus.endpoint import SerialEndpoint, TcpEndpoint
from agent.meters.modbus.errors import BusError, Refused, Silent
from agent.meters.modbus.frames import checksum, request
from hil.clock import SystemClock
from hil.emulated.load import ConstantLoad
from hil.emulated.modbustcp import ModbusTcpPort
from hil.emulated.modbusunit import Fault
from hil.emulated.node import EmulatedNode
from hil.emulated.pdu import EmulatedPdu
from hil.emulated.serialline import LineSettings, SerialLine

POWER = Block(4, 1000, 2)
VOLTAGE = Block(4, 1002, 2)
FIFTEEN = (0x4170, 0)  # 15.0 W
MAINS = (0x4366, 0)  # 230.0 V


class Bench:
    """A line of emulated units, and a bus to it."""

    def __init__(self, link: Path, settings: LineSettings, baudrate: int) -> None:
        node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand())
        self.units = {number: EmulatedPdu(f"pdu-{number}", {1: node}) for number in (1, 2)}
        self.line = SerialLine(link, settings, self.units, lambda: None, SystemClock())
        self.bus = ModbusBus(SerialEndpoint(str(link), baudrate, "N", 1), SystemClock(), connect)

    async def read(self, unit: int, block: Block = POWER, timeout_s: float = 0.3) -> tuple[int, ...]:
        return tuple(await self.bus.read(unit, block, timeout_s=timeout_s))


@asynccontextmanager
async def bench_on(link: Path, settings: LineSettings, baudrate: int = 115_200) -> AsyncIterator[Bench]:
    bench = Bench(link, settings, baudrate)
    await bench.line.start()
    try:
        yield bench
    finally:
        bench.bus.close()
        await bench.line.stop()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_on(tmp_path / "tty", LineSettings(115_200, turnaround_s=0.0)) as bench:
        yield bench


async def test_units_of_one_line_take_turns(bench: Bench):
    answers = await asyncio.gather(*(bench.read(unit, block) for unit in (1, 2) for block in (POWER, VOLTAGE)))
    assert answers == [FIFTEEN, MAINS, FIFTEEN, MAINS]


async def test_an_exception_is_named(bench: Bench):
    with pytest.raises(Refused, match="illegal address"):
        await bench.read(1, Block(4, 5000, 2))


async def test_a_damaged_answer_is_told_at_once_and_does_no_harm(bench: Bench):
    bench.units[1].fault = Fault.DAMAGED
    for _ in range(5):  # no back-off: the unit is there
        with pytest.raises(BusError, match=r"damaged answer \(CRC error\)"):
            await bench.read(1, timeout_s=5.0)
        assert await bench.read(2) == FIFTEEN
    bench.units[1].fault = None
    assert await bench.read(1) == FIFTEEN


async def test_a_wrong_unit_is_silence(bench: Bench):
    with pytest.raises(Silent, match=r"no answer from unit 9 within 0\.3 s"):
        await bench.read(9)


async def test_an_echo_is_passed_over(tmp_path: Path):
    async with bench_on(tmp_path / "tty", LineSettings(115_200, turnaround_s=0.0, echo=True)) as bench:
        assert await bench.read(1) == FIFTEEN
        with pytest.raises(Silent, match="only the echo of the request"):
            await bench.read(9)


async def test_a_wrong_baud_rate_is_silence(tmp_path: Path):
    async with bench_on(tmp_path / "tty", LineSettings(115_200), baudrate=9600) as bench:
        with pytest.raises(Silent):
            await bench.read(1)


async def test_an_answer_that_comes_late_is_not_the_next_request_s(bench: Bench):
    """A unit slower than its timeout, asked for power and voltage in turn: answers of equal shape, one behind."""
    bench.units[1].delay_s = 0.15
    outcomes: list[object] = []
    for n in range(12):
        try:
            outcomes.append((n % 2, await bench.read(1, (POWER, VOLTAGE)[n % 2], timeout_s=0.1)))
        except BusError:
            outcomes.append(None)
        await asyncio.sleep(0.02)
    wrong = [outcome for outcome in outcomes if outcome not in {None, (0, FIFTEEN), (1, MAINS)}]
    assert wrong == []
    bench.units[1].delay_s = 0.0


async def test_an_answer_that_comes_late_does_not_disturb_another_unit(bench: Bench):
    await bench.read(2)
    bench.units[1].delay_s = 0.15
    with pytest.raises(Silent):
        await bench.read(1, timeout_s=0.1)
    bench.units[2].delay_s = 0.1  # so that the late answer comes before its own
    assert await bench.read(2, VOLTAGE, timeout_s=1.0) == MAINS


async def test_a_unit_that_was_late_once_answers_again_at_the_next_reading(bench: Bench):
    bench.units[1].delay_s = 0.15
    with pytest.raises(Silent):
        await bench.read(1, timeout_s=0.1)
    bench.units[1].delay_s = 0.0
    assert await bench.read(1, timeout_s=0.3) == FIFTEEN


async def test_a_terminal_that_goes_away_and_comes_back(tmp_path: Path):
    link = tmp_path / "tty"
    async with bench_on(link, LineSettings(115_200, turnaround_s=0.0)) as bench:
        await bench.read(1)
        await bench.line.stop()
        with pytest.raises(BusError, match="tty: "):
            await bench.read(1)
        with pytest.raises(BusError, match="tty: no such file or directory"):
            await bench.read(1)
        await bench.line.start()
        await asyncio.sleep(0.3)  # the back-off between attempts to connect
        assert await bench.read(1) == FIFTEEN


@pytest.fixture
def terminal() -> AsyncIterator[tuple[int, str]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


async def test_a_port_that_another_program_holds(terminal: tuple[int, str]):
    _, name = terminal
    other = os.open(name, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(BusError, match=f"^{name}: in use by another program$"):
        await connect(SerialEndpoint(name, 9600, "N", 1), 1.0)
    os.close(other)


async def test_a_file_that_is_no_port(tmp_path: Path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(BusError, match=f"^{path}: not a serial port$"):
        await connect(SerialEndpoint(str(path), 9600, "N", 1), 1.0)


async def test_settings_that_a_port_does_not_take(terminal: tuple[int, str]):
    (await connect(SerialEndpoint(terminal[1], 9600, "N", 1), 1.0)).close()
    with pytest.raises(BusError, match="the port does not take 9600 baud, 8E1"):  # a pseudo-terminal has no parity
        await connect(SerialEndpoint(terminal[1], 9600, "E", 1), 1.0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open anything")
async def test_a_port_without_permission(tmp_path: Path):
    path = tmp_path / "file"
    path.touch(mode=0)
    with pytest.raises(BusError, match="permission denied"):
        await connect(SerialEndpoint(str(path), 9600, "N", 1), 1.0)


async def test_what_came_before_a_request_is_no_answer_to_it(terminal: tuple[int, str]):
    master, name = terminal
    link = await connect(SerialEndpoint(name, 9600, "N", 1), 1.0)
    stale = bytes((1, 4, 4, 9, 9, 9, 9))
    os.write(master, stale + checksum(stale))
    with pytest.raises(Silent):
        await link.read(1, POWER, 0.05)
    assert os.read(master, 100) == request(1, POWER)
    link.close()
    link.close()


async def test_an_opening_given_up_leaves_no_port_open(terminal: tuple[int, str]):
    _, name = terminal
    opening = asyncio.create_task(connect(SerialEndpoint(name, 9600, "N", 1), 1.0))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    for _ in range(200):
        try:
            link = await connect(SerialEndpoint(name, 9600, "N", 1), 1.0)
        except BusError:
            await asyncio.sleep(0.01)
            continue
        link.close()
        return
    pytest.fail("the port is still taken")


Answer = Callable[[bytes], list[bytes]]


@asynccontextmanager
async def converter(answer: Answer) -> AsyncIterator[TcpEndpoint]:
    """A port that answers each request of 8 bytes with the pieces that ``answer`` gives, one packet each."""
    talks: list[asyncio.Task[None]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.current_task())
        try:
            while True:
                for piece in answer(await reader.readexactly(8)):
                    writer.write(piece)
                    await asyncio.sleep(0.01)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield TcpEndpoint("127.0.0.1", server.sockets[0].getsockname()[1], "rtu")
    finally:
        server.close()
        for one in talks:
            one.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def words(unit: int, *values: int) -> bytes:
    content = bytes((unit, 4, 2 * len(values))) + b"".join(value.to_bytes(2, "big") for value in values)
    return content + checksum(content)


async def test_rtu_behind_a_converter_in_pieces():
    whole = words(1, *FIFTEEN)
    async with converter(lambda _: [whole[:1], whole[1:4], whole[4:]]) as endpoint:
        link = await connect(endpoint, 1.0)
        assert tuple(await link.read(1, POWER, 5.0)) == FIFTEEN
        link.close()


async def test_a_babbling_line_ends_in_a_plain_condition():
    async with converter(lambda _: [b"\x55" * 3000, b"\xaa" * 3000]) as endpoint:
        link = await connect(endpoint, 1.0)
        with pytest.raises(Silent, match="bytes that make no frame"):
            await link.read(1, POWER, 0.1)
        link.close()


async def test_a_converter_that_hangs_up_is_told_at_once():
    async with converter(lambda _: []) as endpoint:
        link = await connect(endpoint, 1.0)
        asking = asyncio.create_task(link.read(1, POWER, 60.0))
        await asyncio.sleep(0.02)
        link.close()
        with pytest.raises(BusError, match="the connection was closed"):
            await asking
        assert not link.alive


async def test_a_converter_that_is_not_there():
    async with converter(lambda _: []) as endpoint:
        pass
    with pytest.raises(BusError, match=rf"^no connection to 127\.0\.0\.1:{endpoint.port}: connection refused$"):
        await connect(endpoint, 1.0)


async def test_pymodbus_s_own_rtu_server_behind_a_port_is_understood():
    node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand())
    units = {number: EmulatedPdu(f"pdu-{number}", {1: node}) for number in (1, 7)}
    port = ModbusTcpPort("127.0.0.1", 0, units, lambda: None, SystemClock(), "rtu")
    await port.start()
    bus = ModbusBus(TcpEndpoint("127.0.0.1", port.port, "rtu"), SystemClock(), connect)
    assert [tuple(await bus.read(unit, POWER)) for unit in (1, 7)] == [FIFTEEN, FIFTEEN]
    with pytest.raises(Refused, match="illegal address"):
        await bus.read(1, Block(4, 5000, 1))
    with pytest.raises(Silent):
        await bus.read(9, POWER, timeout_s=0.1)
    assert tuple(await bus.read(1, VOLTAGE)) == MAINS
    bus.close()
    await port.stop()
