"""A connection to the control socket of the emulated world."""

import asyncio
from contextlib import suppress

from hil.emulated.messages import MAX_LINE, Answer, MessageError, Request, decode_answer, encode
from hil.oserrors import reason


class ControlUnavailable(Exception):
    """No answer came; says why. The next request may be answered."""


class ControlRefused(Exception):
    """The request was understood and not done; says why."""


class ControlClient:
    """One connection, opened at the first request and kept; one request at a time."""

    def __init__(self, host: str, port: int, timeout_s: float = 1.0) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._one_at_a_time = asyncio.Lock()
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, request: Request) -> Answer:
        """The answer to a request. Raises ControlUnavailable or ControlRefused."""
        async with self._one_at_a_time:
            answer = await self._answered(request)
        if answer.error is not None:
            raise ControlRefused(answer.error)
        return answer

    async def close(self) -> None:
        """Close the connection; harmless when repeated, and the next request opens another."""
        writer = self._drop()
        if writer is not None:
            with suppress(OSError):
                await writer.wait_closed()

    def _drop(self) -> asyncio.StreamWriter | None:
        if self._stream is None:
            return None
        _, writer = self._stream
        self._stream = None
        writer.close()
        return writer

    async def _answered(self, request: Request) -> Answer:
        where = f"{self._host}:{self._port}"
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._exchange(request)
                except (OSError, EOFError):
                    if self._stream is None:  # not even a connection
                        raise
                    # A kept connection may have died unnoticed; every request may safely be sent twice.
                    self._drop()
                    return await self._exchange(request)
        except TimeoutError as error:
            self._drop()
            raise ControlUnavailable(f"no answer from {where} within {self._timeout_s:g} s") from error
        except OSError as error:
            self._drop()
            raise ControlUnavailable(f"no connection to {where}: {reason(error)}") from error
        except EOFError as error:
            self._drop()
            raise ControlUnavailable(f"{where} closed the connection") from error
        except MessageError as error:
            self._drop()
            raise ControlUnavailable(f"{where} does not speak this protocol: {error}") from error
        except asyncio.CancelledError:
            self._drop()  # an answer under way would be taken for the next request's
            raise

    async def _exchange(self, request: Request) -> Answer:
        if self._stream is None:
            self._stream = await asyncio.open_connection(self._host, self._port, limit=MAX_LINE)  # sets TCP_NODELAY
        reader, writer = self._stream
        writer.write(encode(request))
        await writer.drain()
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            raise MessageError("an endless line") from error
        return decode_answer(line)
