"""Writes the ledger: one batch, one transaction. Blocking; lives in one thread, which owns the connection."""

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coordinator import ledgerrows
from coordinator.ledgernames import NameBook
from coordinator.ledgerschema import open_for_writing
from coordinator.records import AckRow, CommandRow, EffectRow, EventRow, StepCommit, Tombstone
from coordinator.stream import SampleBatch, StreamBooks, StreamKey
from hil.intervals import Intervals
from hil.wire import NodeState


@dataclass(slots=True)
class Batch:
    """What goes to disk together, in the order in which it came.

    ``steps`` come with how many samples of this batch were in before them. Books and node states replace older ones.
    """

    samples: list[SampleBatch] = field(default_factory=list)
    sample_count: int = 0
    tombstones: list[Tombstone] = field(default_factory=list)
    books: dict[StreamKey, StreamBooks] = field(default_factory=dict)
    nodes: dict[str, NodeState] = field(default_factory=dict)
    steps: list[tuple[StepCommit, int]] = field(default_factory=list)
    commands: list[CommandRow] = field(default_factory=list)
    acks: list[AckRow] = field(default_factory=list)
    effects: list[EffectRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)


_SAMPLE: Final = """INSERT INTO sample
  (stream, seq, meter, t_us, power_w, energy_j, energy_epoch, quality, hist, arrived_us)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_TOMBSTONE: Final = "INSERT INTO tombstone (stream, first, last, why) VALUES (?, ?, ?, ?)"
_BOOKS: Final = "UPDATE stream SET settled = ?, committed = ?, duplicates = ?, lost = ? WHERE id = ?"
_NODE: Final = "INSERT OR REPLACE INTO node_books VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_STEP: Final = "INSERT INTO step VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INPUT: Final = "INSERT INTO step_input VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_TIME: Final = "INSERT INTO step_time VALUES (?, ?, ?, ?, ?)"
_SIGNAL: Final = "INSERT INTO signal VALUES (?, ?, ?)"
_SNAPSHOT: Final = "INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?)"
_COMMAND: Final = """INSERT INTO command
  (command_id, node, actuator, action, limit_w, profile, renews, microgrid, k, t_us, real_t_us, message)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (command_id) DO NOTHING"""
_EVENT: Final = "INSERT INTO event (t_us, real_t_us, k, microgrid, kind, detail) VALUES (?, ?, ?, ?, ?, ?)"
_ACK: Final = """INSERT INTO ack
  (command_id, node, state, code, real_t_us, latency_ms, message) VALUES (?, ?, ?, ?, ?, ?, ?)"""
_EFFECT: Final = "INSERT INTO effect (command_id, effect, measured_w, real_t_us) VALUES (?, ?, ?, ?)"
_META: Final = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


class LedgerWriter:
    """The one writer of a run's ledger. Make it in the thread that will write. Raises LedgerError."""

    def __init__(self, path: Path) -> None:
        self._connection = open_for_writing(path)
        self._names = NameBook(self._connection)
        (newest,) = self._connection.execute("SELECT max(id) FROM sample").fetchone()
        self._sample_id: int = newest or 0

    def stream_books(self) -> list[StreamBooks]:
        """The books of every stream, as they are on disk."""
        return read_stream_books(self._connection)

    def write(self, batch: Batch) -> None:
        """Put a batch on disk, all of it or, with an error from sqlite3, nothing; it may then be tried again."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._insert(connection, batch)
            books = [ledgerrows.books_row(self._names, books) for books in batch.books.values()]
            self._names.write(connection)  # after everything that may use a new one
            connection.executemany(_BOOKS, books)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                with suppress(sqlite3.Error):  # the error that brought us here says more
                    connection.execute("ROLLBACK")
        self._names.written()
        self._sample_id += batch.sample_count

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        with suppress(sqlite3.OperationalError):  # a reader or a full disk: the next opening does it
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def _insert(self, connection: sqlite3.Connection, batch: Batch) -> None:
        names = self._names
        for samples in batch.samples:
            connection.executemany(_SAMPLE, ledgerrows.sample_rows(names, samples))
        connection.executemany(_TOMBSTONE, [ledgerrows.tombstone_row(names, row) for row in batch.tombstones])
        connection.executemany(_NODE, [ledgerrows.node_row(names, *item) for item in batch.nodes.items()])
        for commit, samples_before in batch.steps:
            self._insert_step(connection, commit, self._sample_id + samples_before)
        self._insert_facts(connection, batch.commands, batch.events)
        connection.executemany(_ACK, [ledgerrows.ack_row(names, row) for row in batch.acks])
        connection.executemany(_EFFECT, [ledgerrows.effect_row(row) for row in batch.effects])
        connection.executemany(_META, batch.meta.items())

    def _insert_step(self, connection: sqlite3.Connection, commit: StepCommit, sample_id: int) -> None:
        k = commit.k
        connection.executemany(_STEP, [ledgerrows.step_row(self._names, k, row) for row in commit.rows])
        for row in commit.rows:
            connection.executemany(_INPUT, ledgerrows.input_rows(self._names, k, row))
        connection.execute(_TIME, ledgerrows.time_row(commit.time, sample_id))
        connection.executemany(_SIGNAL, [(k, row.name, row.value) for row in commit.signals])
        connection.execute(_SNAPSHOT, (k, commit.snapshot))
        self._insert_facts(connection, commit.commands, commit.events)

    def _insert_facts(
        self, connection: sqlite3.Connection, commands: Iterable[CommandRow], events: Iterable[EventRow]
    ) -> None:
        connection.executemany(_COMMAND, [ledgerrows.command_row(self._names, row) for row in commands])
        connection.executemany(_EVENT, [ledgerrows.event_row(self._names, row) for row in events])


def read_stream_books(connection: sqlite3.Connection) -> list[StreamBooks]:
    """The books of every stream in the file, in the order in which the streams were first heard."""
    rows = connection.execute(
        "SELECT node.name, stream.name, settled, committed, duplicates, stream.lost "
        "FROM stream JOIN node ON node.id = stream.node ORDER BY stream.id"
    )
    return [
        StreamBooks(node, stream, Intervals.decode(settled).ranges, *counts) for node, stream, settled, *counts in rows
    ]
