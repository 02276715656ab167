"""Which registers are read in one request, and what came of a round of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.meters.modbus.registers import Register

MAX_WORDS: Final = 125
"""The most that one request may ask for (Modbus Application Protocol V1.1b3, 6.3 and 6.4)."""


@dataclass(frozen=True, slots=True)
class Block:
    """``count`` words from ``address`` on, and the registers that lie in them whole."""

    function: int
    address: int
    count: int
    registers: tuple[Register, ...] = ()

    def split(self) -> tuple["Block", "Block"]:
        """Its registers in two blocks, parted where most unused words lie; it must hold at least two."""
        widest = max(range(1, len(self.registers)), key=self._unused_before)
        return _spanning(self.registers[:widest]), _spanning(self.registers[widest:])

    def _unused_before(self, index: int) -> int:
        return self.registers[index].address - max(register.end for register in self.registers[:index])


@dataclass(slots=True)
class RegisterImage:
    """The words that a device showed in one round of requests."""

    _answers: list[tuple[Block, Sequence[int]]] = field(default_factory=list)

    def add(self, block: Block, words: Sequence[int]) -> None:
        """Put in what answered a request for ``block``."""
        self._answers.append((block, words))

    def words(self, function: int, address: int, count: int) -> Sequence[int]:
        """``count`` words from ``address`` on. Raises LookupError where they were not read."""
        for block, words in self._answers:
            start = address - block.address
            if block.function == function and start >= 0 and start + count <= block.count:
                return words[start : start + count]
        raise LookupError(f"{count} words from {address} were not read")


def merge(registers: Iterable[Register], max_words: int = MAX_WORDS, max_gap: int = 0) -> tuple[Block, ...]:
    """The blocks, of at most ``max_words``, that hold all registers; each skips at most ``max_gap`` unused words."""
    blocks: list[Block] = []
    needed = {part for register in registers for part in register.needs}
    for register in sorted(needed, key=lambda register: (register.function, register.address)):
        last = blocks[-1] if blocks else None
        if (
            last is not None
            and last.function == register.function
            and register.address <= last.address + last.count + max_gap
            and register.end <= last.address + max_words
        ):
            blocks[-1] = _spanning((*last.registers, register))
        else:
            blocks.append(_spanning((register,)))
    return tuple(blocks)


def _spanning(registers: tuple[Register, ...]) -> Block:
    """The block that just holds registers of one function, in order of their addresses."""
    first = registers[0]
    return Block(first.function, first.address, max(register.end for register in registers) - first.address, registers)
