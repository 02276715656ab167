"""RTU frames against bytes from elsewhere: the examples of the Modbus over Serial Line guide, and pymodbus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer.rtu import FramerRTU

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.errors import BusError, Refused, Silent
from agent.meters.modbus.frames import Hunt, checksum, request

BLOCK = Block(3, 0, 2)
ASKED = request(17, BLOCK)


def frame(*content: int) -> bytes:
    return bytes(content) + checksum(bytes(content))


ANSWER = frame(17, 3, 4, 0x12, 0x34, 0xFF, 0xFF)
WORDS = (0x1234, 0xFFFF)


def test_the_checksum_of_the_specification():
    # Modbus over Serial Line V1.02, 6.2.2: the CRC of 02 07 is 1241 hex, low byte first on the wire.
    assert checksum(b"\x02\x07") == b"\x41\x12"


@given(st.binary(max_size=256))
def test_the_checksum_is_pymodbus_s(content: bytes):
    assert checksum(content) == FramerRTU.compute_CRC(content).to_bytes(2, "big")


def test_a_request_byte_by_byte():
    # Modbus Application Protocol V1.1b3, 6.3: three holding registers from 108 (006B hex on the wire).
    assert request(1, Block(3, 0x6B, 3))[:6] == bytes.fromhex("01 03 00 6b 00 03")


@pytest.mark.parametrize(
    "received",
    [
        ANSWER,
        ASKED + ANSWER,
        b"\x00" + ANSWER,
        b"\xff\x00\x80" + ANSWER + b"\x00",
        frame(18, 3, 4, 0, 0, 0, 0) + ANSWER,
        frame(17, 3, 2, 0, 0) + ANSWER,
        frame(17, 4, 4, 0, 0, 0, 0) + ANSWER,
        frame(18, 0x83, 2) + ANSWER,
        ANSWER[:5] + ANSWER,
    ],
    ids=["plain", "echo", "noise", "noise around", "unit", "length", "function", "exception of another", "torn"],
)
def test_the_answer_is_found_among_whatever_else_comes(received: bytes):
    assert Hunt(17, BLOCK).look(received) == WORDS


@pytest.mark.parametrize("received", [ASKED + ANSWER, b"\x00" + ANSWER], ids=["echo", "noise"])
def test_the_answer_is_not_found_before_it_is_all_there(received: bytes):
    hunt = Hunt(17, BLOCK)
    assert [hunt.look(received[:size]) for size in range(len(received))] == [None] * len(received)


@pytest.mark.parametrize(
    "received",
    [
        b"",
        frame(18, 3, 4, 0x12, 0x34, 0xFF, 0xFF),
        frame(17, 4, 4, 0x12, 0x34, 0xFF, 0xFF),
        frame(17, 3, 2, 0x12, 0x34),
        frame(17, 3, 6, 0x12, 0x34, 0xFF, 0xFF, 0, 0),
        frame(18, 0x83, 2),
        frame(17, 0x84, 2),
        b"\x11\x83\x02\x00\x00",
    ],
    ids=["nothing", "unit", "function", "shorter", "longer", "exception of a unit", "of a function", "damaged"],
)
def test_what_answers_something_else_is_no_answer(received: bytes):
    assert Hunt(17, BLOCK).look(received) is None


def test_an_exception_is_named():
    asked = "2 words from 0, function 3, unit 17"
    with pytest.raises(Refused, match=rf"exception 2 \(illegal address\) on reading {asked}"):
        Hunt(17, BLOCK).look(ASKED + frame(17, 0x83, 2))


@pytest.mark.parametrize("bit", range(8 * 3, 8 * len(ANSWER)))
def test_any_flipped_bit_of_the_content_is_a_damaged_answer(bit: int):
    damaged = bytearray(ANSWER)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BusError, match="a damaged answer"):
        Hunt(17, BLOCK).look(bytes(damaged))


@pytest.mark.parametrize("bit", range(8 * 3))
def test_a_flipped_bit_of_the_head_makes_it_somebody_else_s(bit: int):
    damaged = bytearray(ANSWER)
    damaged[bit // 8] ^= 1 << bit % 8
    assert Hunt(17, BLOCK).look(bytes(damaged)) is None


@pytest.mark.parametrize(
    ("received", "why"),
    [
        (b"", "$"),
        (ASKED, "only the echo"),
        (b"\x93\x00\xfe", "bytes that make no frame: noise, or wrong baud rate, parity or wiring"),
        (frame(18, 3, 4, 0, 0, 0, 0), "an answer of unit 18 to function 3, 9 bytes long"),
        (ASKED + frame(17, 3, 2, 0, 0), "an answer of unit 17 to function 3, 7 bytes long"),
        (frame(17, 0x84, 2), "an answer of unit 17 to function 4, 5 bytes long"),
    ],
    ids=["silence", "echo", "garbage", "unit", "length", "function"],
)
def test_the_end_of_the_wait_tells_what_came_instead(received: bytes, why: str):
    failure = Hunt(17, BLOCK).failure(received, 0.3)
    assert isinstance(failure, Silent)
    with pytest.raises(Silent, match=rf"no answer from unit 17 within 0\.3 s.*{why}"):
        raise failure


@given(st.binary(max_size=600), st.integers(1, 125))
def test_garbage_is_never_taken_for_an_answer_without_its_checksum(received: bytes, count: int):
    block = Block(4, 0, count)
    try:
        words = Hunt(1, block).look(received)
    except BusError:
        return
    assert words is None or len(words) == count
    Hunt(1, block).failure(received, 1.0)
