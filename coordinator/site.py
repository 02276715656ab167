"""A site's own state: who may coordinate it, and how often it was coordinated before."""

from pathlib import Path

from hil.durable import write_durably
from hil.processlock import LockHeld, ProcessLock

EXPECTED = "expected a whole number"


class SiteError(Exception):
    """The site cannot be coordinated from here; the text says why and what helps."""


class Site:
    """The folder in which a site's start counter lives; it belongs to the site, not to a run.

    ``acquire`` keeps a second coordinator on this machine out; ``next_epoch`` counts starts, on disk before it is used.
    """

    def __init__(self, state_dir: Path, name: str) -> None:
        self._dir = state_dir
        self._epoch = state_dir / f"{name}.epoch"
        self._lock = ProcessLock(state_dir / f"{name}.lock")

    def acquire(self) -> None:
        """Hold the site until ``release`` or the process ends. Raises SiteError when another process holds it."""
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except LockHeld as error:
            raise SiteError(
                f"another coordinator of this site runs here, process {error.holder}; stop it first"
            ) from error
        except OSError as error:
            raise SiteError(f"{error.filename}: {error.strerror}; choose another folder with --state-dir") from error

    def release(self) -> None:
        """Let go of the site; harmless when repeated."""
        self._lock.release()

    def next_epoch(self, seen: int) -> int:
        """One more than the highest epoch that this site or any of its agents (``seen``) knows; fsynced."""
        epoch = max(self._read(), seen) + 1
        write_durably(self._epoch, f"{epoch}\n")
        return epoch

    def _read(self) -> int:
        try:
            return int(self._epoch.read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise SiteError(f"{self._epoch}: {EXPECTED}; remove it to start from what the agents know") from error
