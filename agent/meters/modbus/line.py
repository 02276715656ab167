"""Bytes to and from a serial line, at a port of this machine or behind a TCP converter."""

import asyncio
import contextlib
import errno
import os
import termios
from typing import Final, cast

from serial import Serial, SerialException

from agent.meters.modbus.endpoint import SerialEndpoint, TcpEndpoint
from agent.meters.modbus.errors import BusError
from hil.oserrors import reason

CHUNK: Final = 4096
OPENING_S: Final = 1.0
MOST: Final = 4096
"""A line that babbles on is forgotten from time to time: no frame has more than 256 bytes."""


class Line(asyncio.Protocol):
    """What a line says, collected until it is cleared."""

    def __init__(self, where: str) -> None:
        self.received = b""
        self._where = where
        self._transport: asyncio.WriteTransport | None = None
        self._change = asyncio.Event()
        self._lost = ""

    @property
    def alive(self) -> bool:
        """Whether the line is still there."""
        return not self._lost

    def send(self, content: bytes) -> None:
        """Forget what was received, for it can be no answer to this, and send. Raises BusError."""
        self.received = b""
        self._change.clear()
        self._check()
        if self._transport is not None:
            self._transport.write(content)

    async def more(self) -> bytes:
        """Everything since the last sending, once there is more of it than before. Raises BusError."""
        await self._change.wait()
        self._change.clear()
        self._check()
        return self.received

    def close(self) -> None:
        """Let go of the line; harmless when repeated."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        self._end("the connection was closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Take what came in."""
        self.received = (self.received + data)[-MOST:]
        self._change.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the line."""
        self._end(reason(exc) if isinstance(exc, OSError) else "the connection was closed")

    def _end(self, why: str) -> None:
        self._lost = self._lost or f"{self._where}: {why}"
        self._change.set()

    def _check(self) -> None:
        if self._lost:
            raise BusError(self._lost)


class SerialTransport(asyncio.WriteTransport):
    """Moves bytes between an open serial port and a line, on the event loop."""

    def __init__(self, port: Serial, line: Line) -> None:
        super().__init__()
        self._port = port
        self._line = line
        self._open = True
        asyncio.get_running_loop().add_reader(port.fileno(), self._readable)
        line.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; the few bytes of a request find room in any port's buffer."""
        try:
            termios.tcflush(self._port.fileno(), termios.TCIFLUSH)
            if os.write(self._port.fileno(), data) < len(data):
                self._lose(OSError("it takes no more bytes"))
        except termios.error as error:
            self._lose(OSError(*error.args))
        except OSError as error:
            self._lose(error)

    def close(self) -> None:
        """Close the port; harmless when repeated."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._port.fileno())
            with contextlib.suppress(termios.error):  # a port that is gone has nothing left to send
                termios.tcflush(self._port.fileno(), termios.TCIOFLUSH)  # closing would wait for it
            self._port.close()

    def _readable(self) -> None:
        try:
            data = os.read(self._port.fileno(), CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._line.data_received(data)
        else:
            self._lose(OSError("the device is gone"))

    def _lose(self, error: OSError) -> None:
        self.close()
        self._line.connection_lost(error)


async def open_converter(endpoint: TcpEndpoint, timeout_s: float) -> Line:
    """The line behind a converter. Raises BusError."""
    line = Line(endpoint.place)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().create_connection(lambda: line, endpoint.host, endpoint.port)
    except TimeoutError as error:
        raise BusError(f"no connection to {endpoint.place} within {timeout_s:g} s") from error
    except OSError as error:
        raise BusError(f"no connection to {endpoint.place}: {reason(error)}") from error
    return line


async def open_serial(endpoint: SerialEndpoint) -> Line:
    """The line at a serial port of this machine. Raises BusError."""
    opening = asyncio.create_task(asyncio.to_thread(_open, endpoint))
    try:
        port = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        await asyncio.wait({opening}, timeout=OPENING_S)  # or whoever opens it next finds it in use
        raise
    line = Line(endpoint.port)
    SerialTransport(port, line)
    return line


def _open(endpoint: SerialEndpoint) -> Serial:
    try:
        port = Serial(
            endpoint.port,
            baudrate=endpoint.baudrate,
            parity=endpoint.parity,
            stopbits=endpoint.stopbits,
            timeout=0,
            exclusive=True,
        )
    except SerialException as error:
        raise BusError(f"{endpoint.port}: {_why(error)}") from error
    except (ValueError, termios.error) as error:
        raise BusError(f"{endpoint.port}: the port does not take {endpoint.settings}") from error
    with contextlib.suppress(ValueError, OSError):  # USB adapters collect bytes for 16 ms unless told not to
        port.set_low_latency_mode(True)
    return port


def _close_unwanted(opening: asyncio.Task[Serial]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _why(error: SerialException) -> str:
    cause = error.__context__
    if isinstance(cause, termios.error) and cause.args[0] == errno.ENOTTY:
        return "not a serial port"
    return "in use by another program" if error.errno == errno.EAGAIN else reason(error)
