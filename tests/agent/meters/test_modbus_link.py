"""The link against a server written here byte by byte, which answers as no library would."""

import asyncio
import gc
import logging
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.errors import BusError, Refused, Silent
from agent.meters.modbus.link import TcpLink, connect_tcp

BLOCK = Block(3, 100, 2, ())

Answer = Callable[[int, int, bytes], bytes | None]


def frame(tid: int, unit: int, pdu: bytes, protocol: int = 0) -> bytes:
    return struct.pack(">HHHB", tid, protocol, len(pdu) + 1, unit) + pdu


def words(*values: int, function: int = 3) -> bytes:
    return struct.pack(f">BB{len(values)}H", function, 2 * len(values), *values)


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[int]:
    """A port where each request (transaction, unit, PDU) gets the bytes of ``answer``; None closes the connection."""
    ended: list[asyncio.Event] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.Event())
        mine = ended[-1]
        try:
            while True:
                tid, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                reply = answer(tid, unit, await reader.readexactly(length - 1))
                if reply is None:
                    break
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            mine.set()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for one in ended:
            await one.wait()


@asynccontextmanager
async def link(answer: Answer) -> AsyncIterator[TcpLink]:
    async with server(answer) as port:
        link = await connect_tcp("127.0.0.1", port, 5.0)
        try:
            yield link
        finally:
            link.close()


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever comes over the wire, nothing is to reach asyncio's own error log."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_words_as_sent():
    requests = []

    def answer(tid: int, unit: int, pdu: bytes) -> bytes:
        requests.append((unit, pdu))
        return frame(tid, unit, words(0x1234, 0xFFFF))

    async with link(answer) as one:
        assert list(await one.read(17, BLOCK, 5.0)) == [0x1234, 0xFFFF]
        assert one.alive
    assert requests == [(17, struct.pack(">BHH", 3, 100, 2))]


async def test_function_4_asks_for_input_registers():
    async with link(lambda tid, unit, pdu: frame(tid, unit, words(pdu[0], 0, function=4))) as one:
        assert list(await one.read(1, Block(4, 0, 2, ()), 5.0)) == [4, 0]


async def test_an_exception_is_named_and_leaves_the_connection():
    async with link(lambda tid, unit, _: frame(tid, unit, b"\x83\x02")) as one:
        with pytest.raises(Refused, match=r"exception 2 \(illegal address\) on reading 2 words from 100, function 3"):
            await one.read(1, BLOCK, 5.0)
        assert one.alive


@pytest.mark.parametrize("values", [(), (1,), (1, 2, 3)])
async def test_a_wrong_length_is_no_answer(values: tuple[int, ...]):
    async with link(lambda tid, unit, _: frame(tid, unit, words(*values))) as one:
        with pytest.raises(BusError, match=rf"wrong length: {len(values)} words"):
            await one.read(1, BLOCK, 5.0)


async def test_an_answer_to_another_function_is_no_answer():
    async with link(lambda tid, unit, _: frame(tid, unit, words(1, 2, function=4))) as one:
        with pytest.raises(BusError, match="an answer to function 4"):
            await one.read(1, BLOCK, 5.0)


@pytest.mark.parametrize(
    "pdu",
    [b"\x03\x04\x00", b"\x03\xff", b"\x03", b"\x7f\x00\x00", b"\x83", b"\x00" * 9, b"\x2b\x0e\x01", b"\x18\x00"],
)
async def test_garbage_in_a_frame_is_named_at_once(pdu: bytes):
    async with link(lambda tid, unit, _: frame(tid, unit, pdu)) as one:
        with pytest.raises(BusError):
            await one.read(1, BLOCK, 5.0)


@pytest.mark.parametrize(
    "raw", [b"\x00", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 300, b"\x00\x01\x00\x07\x00\x07\x01\x03\x04\x00\x01\x00\x02"]
)
async def test_bytes_that_are_no_frame_end_in_silence(raw: bytes):
    async with link(lambda *_: raw) as one:
        with pytest.raises(BusError):
            await one.read(1, BLOCK, 0.1)


async def test_another_unit_s_or_another_request_s_answer_is_not_taken():
    async with link(lambda tid, unit, _: frame(tid, unit + 1, words(1, 2)) + frame(tid + 1, unit, words(3, 4))) as one:
        with pytest.raises(Silent):
            await one.read(1, BLOCK, 0.1)


async def test_silence_ends_at_the_deadline():
    async with link(lambda *_: b"") as one:
        with pytest.raises(Silent, match=r"no answer from unit 5 within 0\.1 s"):
            await one.read(5, BLOCK, 0.1)


async def test_an_answer_in_pieces_is_put_together():
    whole = b""

    def answer(tid: int, unit: int, _: bytes) -> bytes:
        nonlocal whole
        whole = frame(tid, unit, words(7, 8))
        return whole[:5]

    ready = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tid, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
        writer.write(answer(tid, unit, await reader.readexactly(length - 1)))
        await writer.drain()
        await asyncio.sleep(0.02)  # two segments on the wire
        writer.write(whole[5:])
        await reader.read()
        writer.close()
        ready.set()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    one = await connect_tcp("127.0.0.1", listening.sockets[0].getsockname()[1], 5.0)
    assert list(await one.read(1, BLOCK, 5.0)) == [7, 8]
    one.close()
    listening.close()
    await ready.wait()


async def test_a_connection_cut_in_a_request_is_told_at_once():
    async with link(lambda *_: None) as one:
        with pytest.raises(BusError, match="connection was closed"):
            await one.read(1, BLOCK, 60.0)
        assert not one.alive


async def test_closing_ends_a_request():
    async with link(lambda *_: b"") as one:
        asking = asyncio.create_task(one.read(1, BLOCK, 60.0))
        await asyncio.sleep(0)
        one.close()
        one.close()
        with pytest.raises(BusError):
            await asking


async def test_a_port_where_nobody_listens_is_told_in_plain_words():
    listening = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()
    with pytest.raises(BusError, match=rf"^no connection to 127\.0\.0\.1:{port}: connection refused$"):
        await connect_tcp("127.0.0.1", port, 5.0)


async def test_a_name_that_does_not_resolve_is_told_in_plain_words():
    with pytest.raises(BusError, match=r"^no connection to no-such-host\.invalid:502: "):
        await connect_tcp("no-such-host.invalid", 502, 10.0)


def test_an_agent_loads_no_server_and_nothing_of_pymodbus_before_it_needs_it():
    code = """
import sys
from agent.meters.modbus import ModbusMeter
assert not [name for name in sys.modules if name.startswith("pymodbus")]
import agent.meters.modbus.link
assert "pymodbus.server" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_connection_closed_while_nobody_asks_leaves_no_trace(caplog: pytest.LogCaptureFixture):
    async with link(lambda tid, unit, _: frame(tid, unit, words(1, 2))) as one:
        await one.read(1, BLOCK, 5.0)
    async with link(lambda *_: None) as one:
        pass
    del one
    gc.collect()
    assert caplog.records == []
