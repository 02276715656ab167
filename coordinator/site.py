"""A site's own state: who may coordinate it, and how often it was coordinated before."""

import fcntl
import os
from pathlib import Path
from typing import IO

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
        self._lock_path = state_dir / f"{name}.lock"
        self._lock: IO[str] | None = None

    def acquire(self) -> None:
        """Hold the site until ``release`` or the process ends. Raises SiteError when another process holds it."""
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            lock = self._lock_path.open("a+", encoding="ascii")
        except OSError as error:
            raise SiteError(f"{error.filename}: {error.strerror}; choose another folder with --state-dir") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise SiteError(f"another coordinator of this site runs here, process {holder}; stop it first") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Let go of the site; harmless when repeated."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def next_epoch(self, seen: int) -> int:
        """One more than the highest epoch that this site or any of its agents (``seen``) knows; fsynced."""
        epoch = max(self._read(), seen) + 1
        fresh = self._epoch.with_suffix(".epoch.new")
        with fresh.open("w", encoding="ascii") as file:
            file.write(f"{epoch}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._epoch)
        folder = os.open(self._dir, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return epoch

    def _read(self) -> int:
        try:
            return int(self._epoch.read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise SiteError(f"{self._epoch}: {EXPECTED}; remove it to start from what the agents know") from error
