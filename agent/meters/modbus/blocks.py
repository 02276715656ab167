"""Which registers are read in one request."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
    registers: tuple[Register, ...]

    def cut(self, words: Sequence[int]) -> Iterator[tuple[Register, Sequence[int]]]:
        """Each register with its own words, out of the block's."""
        for register in self.registers:
            start = register.address - self.address
            yield register, words[start : start + register.count]


def merge(registers: Iterable[Register], max_words: int = MAX_WORDS, max_gap: int = 0) -> tuple[Block, ...]:
    """The blocks, of at most ``max_words``, that hold all registers; each skips at most ``max_gap`` unused words."""
    blocks: list[Block] = []
    for register in sorted(registers, key=lambda register: (register.function, register.address)):
        last = blocks[-1] if blocks else None
        if (
            last is not None
            and last.function == register.function
            and register.address <= last.address + last.count + max_gap
            and register.end <= last.address + max_words
        ):
            count = max(last.count, register.end - last.address)
            blocks[-1] = Block(last.function, last.address, count, (*last.registers, register))
        else:
            blocks.append(Block(register.function, register.address, register.count, (register,)))
    return tuple(blocks)
