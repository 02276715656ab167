"""RTU over a line: a request, and whatever among the bytes that follow is its answer."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.errors import BusError
from agent.meters.modbus.frames import Hunt
from agent.meters.modbus.line import Line
from agent.meters.modbus.nameplate import Nameplate, NameplateHunt

T_co = TypeVar("T_co", covariant=True)


class AnyHunt(Protocol[T_co]):
    """Looks for the answer to one request."""

    @property
    def request(self) -> bytes:
        """The frame to send."""

    def look(self, received: bytes) -> T_co | None:
        """The answer, if it is in there. Raises Refused or BusError."""

    def failure(self, received: bytes, timeout_s: float) -> BusError:
        """Why there was no answer."""


class RtuLink:
    """A line; one request at a time. It stays usable whatever came or did not come."""

    matches: Final = False

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def alive(self) -> bool:
        """Whether the line still stands, as far as this end knows."""
        return self._line.alive

    async def read(self, unit: int, block: Block, timeout_s: float) -> Sequence[int]:
        """The words of a block. Raises BusError, Silent or Refused."""
        return await self._find(Hunt(unit, block), timeout_s)

    async def describe(self, unit: int, timeout_s: float) -> Nameplate:
        """What the unit says of itself. Raises BusError, Silent or Refused."""
        return await self._find(NameplateHunt(unit), timeout_s)

    async def _find(self, hunt: AnyHunt[T_co], timeout_s: float) -> T_co:
        self._line.send(hunt.request)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    answer = hunt.look(await self._line.more())
                    if answer is not None:
                        return answer
        except TimeoutError as error:
            raise hunt.failure(self._line.received, timeout_s) from error

    def close(self) -> None:
        """Let go of the line; harmless when repeated."""
        self._line.close()
