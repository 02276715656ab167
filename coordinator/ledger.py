"""The ledger: everything a run measured, decided and did, on disk in one file that any SQLite tool opens.

Facts are handed over on the event loop and put on disk in groups by one writer thread. Samples and other facts wait up
to 50 ms for company. A step goes at once, and takes with it all that was handed over before; so does a crowd of
samples. A group is one fsynced transaction: all of it is on disk, or nothing. Only then do the awaitables resolve and
``on_commit`` listeners hear.

A full or failing disk stops nothing. The group is tried again until it is in, listeners of ``on_fault`` hear once that
it fails and once that it works again; meanwhile facts are kept in memory up to a limit and refused beyond it. Samples
that were refused or not yet committed are not acknowledged: their agents keep them.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coordinator.ledgerschema import LedgerError, ledger_file
from coordinator.ledgerwriter import Batch, LedgerWriter
from coordinator.records import AckRow, CommandRow, EffectRow, EventRow, StepCommit, Tombstone
from coordinator.stream import SampleBatch, StreamBooks
from hil.clock import Clock
from hil.wire import NodeState

log = logging.getLogger(__name__)

GROUP_S: Final = 0.05
GROUP_SAMPLES: Final = 5_000
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 5.0
CLOSE_TRIES: Final = 3
MAX_SAMPLES: Final = 100_000
MAX_FACTS: Final = 200_000

# What a disk does to a program: worth trying again. Anything else is a fault in the file or in us, and is not.
_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
    }
)

CommitListener = Callable[[Collection[StreamBooks]], None]
FaultListener = Callable[[str | None], None]


class LedgerFull(LedgerError):
    """The disk has failed for so long that the memory kept for it is full; what was offered is not taken."""


@dataclass(slots=True)
class LedgerCounters:
    """What a ledger has done in this life; ``refused`` are facts and samples turned away while it was full."""

    commits: int = 0
    samples: int = 0
    steps: int = 0
    failures: int = 0
    refused: int = 0
    last_commit_s: float = 0.0
    max_commit_s: float = 0.0


class Ledger:
    """A run's ledger, written by this process. ``run_dir`` holds the file, ``ledger.db``.

    ``max_samples`` and ``max_facts`` bound what is kept in memory while the disk fails.
    """

    def __init__(
        self, run_dir: Path, clock: Clock, *, max_samples: int = MAX_SAMPLES, max_facts: int = MAX_FACTS
    ) -> None:
        self.counters = LedgerCounters()
        self._max_samples = max_samples
        self._max_facts = max_facts
        self._path = ledger_file(run_dir)
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._writer: LedgerWriter | None = None
        self._books: list[StreamBooks] = []
        self._open = Batch()
        self._waiting: list[asyncio.Future[None]] = []
        self._samples = 0  # taken and not yet on disk
        self._facts = 0
        self._taken = asyncio.Event()
        self._hurried = False
        self._closing = False
        self._pause: asyncio.Task[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._fault: str | None = None
        self._dead: LedgerError | None = None
        self._on_commit: list[CommitListener] = []
        self._on_fault: list[FaultListener] = []

    # --- life ---------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make or open the file. Raises LedgerError: no permission, another program's file, a newer schema."""
        loop = asyncio.get_running_loop()
        try:
            self._writer = await loop.run_in_executor(self._thread, LedgerWriter, self._path)
            self._books = await loop.run_in_executor(self._thread, self._writer.stream_books)
        except (sqlite3.Error, ValueError) as error:
            raise LedgerError(f"{self._path}: damaged: {error}") from error
        self._pump = asyncio.create_task(self._run(self._writer), name="ledger")

    async def close(self) -> None:
        """Put on disk what was handed over and let go of the file; harmless when repeated. Gives up on a dead disk."""
        self._closing = True
        if self._pump is not None:
            self._hurry()
            await self._pump
            self._pump = None
            self._dead = self._dead or LedgerError(f"{self._path}: closed")
        if self._writer is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.close)
            self._writer = None
        self._thread.shutdown()

    def on_commit(self, listener: CommitListener) -> None:
        """Call ``listener`` on the event loop after each commit with the books of the streams that it moved."""
        self._on_commit.append(listener)

    def on_fault(self, listener: FaultListener) -> None:
        """Call ``listener`` with the reason when commits begin to fail, and with None when they work again."""
        self._on_fault.append(listener)

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def stream_books(self) -> list[StreamBooks]:
        """The books of all streams as they were when the ledger was opened."""
        return self._books

    @property
    def fault(self) -> str | None:
        """Why commits fail at present; None while they work."""
        return self._fault

    @property
    def waiting_samples(self) -> int:
        """How many samples are taken and not yet on disk: the back-pressure."""
        return self._samples

    @property
    def full(self) -> bool:
        """Whether samples are refused, because too many wait for a failing disk."""
        return self._samples >= self._max_samples

    # --- facts --------------------------------------------------------------------------------------------------------

    def record_samples(
        self, samples: Iterable[SampleBatch], tombstones: Iterable[Tombstone], books: Iterable[StreamBooks]
    ) -> None:
        """Take new samples, what agents declared lost, and the books of their streams with both. Raises LedgerError."""
        if self.full or self._dead is not None:
            self.counters.refused += 1
            raise self._refusal()
        batch = self._open
        for sample_batch in samples:
            batch.samples.append(sample_batch)
            batch.sample_count += len(sample_batch.records)
            self._samples += len(sample_batch.records)
        batch.tombstones.extend(tombstones)
        batch.books.update((book.key, book) for book in books)
        self._taken.set()
        if batch.sample_count >= GROUP_SAMPLES:
            self._hurry()

    def commit_step(self, commit: StepCommit) -> asyncio.Future[None]:
        """Put a step on disk at once; done when it is there. Raises LedgerError."""
        if not self._has_room(_facts_of_step(commit)):
            raise self._refusal()
        self._open.steps.append((commit, self._open.sample_count))
        self._hurry()
        return self._promise()

    def record_command(self, row: CommandRow) -> asyncio.Future[None]:
        """Put a command on disk at once, before it is sent; done when it is there. Raises LedgerError."""
        if not self._has_room():
            raise self._refusal()
        self._open.commands.append(row)
        self._hurry()
        return self._promise()

    def record_ack(self, row: AckRow) -> None:
        """Take an agent's word on a command; dropped and counted while the ledger is full."""
        if self._has_room():
            self._open.acks.append(row)

    def record_effect(self, row: EffectRow) -> None:
        """Take what the meter showed of a limit; dropped and counted while the ledger is full."""
        if self._has_room():
            self._open.effects.append(row)

    def record_event(self, row: EventRow) -> None:
        """Take an event that belongs to no step; dropped and counted while the ledger is full."""
        if self._has_room():
            self._open.events.append(row)

    def record_node_books(self, node: str, state: NodeState) -> None:
        """Take what an agent says of itself; the newest stays."""
        self._open.nodes[node] = state
        self._taken.set()

    def set_meta(self, key: str, value: str) -> None:
        """Take a fact about the run as a whole; the newest stays."""
        self._open.meta[key] = value
        self._taken.set()

    async def flush(self) -> None:
        """Return when everything handed over so far is on disk. Raises LedgerError if that can never be."""
        if self._dead is not None:
            raise self._dead
        self._hurry()
        await self._promise()

    def _has_room(self, facts: int = 1) -> bool:
        if self._dead is not None or self._facts >= self._max_facts:
            self.counters.refused += 1
            return False
        self._facts += facts
        self._taken.set()
        return True

    def _promise(self) -> asyncio.Future[None]:
        # One for each caller: a caller that is cancelled takes nobody else's along.
        promise: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(promise)
        return promise

    def _refusal(self) -> LedgerError:
        waiting = f"{self._samples} samples and {self._facts} other facts wait for the disk"
        return self._dead or LedgerFull(f"{self._path}: {waiting}: {self._fault}")

    # --- the pump -----------------------------------------------------------------------------------------------------

    async def _run(self, writer: LedgerWriter) -> None:
        try:
            while not (self._closing and not self._taken.is_set()):
                await self._gather()
                await self._commit_group(writer)
        except Exception as error:  # supervised: a fault in us or the file must reach every waiter
            lost = f"{self._samples} samples and {self._facts} other facts are not on disk"
            log.critical("%s: %s; %s", self._path, error, lost, exc_info=not isinstance(error, sqlite3.Error))
            self._dead = LedgerError(f"{self._path}: {error}")
            _fail(self._waiting, self._dead)

    async def _gather(self) -> None:
        await self._taken.wait()
        if not self._hurried:
            await self._wait(GROUP_S)

    async def _commit_group(self, writer: LedgerWriter) -> None:
        batch, self._open = self._open, Batch()
        promises, self._waiting = self._waiting, []
        self._taken.clear()
        self._hurried = False
        try:
            await self._write(writer, batch)
        except BaseException as error:
            _fail(promises, LedgerError(f"{self._path}: {error}"))
            raise
        self._samples -= batch.sample_count
        self._facts -= _facts_of(batch)
        self.counters.samples += batch.sample_count
        self.counters.steps += len(batch.steps)
        for promise in promises:
            if not promise.done():
                promise.set_result(None)
        for listener in self._on_commit:
            listener(batch.books.values())

    async def _write(self, writer: LedgerWriter, batch: Batch) -> None:
        loop = asyncio.get_running_loop()
        retry_s = RETRY_MIN_S
        tries = 0
        while True:
            started = self._clock.monotonic()
            try:
                await loop.run_in_executor(self._thread, writer.write, batch)
                break
            except sqlite3.OperationalError as error:
                tries += 1
                self.counters.failures += 1
                if not _passing(error) or (self._closing and tries >= CLOSE_TRIES):
                    raise
                self._failing(str(error))
            await self._wait(retry_s)
            retry_s = min(RETRY_MAX_S, retry_s * 2.0)
        self._working(tries)
        self.counters.commits += 1
        self.counters.last_commit_s = self._clock.monotonic() - started
        self.counters.max_commit_s = max(self.counters.max_commit_s, self.counters.last_commit_s)

    async def _wait(self, seconds: float) -> None:
        self._pause = asyncio.create_task(self._clock.sleep_until(self._clock.monotonic() + seconds))
        try:
            await asyncio.wait({self._pause})
        finally:
            self._pause.cancel()
            self._pause = None

    def _hurry(self) -> None:
        self._hurried = True
        self._taken.set()
        # A step must not wait for company; but it is no reason to press a disk that fails.
        if self._pause is not None and (self._fault is None or self._closing):
            self._pause.cancel()

    def _failing(self, reason: str) -> None:
        if self._fault is None:
            log.error("%s: commits fail, trying on: %s", self._path, reason)
            self._tell(reason)

    def _working(self, tries: int) -> None:
        if self._fault is not None:
            log.warning("%s: commits work again after %d tries", self._path, tries)
            self._tell(None)

    def _tell(self, reason: str | None) -> None:
        self._fault = reason
        for listener in self._on_fault:
            listener(reason)


def _passing(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _PASSING


def _facts_of_step(commit: StepCommit) -> int:
    facts = len(commit.commands) + len(commit.events) + len(commit.signals)
    return 1 + facts + sum(1 + len(row.inputs) for row in commit.rows)


def _facts_of(batch: Batch) -> int:
    steps = sum(_facts_of_step(commit) for commit, _ in batch.steps)
    return steps + len(batch.commands) + len(batch.acks) + len(batch.effects) + len(batch.events)


def _fail(promises: Iterable[asyncio.Future[None]], error: LedgerError) -> None:
    for promise in promises:
        if not promise.done():
            promise.set_exception(error)
            promise.exception()  # logged once by the pump; a caller that does not wait needs no second word
