"""RTU frames: unit, function, data and a checksum, one after another with nothing between them but silence.

Modbus over Serial Line Specification V1.02, 2.5.1. A frame names neither its length nor its request, so that an answer
is known only by its unit, its function and the length that was asked for.
"""

import struct
from collections.abc import Sequence
from typing import Final

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.errors import BusError, Refused, Silent

CRC_BYTES: Final = 2
HEAD_BYTES: Final = 3
EXCEPTION: Final = 0x80
EXCEPTION_BYTES: Final = 5


def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0xA001 if value & 1 else 0)
    return value


_CRCS: Final = tuple(_crc_of_byte(value) for value in range(256))


def checksum(content: bytes) -> bytes:
    """The two bytes that end a frame of ``content``."""
    crc = 0xFFFF
    for byte in content:
        crc = (crc >> 8) ^ _CRCS[(crc ^ byte) & 0xFF]
    return crc.to_bytes(CRC_BYTES, "little")


def request(unit: int, block: Block) -> bytes:
    """The frame that asks a unit for a block."""
    content = struct.pack(">BBHH", unit, block.function, block.address, block.count)
    return content + checksum(content)


def request_chars() -> int:
    """How many characters a request has."""
    return 8


def answer_chars(count: int) -> int:
    """How many characters an answer of ``count`` words has."""
    return HEAD_BYTES + 2 * count + CRC_BYTES


def asked(unit: int, block: Block) -> str:
    """A request in words."""
    return f"{block.count} words from {block.address}, function {block.function}, unit {unit}"


class Hunt:
    """Looks for the answer to one request in what comes from a line, whatever else comes.

    Converters echo the request, drivers turn on and off with a stray byte, and a slow unit may answer an earlier
    request only now: all that is passed over. The end of the wait tells what came instead of an answer.
    """

    def __init__(self, unit: int, block: Block) -> None:
        self._unit = unit
        self._block = block
        self.request = request(unit, block)
        self._answer = bytes((unit, block.function, 2 * block.count))
        self._exception = bytes((unit, block.function | EXCEPTION))

    def look(self, received: bytes) -> Sequence[int] | None:
        """The words of the answer; None while there is none. Raises Refused, or BusError for a damaged answer."""
        content = received.removeprefix(self.request)
        size = answer_chars(self._block.count)
        for at in range(len(content)):
            if content.startswith(self._answer, at) and is_sound(content[at:], size):
                return struct.unpack_from(f">{self._block.count}H", content, at + HEAD_BYTES)
            if content.startswith(self._exception, at) and is_sound(content[at:], EXCEPTION_BYTES):
                raise Refused(content[at + 2], asked(self._unit, self._block))
        echo = self.request.startswith(content)  # or the beginning of it
        if content.startswith(self._answer) and len(content) >= size and not echo:
            raise BusError(f"a damaged answer (CRC error) on reading {asked(self._unit, self._block)}")
        return None

    def failure(self, received: bytes, timeout_s: float) -> Silent:
        """Why there was no answer, from what came instead of it."""
        within = f"no answer from unit {self._unit} within {timeout_s:.1f} s"
        content = received.removeprefix(self.request)
        if not received:
            return Silent(within)
        if not content:
            return Silent(f"{within}, only the echo of the request")
        if other := _other_frame(content):
            return Silent(f"{within}, but {other}")
        return Silent(f"{within}, but bytes that make no frame: noise, or wrong baud rate, parity or wiring?")


def is_sound(received: bytes, size: int) -> bool:
    """Whether ``received`` begins with a whole frame of ``size`` bytes whose checksum is right."""
    end = size - CRC_BYTES
    return len(received) >= size and checksum(received[:end]) == received[end:size]


def _other_frame(content: bytes) -> str:
    """A sound frame at the beginning of ``content``, in words; empty if there is none."""
    if len(content) < EXCEPTION_BYTES:
        return ""
    unit, function, length = content[:HEAD_BYTES]
    size = EXCEPTION_BYTES if function & EXCEPTION else HEAD_BYTES + length + CRC_BYTES
    if not is_sound(content, size):
        return ""
    return f"an answer of unit {unit} to function {function & ~EXCEPTION}, {size} bytes long"
