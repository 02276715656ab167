"""Starts the console scripts as processes of their own, watches over them, and leaves none behind.

A rig never imports what it starts: it proves the installed commands. Each part runs in its own process group, dies with
the rig (``hil.tether``), and writes its output to a file of the rig's folder.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hil.tether import tethered

TERM_S: Final = 2.0
TAIL_LINES: Final = 8


class RigError(Exception):
    """A part did not start, or ended when it should not have; carries the end of what it said."""


@dataclass(slots=True)
class Part:
    """One running process."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.status is None

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self.process.returncode

    def tail(self) -> str:
        """The last lines of its output."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])


class Rig:
    """A set of processes; use ``async with``, or call ``stop`` on every way out."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._parts: list[Part] = []

    async def __aenter__(self) -> "Rig":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, name: str, argv: Sequence[str | Path], *, stdout: Path | None = None) -> Part:
        """Start ``argv`` as a part; output goes to ``logs/<name>.log``, stdout to ``stdout`` if that is given."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        with contextlib.ExitStack() as files:
            err = files.enter_context(log.open("ab"))
            out = files.enter_context(stdout.open("wb")) if stdout else err
            process = await asyncio.create_subprocess_exec(
                *tethered([str(word) for word in argv]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        part = Part(name, process, log)
        self._parts.append(part)
        return part

    async def wait_file(self, part: Part, path: str | os.PathLike[str], timeout_s: float) -> None:
        """Return once ``path`` exists. Raises RigError if the part ends or time runs out first."""
        deadline = time.monotonic() + timeout_s
        while not os.access(path, os.F_OK):
            if not part.running:
                raise RigError(f"{part.name} ended with status {part.status}:\n{part.tail()}")
            if time.monotonic() > deadline:
                raise RigError(f"{part.name} was not ready after {timeout_s:g} s:\n{part.tail()}")
            await asyncio.sleep(0.02)

    async def first_end(self) -> Part:
        """The first part that ends."""
        waits = {asyncio.ensure_future(part.process.wait()): part for part in self._parts if part.running}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return waits[done.pop()]

    async def end(self, part: Part, timeout_s: float = TERM_S) -> int:
        """Ask a part to end, make it end if it does not, and give its exit status."""
        if part.running:
            _signal(part, signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout_s):
                await part.process.wait()
        except TimeoutError:
            _signal(part, signal.SIGKILL)
            await part.process.wait()
        _signal(part, signal.SIGKILL)  # what it may have started and left in its group
        return part.process.returncode or 0

    async def stop(self) -> None:
        """End every part, all at once."""
        await asyncio.gather(*(self.end(part) for part in self._parts))
        self._parts.clear()


def script(name: str) -> Path:
    """The console script installed beside this interpreter. Raises RigError where there is none."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise RigError(f"{path} is missing: install the whole of wattloop into this environment")
    return path


def _signal(part: Part, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(part.process.pid, number)
