"""The folder in which an agent keeps what must outlive it, and the rule that one agent at a time uses it."""

import logging
from pathlib import Path

from hil.clock import Clock
from hil.durable import write_durably
from hil.processlock import LockHeld, ProcessLock
from hil.units import MICROSECONDS_PER_SECOND

log = logging.getLogger(__name__)


class StateDirError(Exception):
    """The folder cannot be used; the text says why and what helps."""


class StateDir:
    """The agent's state folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = ProcessLock(path / "agent.pid")

    @property
    def leases(self) -> Path:
        """The database of commands and of settings to restore."""
        return self.path / "lease.db"

    @property
    def switch(self) -> Path:
        """The file whose presence puts a person on this machine in charge of its limits."""
        return self.path / "lock"

    @property
    def window(self) -> Path:
        """The socket at which a running agent tells how it stands."""
        return self.path / "agent.sock"

    def acquire(self) -> None:
        """Keep other agents out until ``release`` or the end of the process. Raises StateDirError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock.acquire()
        except LockHeld as error:
            holder = f"process {error.holder}"
            raise StateDirError(f"{self.path} is in use by another agent, {holder}; stop it first") from error
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}"
            raise StateDirError(f"{reason}; name a folder that can be written in state_dir") from error

    def release(self) -> None:
        """Let others in; harmless when repeated."""
        self._lock.release()

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
            write_durably(path, f"{session}\n")
        except OSError as error:  # a full disk: the time alone has to do
            log.warning("%s: %s; the session number is not stored", path, error.strerror)
        return session
