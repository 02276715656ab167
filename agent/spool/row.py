"""A sample as the spool keeps it: a place among all samples, a body, and a checksum over both."""

import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from agent.sample import Sample
from hil.intervals import Intervals, Range
from hil.wire import Lost, Record

SEQUENCE_BITS: Final = 40

Row = tuple[int, int, bytes]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


def position(generation: int, seq: int) -> int:
    """Where a sample stands among all: by the generation of its stream, then by its sequence number."""
    return generation << SEQUENCE_BITS | seq


def place(at: int) -> tuple[int, int]:
    """Generation and sequence number of a position."""
    return at >> SEQUENCE_BITS, at & ((1 << SEQUENCE_BITS) - 1)


def row_of(generation: int, record: Record) -> Row:
    """A record as position, checksum and body."""
    at, body = position(generation, record.seq), _encode(record)
    return at, checksum(at, body), body


def checksum(at: int, body: bytes) -> int:
    """CRC-32 of a row's position and body."""
    return zlib.crc32(body, at & 0xFFFFFFFF)


def intact(at: int, crc: object, body: object) -> Record | None:
    """The record of a row, or None where that is not what was written there."""
    if not isinstance(body, bytes) or checksum(at, body) != crc:
        return None
    with suppress(msgspec.MsgspecError):
        record = _decode(body)
        if record.seq == place(at)[1]:
            return record
    return None


def record_of(seq: int, sample: Sample) -> Record:
    """A sample with its number, as it travels."""
    energy_j = sample.energy.energy_j if sample.energy else None
    return Record(seq, sample.t_us, sample.meter, sample.power_w, energy_j, sample.energy_epoch, sample.quality)


@dataclass(frozen=True, slots=True)
class Committed:
    """Samples of one stream that are numbered and stored now."""

    stream: str
    generation: int
    records: list[Record]


@dataclass(frozen=True, slots=True)
class Batch:
    """Unacknowledged samples of one stream, in order, and what is declared lost between them."""

    stream: str
    generation: int
    records: list[Record]
    lost: list[Lost]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The numbers it speaks of, as closed ranges."""
        spoken = Intervals((record.seq, record.seq) for record in self.records)
        for lost in self.lost:
            spoken.add(lost.first, lost.last)
        return spoken.ranges
