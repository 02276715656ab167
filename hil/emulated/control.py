"""The control socket of the emulated world: how an actuator, or a test, reaches nodes and units.

It stands in for a node's own power management, which on a real node is a file or a vendor's tool.
"""

import asyncio
from collections.abc import Mapping

from hil.emulated.listen import ListenError
from hil.emulated.messages import (
    MAX_LINE,
    Answer,
    Delay,
    Get,
    MessageError,
    NodeState,
    Override,
    Plug,
    Request,
    Reset,
    SetCap,
    SetFault,
    Unplug,
    decode_request,
    encode,
)
from hil.emulated.modbusunit import EmulatedUnit
from hil.emulated.sysfs import EmulatedPowercap
from hil.emulated.world import World


class ControlServer:
    """JSON lines over TCP, one answer a line; a bad line gets an error for its answer."""

    def __init__(
        self,
        host: str,
        port: int,
        world: World,
        units: Mapping[str, EmulatedUnit],
        rapl: Mapping[str, EmulatedPowercap] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._world = world
        self._units = dict(units)
        self._rapl = dict(rapl or {})
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; ``port`` then is the actual one. Raises ListenError."""
        try:
            self._server = await asyncio.start_server(self._welcome, self.host, self.port, limit=MAX_LINE)
        except OSError as error:
            raise ListenError("control", self.host, self.port, error) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and all connections; harmless when repeated."""
        if self._server is None:
            return
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        self._server = None

    def answer(self, request: Request) -> Answer:
        """Do what a request asks, now."""
        self._world.advance()
        if isinstance(request, SetFault | Delay | Override):
            return self._answer_for_unit(request)
        if isinstance(request, Reset):
            return self._answer_for_rapl(request)
        node = self._world.nodes.get(request.node)
        if node is None:
            return Answer(error=f"no node {request.node} here")
        match request:
            case SetCap():
                node.cap_w = request.cap_w
            case Plug():
                node.plugged = True
            case Unplug():
                node.plugged = False
            case Get():
                pass
        return Answer(
            node=NodeState(power_w=node.power_w, energy_j=node.energy_j, cap_w=node.cap_w, plugged=node.plugged)
        )

    def _answer_for_unit(self, request: SetFault | Delay | Override) -> Answer:
        unit = self._units.get(request.pdu)
        if unit is None:
            return Answer(error=f"no pdu {request.pdu} here")
        match request:
            case SetFault():
                unit.fault = request.fault
            case Delay():
                unit.delay_s = request.delay_s
            case Override() if request.outlet > unit.outlet_count:
                return Answer(error=f"pdu {request.pdu} has no outlet {request.outlet}")
            case Override() if request.quantity not in unit.quantities:
                return Answer(error=f"pdu {request.pdu} does not show {request.quantity}")
            case Override():
                unit.override(request.outlet, request.quantity, request.value)
        return Answer()

    def _answer_for_rapl(self, request: Reset) -> Answer:
        tree = self._rapl.get(request.rapl)
        if tree is None:
            return Answer(error=f"no rapl {request.rapl} here")
        tree.reset()
        return Answer()

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(reader, writer), name="control connection")
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)
        talk.add_done_callback(lambda _: writer.close())

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await _read_line(reader):
                writer.write(encode(self._answer_line(line)))
                await writer.drain()
        except _TooLong:
            writer.write(encode(Answer(error=f"a line holds at most {MAX_LINE} bytes")))
        except ConnectionError:
            return  # the client is gone, there is nobody to answer

    def _answer_line(self, line: bytes) -> Answer:
        try:
            return self.answer(decode_request(line))
        except MessageError as error:
            return Answer(error=str(error))


class _TooLong(Exception):
    """A line that does not end in time; what follows it cannot be told from it."""


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """A whole line, or nothing at the end of the stream."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError as error:
        raise _TooLong from error
