"""What can be asked of a unit, over whatever connection."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.frames import answer_chars, request_chars
from agent.meters.modbus.nameplate import QUESTION, Nameplate

T = TypeVar("T")


class Link(Protocol):
    """A connection to an endpoint; one request at a time."""

    @property
    def alive(self) -> bool:
        """Whether the connection still stands."""

    @property
    def matches(self) -> bool:
        """Whether an answer names its request. If so, the link must be closed after any error but ``Refused``."""

    async def read(self, unit: int, block: Block, timeout_s: float) -> Sequence[int]:
        """The words of a block. Raises BusError, Silent or Refused."""

    async def describe(self, unit: int, timeout_s: float) -> Nameplate:
        """What a unit says of itself. Raises BusError, Silent or Refused."""

    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """A question to a unit: its function code, the characters that it and its answer take on a line, how it is put."""

    unit: int
    function: int
    chars: int
    put: Callable[[Link, float], Awaitable[T]]


def reading(unit: int, block: Block) -> Request[Sequence[int]]:
    """The request for the words of a block."""
    chars = request_chars() + answer_chars(block.count)
    return Request(unit, block.function, chars, lambda link, timeout_s: link.read(unit, block, timeout_s))


def describing(unit: int) -> Request[Nameplate]:
    """The request for what a unit says of itself."""
    chars = request_chars() + answer_chars(QUESTION.count)
    return Request(unit, QUESTION.function, chars, lambda link, timeout_s: link.describe(unit, timeout_s))
