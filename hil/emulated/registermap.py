"""The register map of a real device, read from a profile of the agent: what its words are, given what it measures.

This is a reader of its own: what it has in common with the agent's is the file. It takes from a profile what decides
how words look (addresses, types, orders, scales, units, what the device answers when asked who it is) and leaves the
rest. A profile in which registers are found by walking from one to the next (``sunspec``) cannot be shown.
"""

import itertools
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from hil.emulated.electrical import Quantity
from hil.units import JOULES_PER_WH, WATTS_PER_KILOWATT, WATTS_PER_MILLIWATT, WH_PER_KWH
from hil.yamlfile import ConfigError, Document, Fault, load

WORD_BYTES: Final = 2

Place = tuple[int, int]
"""Function and address."""

Function = Literal[3, 4]
Order = Literal["big", "little"]

_FORMATS: Final = {"u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}

_NAMES: Final = frozenset(map(str, Quantity))

_UNITS: Final = {
    "kW": WATTS_PER_KILOWATT,
    "mW": WATTS_PER_MILLIWATT,
    "mJ": 1e-3,
    "kJ": 1e3,
    "Wh": JOULES_PER_WH,
    "kWh": WH_PER_KWH * JOULES_PER_WH,
    "MWh": 1e3 * WH_PER_KWH * JOULES_PER_WH,
    "mV": 1e-3,
    "kV": 1e3,
    "mA": 1e-3,
    "kA": 1e3,
    "mHz": 1e-3,
    "%": 1e-2,
    "kVA": 1e3,
}
"""What the units that are not canonical are worth in the canonical one."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A register of the profile, as far as it decides what its words are."""

    address: int
    type: str
    function: Function | None = None
    word_order: Order | None = None
    byte_order: Order | None = None
    unit: str | None = None
    scale: float = 1.0
    scale_register: int | None = None
    bits: tuple[int, int] | None = None
    not_available: tuple[int, ...] = ()


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Something that tells one device from another."""

    address: int | None = None
    type: str = "u16"
    function: Function | None = None
    words: int | None = None
    bits: tuple[int, int] | None = None
    byte_order: Order | None = None
    expect: tuple[int | str, ...] = ()


class OutletGrid(msgspec.Struct, frozen=True, kw_only=True):
    """How the registers repeat from outlet to outlet."""

    count: int
    stride: int


class BlockLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many words the device gives at once, and how many unused ones in a row it has none the less."""

    max: int = 125
    gap: int = 0


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """The profile, as far as it decides what words are."""

    registers: dict[str, Entry]
    function: Function = 3
    word_order: Order = "big"
    byte_order: Order = "big"
    block: BlockLimits = BlockLimits()
    outlets: OutletGrid | None = None
    identify: tuple[Probe, ...] = ()
    require: tuple[Probe, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a quantity stands, and how: raw number × ``factor`` is the value in the canonical unit."""

    quantity: Quantity
    function: int
    address: int
    type: str
    factor: float
    low_word_first: bool
    low_byte_first: bool
    bits: tuple[int, int] | None = None
    nothing: int | None = None
    scale_address: int | None = None

    def words(self, value: float) -> list[int]:
        """The words that show a value; the nearest ones that the register can show, and for NaN its own word for it."""
        if self.bits is not None:
            low, high = self.bits
            return [(0 if math.isnan(value) else round(value / self.factor)) << low & (2 << high) - 1]
        return _ordered(self._octets(value), self.low_word_first, self.low_byte_first)

    def placed(self, value: float, shift: int = 0) -> Iterator[tuple[Place, int]]:
        """The words with their places, ``shift`` addresses further on; its power of ten, if it has one, is 0."""
        for index, word in enumerate(self.words(value)):
            yield (self.function, self.address + shift + index), word
        if self.scale_address is not None:
            yield (self.function, self.scale_address + shift), 0

    def _octets(self, value: float) -> bytes:
        form = ">" + _FORMATS[self.type]
        size = struct.calcsize(form)
        if math.isnan(value) and self.nothing is not None:
            return self.nothing.to_bytes(size, "big")
        if self.type.startswith("f"):
            return struct.pack(form, value / self.factor)
        signed = self.type.startswith("i")
        low, high = (-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1) if signed else (0, (1 << 8 * size) - 1)
        number = 0 if math.isnan(value) else round(value / self.factor)
        return struct.pack(form, min(max(number, low), high))


class RegisterMap:
    """The words of a device. Addresses go by function: holding registers (3) and input registers (4) are two spaces.

    ``static`` words never change, and are the same for all outlets.
    """

    def __init__(
        self, cells: Sequence[Cell], static: Mapping[Place, int], limits: BlockLimits, grid: OutletGrid
    ) -> None:
        self._cells = cells
        self._static = static
        self._grid = grid
        self.max_words = limits.max
        self.quantities = frozenset(cell.quantity for cell in cells)
        self._places = frozenset(self._with_gaps(limits.gap))

    @property
    def outlet_count(self) -> int:
        """How many outlets it has."""
        return self._grid.count

    @property
    def places(self) -> frozenset[Place]:
        """Every function and address that the device has, unused ones between its registers included."""
        return self._places

    def words(self, outlets: Mapping[int, Mapping[Quantity, float]]) -> Mapping[Place, int]:
        """The words that are not 0, for the values of each outlet."""
        words = dict(self._static)
        for outlet, values in outlets.items():
            shift = (outlet - 1) * self._grid.stride
            for cell in self._cells:
                words.update(cell.placed(values[cell.quantity], shift))
        return words

    def _with_gaps(self, gap: int) -> Iterator[Place]:
        nothing = dict.fromkeys(self.quantities, 0.0)
        used = sorted(self.words(dict.fromkeys(range(1, self._grid.count + 1), nothing)))
        for (function, address), (next_function, next_address) in itertools.pairwise([*used, (0, 0)]):
            yield function, address
            if next_function == function and next_address - address - 1 <= gap:
                yield from ((function, unused) for unused in range(address + 1, next_address))


def load_map(path: Path) -> RegisterMap:
    """The map in a profile. Raises ConfigError."""
    document = load(path, dict[str, Any])
    try:
        sheet = msgspec.convert(document.raw, Sheet)
    except msgspec.ValidationError as error:
        raise ConfigError([Fault(str(path), None, "profile", "not to be shown", str(error))]) from error
    cells = tuple(_cells(sheet, document))
    document.check()
    return RegisterMap(cells, dict(_static(sheet)), sheet.block, sheet.outlets or OutletGrid(count=1, stride=0))


def _cells(sheet: Sheet, document: Document[dict[str, Any]]) -> Iterator[Cell]:
    for name, entry in sheet.registers.items():
        if name not in _NAMES or entry.type not in {*_FORMATS, "bits"}:
            document.add(("registers", name), entry.type, "no quantity or no type that an emulated unit shows")
            continue
        yield Cell(
            quantity=Quantity(name),
            function=entry.function or sheet.function,
            address=entry.address,
            type=entry.type,
            factor=entry.scale * _UNITS.get(entry.unit or "", 1.0),
            low_word_first=(entry.word_order or sheet.word_order) == "little",
            low_byte_first=(entry.byte_order or sheet.byte_order) == "little",
            bits=entry.bits,
            nothing=entry.not_available[0] if entry.not_available else None,
            scale_address=entry.scale_register,
        )


def _static(sheet: Sheet) -> Iterator[tuple[Place, int]]:
    """What the device answers when asked who it is."""
    for probe in (*sheet.identify, *sheet.require):
        if probe.address is not None and probe.expect:
            for index, word in enumerate(_probe_words(probe, sheet)):
                yield (probe.function or sheet.function, probe.address + index), word


def _probe_words(probe: Probe, sheet: Sheet) -> list[int]:
    low_byte_first = (probe.byte_order or sheet.byte_order) == "little"
    first = probe.expect[0]
    if isinstance(first, str):
        octets = first.encode("ascii")
        size = WORD_BYTES * (probe.words or (len(octets) + 1) // WORD_BYTES)
        return _ordered(octets[:size].ljust(size, b"\0"), False, low_byte_first)
    number = first << probe.bits[0] if probe.bits is not None else first
    octets = struct.pack(">" + _FORMATS.get(probe.type, "H"), number)
    return _ordered(octets, sheet.word_order == "little", low_byte_first)


def _ordered(octets: bytes, low_word_first: bool, low_byte_first: bool) -> list[int]:
    words = [word for (word,) in struct.iter_unpack("<H" if low_byte_first else ">H", octets)]
    return words[::-1] if low_word_first else words
