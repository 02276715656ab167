"""How raw words hold a number or a text."""

import struct
from collections.abc import Sequence
from typing import Final, Literal

WORD_BYTES: Final = 2

NumberType = Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bits"]
WordOrder = Literal["big", "little"]
ByteOrder = Literal["big", "little"]

_FORMATS: Final = {
    "u16": ">H",
    "i16": ">h",
    "u32": ">I",
    "i32": ">i",
    "u64": ">Q",
    "i64": ">q",
    "f32": ">f",
    "f64": ">d",
    "bits": ">H",
}


def word_count(kind: str) -> int:
    """How many words a number of a type spans."""
    return struct.calcsize(_FORMATS[kind]) // WORD_BYTES


def content(words: Sequence[int], *, low_word_first: bool = False, low_byte_first: bool = False) -> bytes:
    """The bytes of ``words``, the highest first."""
    ordered = words[::-1] if low_word_first else words
    return struct.pack(f"{'<' if low_byte_first else '>'}{len(ordered)}H", *ordered)


def number(octets: bytes, kind: str) -> float:
    """The number that the bytes are; it may be NaN or infinite."""
    return float(struct.unpack(_FORMATS[kind], octets)[0])


def bit_field(octets: bytes, bits: tuple[int, int]) -> int:
    """Bits ``low`` to ``high`` of a word, bit 0 being the lowest."""
    low, high = bits
    return int.from_bytes(octets, "big") >> low & (1 << (high - low + 1)) - 1


def text(octets: bytes) -> str:
    """What the bytes spell; anything but printable ASCII ends it or is left out."""
    return "".join(chr(byte) for byte in octets.partition(b"\0")[0] if 0x20 <= byte < 0x7F).strip()
