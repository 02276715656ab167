"""Registers: how a table describes them, and how raw words become a believable number."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from agent.meters.modbus.quantities import TRAITS, Quantity
from hil.yamlfile import Section

WORD_BYTES: Final = 2
ZERO_OFFSET: Final = 0.5
"""A value may pass the ends of its range by this much, in canonical units: the noise and offset of an idle meter."""

_FORMATS: Final = {
    "u16": ">H",
    "i16": ">h",
    "u32": ">I",
    "i32": ">i",
    "u64": ">Q",
    "i64": ">q",
    "f32": ">f",
    "f64": ">d",
}

RegisterType = Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"]
WordOrder = Literal["big", "little"]
Function = Literal[3, 4]
Unsigned = Annotated[int, msgspec.Meta(ge=0)]


class RegisterConfig(Section, frozen=True, kw_only=True):
    """One quantity in a table: value = raw number × ``scale``, in ``unit``.

    ``address`` is the one on the wire, from 0. ``function`` and ``word_order`` (big: high word first) default to the
    table's. ``not_available`` lists raw numbers, unsigned, by which the device says that it has no value. ``range`` is
    what the device can show, in the canonical unit.
    """

    address: Unsigned
    type: RegisterType
    function: Function | None = None
    word_order: WordOrder | None = None
    unit: str | None = None
    scale: float = 1.0
    not_available: tuple[Unsigned, ...] = ()
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.scale == 0:
            raise ValueError("expected a scale other than 0")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("expected a range from low to high")

    @property
    def words(self) -> int:
        """How many words the value spans."""
        return _words(self.type)


class RegisterTable(Section, frozen=True, kw_only=True):
    """The registers of a meter; power is what makes it one."""

    power_w: RegisterConfig
    energy_j: RegisterConfig | None = None
    voltage_v: RegisterConfig | None = None
    current_a: RegisterConfig | None = None
    frequency_hz: RegisterConfig | None = None
    power_factor: RegisterConfig | None = None
    apparent_va: RegisterConfig | None = None

    def given(self) -> dict[Quantity, RegisterConfig]:
        """The registers that the table has."""
        return {quantity: register for quantity in Quantity if (register := getattr(self, quantity)) is not None}


def _words(kind: str) -> int:
    return struct.calcsize(_FORMATS[kind]) // WORD_BYTES


class RegisterError(Exception):
    """Words that are no believable value of their register; says which and why."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register with every default filled in; ``factor`` leads to the canonical unit."""

    quantity: Quantity
    function: int
    address: int
    type: str
    little: bool = False
    factor: float = 1.0
    not_available: frozenset[int] = frozenset()
    low: float = -math.inf
    high: float = math.inf

    @property
    def count(self) -> int:
        """How many words the register spans."""
        return _words(self.type)

    @property
    def end(self) -> int:
        """The address after its last word."""
        return self.address + self.count

    def decode(self, words: Sequence[int]) -> float:
        """The value of ``count`` words, in the canonical unit; finite and in range. Raises RegisterError."""
        ordered = words[::-1] if self.little else words
        content = b"".join(word.to_bytes(WORD_BYTES, "big") for word in ordered)
        raw = int.from_bytes(content, "big")
        if raw in self.not_available:
            raise RegisterError(f"{self.quantity} is not available (0x{raw:0{2 * len(content)}X})")
        (number,) = struct.unpack(_FORMATS[self.type], content)
        value = float(number) * self.factor
        if not math.isfinite(value):
            raise RegisterError(f"{self.quantity} is not a number (0x{raw:0{2 * len(content)}X})")
        if not self.low - ZERO_OFFSET <= value <= self.high + ZERO_OFFSET:
            raise RegisterError(f"{self.quantity} is {value:g}, possible are {self.low:g} to {self.high:g}")
        return value


def resolve(
    quantity: Quantity, config: RegisterConfig, function: Function, word_order: WordOrder, offset: int = 0
) -> Register:
    """The register that a table's entry describes, ``offset`` words further on; its unit must be one of TRAITS."""
    trait = TRAITS[quantity]
    low, high = config.range or (trait.low, trait.high)
    return Register(
        quantity=quantity,
        function=config.function or function,
        address=config.address + offset,
        type=config.type,
        little=(config.word_order or word_order) == "little",
        factor=config.scale * (trait.units[config.unit] if config.unit is not None else 1.0),
        not_available=frozenset(config.not_available),
        low=low,
        high=high,
    )
