"""The folder in which an agent keeps what must outlive it, and the rule that one agent at a time uses it."""

import fcntl
import logging
import os
from pathlib import Path
from typing import IO

from hil.clock import Clock
from hil.units import MICROSECONDS_PER_SECOND

log = logging.getLogger(__name__)


class StateDirError(Exception):
    """The folder cannot be used; the text says why and what helps."""


class StateDir:
    """The agent's state folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def leases(self) -> Path:
        """The database of commands and of settings to restore."""
        return self.path / "lease.db"

    @property
    def switch(self) -> Path:
        """The file whose presence puts a person on this machine in charge of its limits."""
        return self.path / "lock"

    def acquire(self) -> None:
        """Keep other agents out until ``release`` or the end of the process. Raises StateDirError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self.path / "agent.pid").open("a+", encoding="ascii")
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}"
            raise StateDirError(f"{reason}; name a folder that can be written in state_dir") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise StateDirError(f"{self.path} is in use by another agent, process {holder}; stop it first") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Let others in; harmless when repeated."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def next_session(self, clock: Clock) -> int:
        """A number higher than in any earlier life, on disk before it is used.

        It is at least the time in seconds since 1970, so that it rises even where the folder was emptied.
        """
        path = self.path / "session"
        try:
            before = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            before = 0
        session = max(before + 1, clock.wall_us() // MICROSECONDS_PER_SECOND)
        try:
            self._store(path, session)
        except OSError as error:  # a full disk: the time alone has to do
            log.warning("%s: %s; the session number is not stored", path, error.strerror)
        return session

    def _store(self, path: Path, session: int) -> None:
        fresh = path.with_suffix(".new")
        with fresh.open("w", encoding="ascii") as file:
            file.write(f"{session}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
