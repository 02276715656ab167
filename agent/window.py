"""The agent's window: a socket in its state folder at which people on this machine see how it stands.

Whoever connects is handed one report as JSON and is sent away; nothing can be said through it, so that looking never
disturbs the agent. The folder is the agent's alone: its user and root may look, nobody else.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from agent.report import NodeReport
from hil.oserrors import reason

PATIENCE_S: Final = 2.0
MAX_REPORT_BYTES: Final = 1 << 20

_log = logging.getLogger(__name__)


class WindowShut(Exception):
    """An agent has its window here, but what came through it is no report; the text says what happened."""


class Window:
    """Hands out reports. The constructor only stores; ``open`` acts."""

    def __init__(self, path: Path, report: Callable[[], Awaitable[NodeReport]]) -> None:
        self._path = path
        self._report = report
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to answer; where the folder takes no sockets, say so once and go without."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            self._path.unlink(missing_ok=True)  # left by an earlier life: the folder is locked, so nobody uses it
            with _short(self._path) as address:
                listener.bind(address)
            self._server = await asyncio.start_unix_server(self._answer, sock=listener)
        except OSError as error:
            listener.close()
            _log.warning("%s: %s; `wattloop-agent status` will not work", self._path, reason(error))

    async def close(self) -> None:
        """Answer nobody any more; harmless when repeated."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._path.unlink(missing_ok=True)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):  # one who leaves early, or does not read
            async with asyncio.timeout(PATIENCE_S):
                writer.write(msgspec.json.encode(await self._report()))
                await writer.drain()
        writer.close()


def look(path: Path) -> NodeReport | None:
    """The report of the agent whose window is at ``path``; None where no agent runs.

    Raises WindowShut, and PermissionError where the folder belongs to another user.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        try:
            with _short(path) as address:
                connection.connect(address)
            return msgspec.json.decode(_read(connection), type=NodeReport)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except TimeoutError as error:
            raise WindowShut(f"an agent runs, but has not answered for {PATIENCE_S:g} s") from error
        except msgspec.DecodeError as error:
            raise WindowShut(f"an agent runs, but of another version or just ending: {error}") from error


def _read(connection: socket.socket) -> bytes:
    received = bytearray()
    while (chunk := connection.recv(65_536)) and len(received) < MAX_REPORT_BYTES:
        received += chunk
    return bytes(received)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """An address for a socket whose path may be longer than the 107 bytes that unix(7) leaves for one."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
