"""What must survive a crash: answers to commands, the fences of each issuer, and how to undo every write to a device.

One SQLite file, one worker thread. A change is one transaction; a *durable* one is on the disk when ``write`` returns
(one fsync), the others survive the death of the process but not of the machine, and reach the disk with the next
durable one.
"""

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from agent.gate import Fence
from agent.worker import Thread, Worker
from hil.wire import TERMINAL, Ack, WireError, decode, encode

ANSWERS_KEPT: Final = 1024
TIDY_EVERY: Final = 200

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answers (
  n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, refused INTEGER NOT NULL, terminal INTEGER NOT NULL,
  settled INTEGER NOT NULL DEFAULT 0, ack BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS fences (issuer TEXT PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS undo (actuator TEXT PRIMARY KEY, snapshot TEXT NOT NULL) WITHOUT ROWID;
"""
_SAVE_ANSWER: Final = """
INSERT INTO answers (id, refused, terminal, ack) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET terminal = excluded.terminal, settled = 0, ack = excluded.ack
"""
_PRUNE: Final = """
DELETE FROM answers WHERE refused = ?1 AND terminal AND n <= (
  SELECT n FROM answers WHERE refused = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2)
"""
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

T = TypeVar("T")
_log = logging.getLogger(__name__)


class StoreFailed(Exception):
    """The store could not be read or written; says the file and the reason."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The newest answer to a command. ``refused``: never acted upon. ``settled``: the broker surely has it."""

    ack: Ack
    refused: bool
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """What an earlier life left, answers oldest first."""

    answers: list[Answered] = field(default_factory=list)
    fences: dict[str, Fence] = field(default_factory=dict)
    undo: dict[str, str] = field(default_factory=dict)

    @property
    def unfinished(self) -> list[Answered]:
        """The answers that are not terminal."""
        return [answered for answered in self.answers if answered.ack.state not in TERMINAL]


@dataclass(frozen=True, slots=True)
class Change:
    """One transaction: answers to keep, a fence to raise, undo snapshots to remember or forget by actuator."""

    answers: tuple[Answered, ...] = ()
    fence: tuple[str, Fence] | None = None
    remember: tuple[str, str] | None = None
    forget: str | None = None
    settled: tuple[str, ...] = ()
    durable: bool = True


def _own_thread() -> Worker:
    return Thread("lease-store")


class LeaseStore:
    """The store in one file, worked on by one ``worker``. The constructor only stores; ``open`` acts."""

    def __init__(self, path: Path, worker: Callable[[], Worker] = _own_thread) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._new_worker = worker
        self._worker: Worker | None = None
        self._writes = 0

    async def open(self) -> Memory:
        """Everything remembered. A damaged file is moved aside and what can be read of it kept. Raises StoreFailed."""
        if self._worker is None:
            self._worker = self._new_worker()
        return await self._do(self._open)

    async def write(self, change: Change) -> None:
        """Commit one change. Raises StoreFailed, and then nothing of it is kept."""
        await self._do(lambda: self._write(change))
        self._writes += 1
        if self._writes % TIDY_EVERY == 0 and self._worker is not None:
            self._worker.do(self._tidy)  # after the write, so that no command waits for it

    async def close(self) -> None:
        """Close the file; harmless when repeated or before ``open``."""
        if self._worker is None:
            return
        await self._do(self._close)
        self._worker.stop()
        self._worker = None

    async def _do(self, work: Callable[[], T]) -> T:
        if self._worker is None:
            raise StoreFailed(f"{self._path}: not open")
        try:
            return await self._worker.do(work)
        except (sqlite3.Error, OSError) as error:
            raise StoreFailed(f"{self._path}: {error}") from error

    # --- in the worker thread -----------------------------------------------------------------------------------------

    def _open(self) -> Memory:
        try:
            self._connection = self._connect()
            return _load(self._connection)
        except sqlite3.DatabaseError as error:
            if (error.sqlite_errorcode & 0xFF) not in _DAMAGED:
                raise
            return self._replace(error)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # checkpoints wait for a quiet moment, see _tidy
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _replace(self, error: sqlite3.DatabaseError) -> Memory:
        self._close()
        memory = _salvage(self._path)
        aside = self._path.with_name(f"{self._path.name}.corrupt-{time.time_ns() // 1_000_000}")
        for suffix in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        _log.error(
            "%s is damaged (%s): moved to %s, kept %d answers, %d fences, %d undo entries",
            *(self._path, error, aside.name, len(memory.answers), len(memory.fences), len(memory.undo)),
        )
        self._connection = self._connect()
        self._transact(lambda connection: _save(connection, memory))
        return memory

    def _write(self, change: Change) -> None:
        if change.durable:
            self._transact(lambda connection: _apply(connection, change))
            return
        self._opened().execute("PRAGMA synchronous = NORMAL")
        try:
            self._transact(lambda connection: _apply(connection, change))
        finally:
            self._opened().execute("PRAGMA synchronous = FULL")

    def _transact(self, work: Callable[[sqlite3.Connection], None]) -> None:
        with self._opened() as connection:  # commits, or rolls back on any exception
            connection.execute("BEGIN IMMEDIATE")
            work(connection)

    def _tidy(self) -> None:
        try:
            for refused in (False, True):
                self._opened().execute(_PRUNE, (refused, ANSWERS_KEPT))
            self._opened().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:  # the file only grows; the writes themselves report what is wrong
            _log.debug("%s: not tidied: %s", self._path, error)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("not open")
        return self._connection


def peek(path: Path) -> Memory:
    """What a store holds, without opening it for work: nothing is changed. Raises StoreFailed."""
    # Without a write-ahead log nobody has it open, and a file that nobody may write to can be read, too.
    options = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)) as connection:
            return _load(connection)
    except sqlite3.Error as error:
        raise StoreFailed(f"{path}: {error}") from error


def _apply(connection: sqlite3.Connection, change: Change) -> None:
    _save_answers(connection, change.answers)
    if change.fence is not None:
        _save_fence(connection, *change.fence)
    if change.remember is not None:
        _save_undo(connection, *change.remember)
    if change.forget is not None:
        connection.execute("DELETE FROM undo WHERE actuator = ?", (change.forget,))
    for command_id in change.settled:
        connection.execute("UPDATE answers SET settled = 1 WHERE id = ?", (command_id,))


def _save(connection: sqlite3.Connection, memory: Memory) -> None:
    _save_answers(connection, tuple(memory.answers))
    for issuer, fence in memory.fences.items():
        _save_fence(connection, issuer, fence)
    for actuator, snapshot in memory.undo.items():
        _save_undo(connection, actuator, snapshot)


def _save_answers(connection: sqlite3.Connection, answers: tuple[Answered, ...]) -> None:
    for answered in answers:
        ack = answered.ack
        connection.execute(_SAVE_ANSWER, (ack.id, answered.refused, ack.state in TERMINAL, encode(ack)))


def _save_fence(connection: sqlite3.Connection, issuer: str, fence: Fence) -> None:
    connection.execute("INSERT OR REPLACE INTO fences VALUES (?, ?, ?)", (issuer, fence.epoch, fence.seq))


def _save_undo(connection: sqlite3.Connection, actuator: str, snapshot: str) -> None:
    connection.execute("INSERT OR REPLACE INTO undo VALUES (?, ?)", (actuator, snapshot))


def _load(connection: sqlite3.Connection) -> Memory:
    return Memory(_load_answers(connection), _load_fences(connection), _load_undo(connection))


def _load_answers(connection: sqlite3.Connection) -> list[Answered]:
    answers = []
    for refused, settled, ack in connection.execute("SELECT refused, settled, ack FROM answers ORDER BY n"):
        try:
            answers.append(Answered(decode(ack, Ack), bool(refused), bool(settled)))
        except WireError as error:
            _log.warning("an answer in the store cannot be read and is dropped: %s", error)
    return answers


def _load_fences(connection: sqlite3.Connection) -> dict[str, Fence]:
    rows = connection.execute("SELECT issuer, epoch, seq FROM fences")
    return {issuer: Fence(epoch, seq) for issuer, epoch, seq in rows}


def _load_undo(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT actuator, snapshot FROM undo").fetchall())


def _salvage(path: Path) -> Memory:
    """What can be read of a damaged file, table by table: losing the answers must not lose the way back."""

    def readable(load: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        try:
            return load(connection)
        except sqlite3.Error:
            return nothing

    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return Memory(readable(_load_answers, []), readable(_load_fences, {}), readable(_load_undo, {}))
    finally:
        connection.close()
