"""Questions to a device that tell which one it is, and whether it is set up as its profile needs it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.encoding import ByteOrder, bit_field, content, number, text, word_count
from agent.meters.modbus.table import Bit, Defaults, Function, Unsigned
from hil.yamlfile import Section

MOST_WORDS: Final = 32
TEXT: Final = "string"

Answer = int | str


class ProbeConfig(Section, frozen=True, kw_only=True):
    """A register, and the values that are right or wrong for a device.

    A value of ``expect`` tells that it is the right one. Any other is an objection, unless ``refuse`` lists those that
    are. Of a ``string``, two characters a word, the lists give beginnings, and letters count the same in both cases.
    ``because``: what a wrong value means and what to do about it.
    """

    address: Unsigned
    type: Literal["u16", "i16", "u32", "i32", "u64", "bits", "string"] = "u16"
    function: Function | None = None
    words: Annotated[int, msgspec.Meta(ge=1, le=MOST_WORDS)] | None = None
    bits: tuple[Bit, Bit] | None = None
    byte_order: ByteOrder | None = None
    expect: tuple[Answer, ...] = ()
    refuse: tuple[Answer, ...] | None = None
    because: str = ""

    def __post_init__(self) -> None:
        if (self.words is None) == (self.type == TEXT):
            raise ValueError("expected words with type string, and only there")
        if (self.bits is None) == (self.type == "bits"):
            raise ValueError("expected bits with type bits, and only there")
        if not self.expect and not self.refuse:
            raise ValueError("expected values to expect, or to refuse")
        if any(isinstance(answer, str) != (self.type == TEXT) for answer in (*self.expect, *(self.refuse or ()))):
            raise ValueError("expected texts of a string and whole numbers of anything else")

    @property
    def count(self) -> int:
        """How many words to read."""
        return self.words if self.words is not None else word_count(self.type)


@dataclass(frozen=True, slots=True)
class Probe:
    """A question with every default filled in."""

    block: Block
    config: ProbeConfig
    low_word_first: bool
    low_byte_first: bool

    def answer(self, words: Sequence[int]) -> Answer:
        """What the device says."""
        low_word_first = self.low_word_first and self.config.type != TEXT
        octets = content(words, low_word_first=low_word_first, low_byte_first=self.low_byte_first)
        if self.config.type == TEXT:
            return text(octets)
        return bit_field(octets, self.config.bits) if self.config.bits else int(number(octets, self.config.type))

    def recognises(self, answer: Answer) -> bool:
        """Whether that is what only the right device says."""
        return _among(answer, self.config.expect)

    def objection(self, answer: Answer) -> str:
        """What is wrong with an answer, in words; empty where nothing is."""
        refuse = self.config.refuse
        wrong = _among(answer, refuse) if refuse is not None else not self.recognises(answer)
        if not wrong:
            return ""
        expected = ", expected " + " or ".join(map(_show, self.config.expect)) if self.config.expect else ""
        because = f": {self.config.because}" if self.config.because else ""
        return f"{self.said(answer)}{expected}{because}"

    def said(self, answer: Answer) -> str:
        """An answer in words."""
        return f"register 0x{self.block.address:04X}, function {self.block.function} says {_show(answer)}"


def probe(config: ProbeConfig, defaults: Defaults) -> Probe:
    """The question that an entry of a profile asks."""
    block = Block(config.function or defaults.function, config.address, config.count)
    byte_order = config.byte_order or defaults.byte_order
    return Probe(block, config, defaults.word_order == "little", byte_order == "little")


def _among(answer: Answer, known: Iterable[Answer]) -> bool:
    if isinstance(answer, str):
        return answer.lower().startswith(tuple(str(one).lower() for one in known))
    return answer in known


def _show(answer: Answer) -> str:
    return f"{answer!r}" if isinstance(answer, str) else f"{answer} (0x{answer:X})" if answer > 9 else str(answer)
