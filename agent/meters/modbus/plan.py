"""What a meter asks its device for, and how often."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agent.meters.modbus.blocks import MAX_WORDS, Block, merge
from agent.meters.modbus.nameplate import Nameplate
from agent.meters.modbus.oddity import Check
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.registers import Register

SLOW_EVERY: Final = 10
"""Slow registers are read in one round of so many."""

CHEAP_WORDS: Final = 32
"""Registers for checks come along each time where that takes no further request and at most so many more words."""

TURNAROUND_S: Final = 0.02
"""What a device on a serial line takes before it answers, where its profile does not say: common ones take 5–30 ms."""

READING: Final = (Quantity.POWER_W, Quantity.ENERGY_J)
"""What a reading is made of."""


class Ask(Protocol):
    """Asks one unit."""

    async def read(self, block: Block) -> Sequence[int]:
        """The words of a block. Raises BusError."""

    async def describe(self) -> Nameplate:
        """What the unit says of itself. Raises BusError."""


class Commission(Protocol):
    """Looks at a device before its first reading, and whenever it was away."""

    async def __call__(self, ask: Ask) -> tuple[Register, ...]:
        """The registers as this very device has them. Raises BusError; WrongDevice for one that must not be read."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to read, within the device's limits.

    A request holds at most ``max_words`` and skips at most ``max_gap`` unused ones; before it the line is silent for
    ``silence_s`` at least, and the answer begins some ``turnaround_s`` later. Without ``checks``, power and energy are
    all that is read.
    """

    registers: tuple[Register, ...]
    max_words: int = MAX_WORDS
    max_gap: int = 0
    silence_s: float = 0.0
    turnaround_s: float = TURNAROUND_S
    checks: frozenset[Check] = frozenset(Check)
    commission: Commission | None = None

    def rounds(self, registers: tuple[Register, ...] | None = None) -> "Rounds":
        """What to read in each round, out of ``registers`` (none: the plan's own)."""
        every: list[Register] = []
        slow: list[Register] = []
        extra: list[Register] = []
        for register in self.registers if registers is None else registers:
            if register.quantity in READING:
                (slow if register.slow and register.quantity is not Quantity.POWER_W else every).append(register)
            elif self.checks - {Check.COUNTER}:
                (slow if register.slow else extra).append(register)
        cheap = self._cheap(every, extra)
        slow += [register for register in extra if register not in cheap]
        return Rounds(self._blocks(every + cheap), self._blocks(slow))

    def _cheap(self, every: list[Register], extra: list[Register]) -> list[Register]:
        """Those of ``extra`` that can come along; the nearest first, so that one may bridge the gap to another."""
        before = self._blocks(every)
        words = sum(block.count for block in before) + CHEAP_WORDS
        cheap: list[Register] = []
        found = True
        while found:
            found = False
            for register in extra:
                blocks = self._blocks([*every, *cheap, register])
                if register not in cheap and len(blocks) <= len(before) and sum(b.count for b in blocks) <= words:
                    cheap.append(register)
                    found = True
        return cheap

    def _blocks(self, registers: Iterable[Register]) -> tuple[Block, ...]:
        return merge(registers, self.max_words, self.max_gap)


@dataclass(frozen=True, slots=True)
class Rounds:
    """The requests of every round, and those of each ``SLOW_EVERY``-th beside them."""

    every: tuple[Block, ...]
    slow: tuple[Block, ...]
