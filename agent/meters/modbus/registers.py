"""Registers: where a quantity stands, and how raw words become a believable number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agent.meters.modbus.encoding import bit_field, content, number, word_count
from agent.meters.modbus.fixes import FIXES, FixName
from agent.meters.modbus.quantities import TRAITS, Quantity

MOST_EXPONENT: Final = 10
"""Powers of ten in scale registers go from −10 to 10 (SunSpec Information Model Specification V1.1, sunssf)."""


class RegisterError(Exception):
    """Words that are no believable value of their register; says which and why."""


class Image(Protocol):
    """The words that a device showed in one round of requests."""

    def words(self, function: int, address: int, count: int) -> Sequence[int]:
        """``count`` words from ``address`` on. Raises LookupError where they were not read."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register with every default filled in; value = fix(raw number × ``factor`` × 10 to the value of ``scale``).

    One with ``parts`` stands nowhere itself: its value is their sum.
    """

    quantity: Quantity
    function: int
    address: int
    type: str
    little: bool = False
    factor: float = 1.0
    not_available: frozenset[int] = frozenset()
    low: float = -math.inf
    high: float = math.inf
    slow: bool = False
    scale: "Register | None" = None
    low_byte_first: bool = False
    bits: tuple[int, int] | None = None
    fix: FixName | None = None
    parts: tuple["Register", ...] = ()

    @property
    def count(self) -> int:
        """How many words the register spans."""
        return word_count(self.type)

    @property
    def end(self) -> int:
        """The address after its last word."""
        return self.address + self.count

    @property
    def needs(self) -> tuple["Register", ...]:
        """The registers whose words the value is made of."""
        if self.parts:
            return tuple(needed for part in self.parts for needed in part.needs)
        return (self,) if self.scale is None else (self, self.scale)

    def value(self, image: Image) -> float:
        """The value in an image, in the canonical unit; finite and in range. Raises RegisterError or LookupError."""
        if self.parts:
            return self._believable(sum(part.value(image) for part in self.parts))
        exponent = self.scale.value(image) if self.scale is not None else 0.0
        return self.decode(image.words(self.function, self.address, self.count), exponent)

    def decode(self, words: Sequence[int], exponent: float = 0.0) -> float:
        """The value of ``count`` words, in the canonical unit; finite and in range. Raises RegisterError."""
        octets = content(words, low_word_first=self.little, low_byte_first=self.low_byte_first)
        raw = int.from_bytes(octets, "big")
        if raw in self.not_available:
            raise RegisterError(f"{self.quantity} is not available (0x{raw:0{2 * len(octets)}X})")
        found = bit_field(octets, self.bits) if self.bits is not None else number(octets, self.type)
        value = found * self.factor * 10.0**exponent if exponent >= 0 else found * self.factor / 10.0**-exponent
        if not math.isfinite(value):
            raise RegisterError(f"{self.quantity} is not a number (0x{raw:0{2 * len(octets)}X})")
        return self._believable(value if self.fix is None else FIXES[self.fix](value))

    def _believable(self, value: float) -> float:
        slack = TRAITS[self.quantity].slack
        if not self.low - slack <= value <= self.high + slack:
            raise RegisterError(f"{self.quantity} is {value:g}, possible are {self.low:g} to {self.high:g}")
        return value


def scale_of(quantity: Quantity, function: int, address: int) -> Register:
    """The register at ``address`` that tells the power of ten of a quantity; 0x8000 says that there is none."""
    return Register(
        quantity=quantity,
        function=function,
        address=address,
        type="i16",
        not_available=frozenset({0x8000}),
        low=-MOST_EXPONENT,
        high=MOST_EXPONENT,
    )
