"""The spool's database: samples that the coordinator does not hold yet, on disk, in order, and bounded.

A stream gets a random name when it begins: with a new file, after damage, or where numbers that were published may have
been lost. Its sequence goes on over restarts, so that a gap is always visible. What had to go leaves a tombstone, which
is acknowledged like a sample.

Everything here blocks: it runs in the spool's worker thread. Any method may raise sqlite3.Error; none leaves a
transaction open.
"""

import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.sample import EnergyState, Sample
from agent.spool import schema
from agent.spool.accounts import Account, Books, StreamAccount
from agent.spool.row import Batch, Committed, Row, intact, place, position, record_of, row_of
from agent.spool.schema import PAGE_BYTES, transaction
from hil.intervals import Intervals
from hil.units import MICROSECONDS_PER_SECOND
from hil.wire import MAX_RECORDS, DataAck, Lost

DROP_SHARE: Final = 64


@dataclass(frozen=True, slots=True)
class SpoolBounds:
    """How much a spool keeps before it drops its oldest samples."""

    max_bytes: int
    max_age_s: float


def new_stream() -> str:
    """A name that no other stream has."""
    return secrets.token_hex(8)


class SpoolDatabase:
    """One spool database; without a path it lives in memory. ``generation`` is that of its first stream."""

    def __init__(self, path: Path | None, bounds: SpoolBounds, generation: int = 1) -> None:
        self._path = path
        self._bounds = bounds
        self._connection: sqlite3.Connection | None = None
        self._spooled = 0
        self._generation = generation
        self._stream = ""
        self._next_seq = 1

    @property
    def stream(self) -> str:
        """The name of the stream that new samples belong to."""
        return self._stream

    @property
    def end(self) -> int:
        """The position of the next sample."""
        return position(self._generation, self._next_seq)

    # --- opening and closing ------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the database, or create it. Raises sqlite3.DatabaseError where it holds anything but a sound spool."""
        self._connection = schema.connect(self._path)
        try:
            if schema.prepare(self._db):
                schema.create(self._db, self._generation, new_stream())
            self._look()
        except sqlite3.Error:
            self.close()
            raise
        except (TypeError, ValueError) as error:  # damage can put anything anywhere
            self.close()
            raise sqlite3.DatabaseError(f"unexpected content: {error}") from error

    def _look(self) -> None:
        generation, name, next_seq = self._db.execute(
            "SELECT generation, name, next_seq FROM stream ORDER BY generation DESC LIMIT 1"
        ).fetchone()
        self._generation, self._stream, self._next_seq = int(generation), str(name), int(next_seq)
        (newest,) = self._db.execute("SELECT max(position) FROM sample").fetchone()
        if newest is not None and newest >= self.end:
            raise sqlite3.DatabaseError("samples beyond the end of the stream")
        (lives,) = self._db.execute("SELECT count(*) FROM life").fetchone()
        if lives != 1 or not self.recount().balanced:
            raise sqlite3.DatabaseError("the books do not balance, or are not there")

    def close(self) -> None:
        """Close the database; harmless when repeated."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the spool is not open")
        return self._connection

    # --- lives and streams --------------------------------------------------------------------------------------------

    def begin_life(self, boot_id: str, *, safe: bool, numbered: int) -> int | None:
        """Note who writes now, and whether each of its commits outlives a power cut.

        ``numbered`` is the next number according to the account. Where the file is behind it, or a power cut hit
        commits that were not safe, numbers may have been published that the file does not know. They must never name
        other samples: the stream ends, a new one begins, and what is known to be missing (the result) is declared
        lost. None: the stream goes on.
        """
        before, was_safe = self._db.execute("SELECT boot_id, safe FROM life").fetchone()
        missing = max(0, numbered - self._next_seq)
        torn = missing > 0 or (not was_safe and before != boot_id)
        generation, name = self._generation + 1, new_stream()
        with transaction(self._db):
            self._db.execute("UPDATE life SET boot_id=?, safe=?", (boot_id, safe))
            if torn:
                self._number(self._next_seq, missing, "power_cut")
                self._add_stream(generation, name)
        if not torn:
            return None
        self._generation, self._stream, self._next_seq = generation, name, 1
        return missing

    def end_life(self) -> None:
        """Bring everything to the disk, and note that it is there."""
        self.set_sync("FULL")
        with transaction(self._db):
            self._db.execute("UPDATE life SET safe=1")

    def set_sync(self, mode: str) -> None:
        """How hard commits are pressed to the disk from now on: FULL, NORMAL or OFF."""
        self._db.execute(f"PRAGMA synchronous={mode}")

    def _add_stream(self, generation: int, name: str, next_seq: int = 1) -> None:
        self._db.execute("INSERT INTO stream VALUES (?, ?, ?)", (generation, name, next_seq))

    def _number(self, first: int, unstored: int, why: str, stored: int = 0) -> None:
        """Count numbers as given: to ``unstored`` samples that are gone, then to ``stored`` ones."""
        if unstored:
            low, high = position(self._generation, first), position(self._generation, first + unstored - 1)
            self._bury(low, high, why)
        generated = unstored + stored
        self._db.execute("UPDATE stream SET next_seq=? WHERE generation=?", (first + generated, self._generation))
        self._db.execute("UPDATE books SET generated=generated+?, lost=lost+?", (generated, unstored))

    # --- what comes in ------------------------------------------------------------------------------------------------

    def commit(
        self, samples: Sequence[Sample], now_us: int, unstored: int = 0, acks: Iterable[DataAck] = ()
    ) -> Committed:
        """Number the samples and store them in one transaction, dropping the oldest where the bounds demand it.

        ``unstored`` samples came before them and are gone: they get numbers and a tombstone. ``acks`` ride along.
        """
        first = self._next_seq + unstored
        records = [record_of(seq, sample) for seq, sample in enumerate(samples, start=first)]
        with transaction(self._db):
            acked = sum(self._acknowledge(ack) or 0 for ack in acks)
            rows = [row_of(self._generation, record) for record in records]
            self._db.executemany("INSERT INTO sample VALUES (?, ?, ?)", rows)
            self._store_energy(samples)
            self._number(self._next_seq, unstored, "backlog", stored=len(records))
            dropped = self._enforce_bounds(now_us)
        self._next_seq = first + len(records)
        self._spooled += len(records) - dropped - acked
        return Committed(self._stream, self._generation, records)

    def _store_energy(self, samples: Iterable[Sample]) -> None:
        newest = {sample.meter: sample.energy for sample in samples if sample.energy is not None}
        rows = [(meter, state.energy_j, state.epoch, state.device) for meter, state in newest.items()]
        self._db.executemany("INSERT OR REPLACE INTO energy VALUES (?, ?, ?, ?)", rows)

    def energies(self) -> list[tuple[str, EnergyState]]:
        """The energy of each meter as last committed."""
        rows = self._db.execute("SELECT meter, energy_j, epoch, device FROM energy")
        return [(meter, EnergyState(energy_j, epoch, bool(device))) for meter, energy_j, epoch, device in rows]

    def _enforce_bounds(self, now_us: int) -> int:
        dropped = 0
        while (why := self._excess(now_us)) is not None:
            count = self._drop_oldest(why)
            if not count:
                break
            dropped += count
        return dropped

    def _excess(self, now_us: int) -> str | None:
        if self._used_bytes() > self._bounds.max_bytes:
            return "spool_full"
        oldest = self._db.execute("SELECT position, crc, body FROM sample ORDER BY position LIMIT 1").fetchone()
        record = intact(*oldest) if oldest else None
        if record is not None and now_us - record.t_us > self._bounds.max_age_s * MICROSECONDS_PER_SECOND:
            return "too_old"
        return None

    def _used_bytes(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(pages - free) * PAGE_BYTES

    def _drop_oldest(self, why: str) -> int:
        count = self._spooled // DROP_SHARE + 1
        found = self._db.execute("SELECT position FROM sample ORDER BY position LIMIT ?", (count,)).fetchall()
        return self._declare_lost([at for (at,) in found], why)

    def _declare_lost(self, positions: Sequence[int], why: str) -> int:
        """Put tombstones in the place of rows, within a transaction; how many rows."""
        self._db.executemany("DELETE FROM sample WHERE position=?", [(at,) for at in positions])
        for first, last in Intervals((at, at) for at in positions):
            self._bury(first, last, why)
        self._db.execute("UPDATE books SET lost=lost+?", (len(positions),))
        return len(positions)

    def _bury(self, first: int, last: int, why: str) -> None:
        """Add a tombstone, or lengthen the one before it; within a transaction."""
        before = self._db.execute("SELECT max(first) FROM tombstone WHERE first < ?", (first,)).fetchone()
        longer = self._db.execute(
            "UPDATE tombstone SET last=? WHERE first=? AND last=? AND why=?", (last, *before, first - 1, why)
        )
        if not longer.rowcount:
            self._db.execute("INSERT INTO tombstone VALUES (?, ?, ?)", (first, last, why))

    # --- what goes out ------------------------------------------------------------------------------------------------

    def acknowledge(self, ack: DataAck) -> bool:
        """Delete what the coordinator holds; False for an ack that cannot be about this spool."""
        with transaction(self._db):
            acked = self._acknowledge(ack)
        self._spooled -= acked or 0
        return acked is not None

    def _acknowledge(self, ack: DataAck) -> int | None:
        found = self._db.execute("SELECT generation, next_seq FROM stream WHERE name=?", (ack.stream,)).fetchone()
        if found is None:
            return None
        generation, next_seq = found
        spans = [(1, ack.upto), *ack.have] if ack.upto else ack.have
        if any(not 1 <= first <= last < next_seq for first, last in spans):
            return None  # it speaks of samples that never were
        acked = sum(self._forget(position(generation, first), position(generation, last)) for first, last in spans)
        self._db.execute("UPDATE books SET acked=acked+?", (acked,))
        self._forget_streams()
        return acked

    def _forget(self, low: int, high: int) -> int:
        self._db.execute("DELETE FROM tombstone WHERE first >= ? AND last <= ?", (low, high))
        # One that was lengthened after it was sent lives on with what is not acknowledged of it.
        longer = "UPDATE tombstone SET first=? WHERE first BETWEEN ? AND ? AND last > ?"
        self._db.execute(longer, (high + 1, low, high, high))
        return self._db.execute("DELETE FROM sample WHERE position BETWEEN ? AND ?", (low, high)).rowcount

    def _forget_streams(self) -> None:
        older = self._db.execute("SELECT generation FROM stream WHERE generation < ?", (self._generation,)).fetchall()
        for (generation,) in older:
            if self._first_position(position(generation, 0), position(generation + 1, 0)) is None:
                self._db.execute("DELETE FROM stream WHERE generation=?", (generation,))

    def batch(self, after: int, before: int) -> Batch | None:
        """The oldest unacknowledged samples and tombstones of one stream between two positions, both excluded.

        A row that does not match its checksum becomes a tombstone here. None where nothing is left.
        """
        while (first := self._first_position(after, before)) is not None:
            generation, _ = place(first)
            end = min(before, position(generation + 1, 0))
            rows = self._db.execute(
                "SELECT position, crc, body FROM sample WHERE position > ? AND position < ? ORDER BY position LIMIT ?",
                (after, end, MAX_RECORDS),
            ).fetchall()
            found = [(row[0], intact(*row)) for row in rows]
            broken = [at for at, record in found if record is None]
            if broken:
                with transaction(self._db):
                    self._declare_lost(broken, "spool_corrupt")
                self._spooled -= len(broken)
                continue
            if len(rows) == MAX_RECORDS:
                end = rows[-1][0] + 1
            (name,) = self._db.execute("SELECT name FROM stream WHERE generation=?", (generation,)).fetchone()
            records = [record for _, record in found if record is not None]
            return Batch(name, generation, records, self._tombstones(after, end))
        return None

    def _first_position(self, after: int, before: int) -> int | None:
        sample = self._db.execute("SELECT min(position) FROM sample WHERE position > ?", (after,)).fetchone()
        tombstone = self._db.execute("SELECT min(first) FROM tombstone WHERE first > ?", (after,)).fetchone()
        return min((at for at in (*sample, *tombstone) if at is not None and at < before), default=None)

    def _tombstones(self, after: int, before: int) -> list[Lost]:
        rows = self._db.execute(
            "SELECT first, last, why FROM tombstone WHERE first > ? AND first < ? ORDER BY first LIMIT ?",
            (after, before, MAX_RECORDS),
        )
        return [Lost(place(first)[1], place(last)[1], why) for first, last, why in rows]

    # --- accounts -----------------------------------------------------------------------------------------------------

    def books(self) -> Books:
        """The accounts; ``spooled`` as kept since it was last counted."""
        generated, acked, lost = self._db.execute("SELECT generated, acked, lost FROM books").fetchone()
        return Books(int(generated), int(acked), self._spooled, int(lost))

    def recount(self) -> Books:
        """The accounts; ``spooled`` counted anew."""
        (self._spooled,) = self._db.execute("SELECT count(*) FROM sample").fetchone()
        return self.books()

    def account(self) -> Account:
        """What would tell the exact loss if this file were damaged."""
        books = self.books()
        streams = self._db.execute("SELECT generation, name, next_seq FROM stream ORDER BY generation").fetchall()
        accounts = [
            StreamAccount(generation, name, next_seq, self._floor(generation, next_seq))
            for generation, name, next_seq in streams
        ]
        return Account(accounts, books.generated, books.acked, books.lost)

    def _floor(self, generation: int, next_seq: int) -> int:
        first = self._first_position(position(generation, 0), position(generation + 1, 0))
        return next_seq if first is None else place(first)[1]

    # --- taking over from another spool -------------------------------------------------------------------------------

    def adopt(self, other: "SpoolDatabase") -> None:
        """Take everything of ``other``; its only stream becomes the newest here, and goes on."""
        generation = max(other._generation, self._generation + 1)
        shift = position(generation, 0) - position(other._generation, 0)
        books = other.books()
        with transaction(self._db):
            self._add_stream(generation, other._stream, other._next_seq)
            for row in other._db.execute("SELECT position, crc, body FROM sample"):
                self._db.execute("INSERT INTO sample VALUES (?+?, ?, ?)", (shift, *row))
            for row in other._db.execute("SELECT first, last, why FROM tombstone"):
                self._db.execute("INSERT INTO tombstone VALUES (?1+?2, ?1+?3, ?4)", (shift, *row))
            energies = other._db.execute("SELECT meter, energy_j, epoch, device FROM energy")
            self._db.executemany("INSERT OR REPLACE INTO energy VALUES (?, ?, ?, ?)", energies)
            self._db.execute(
                "UPDATE books SET generated=generated+?, acked=acked+?, lost=lost+?",
                (books.generated, books.acked, books.lost),
            )
        self._generation, self._stream, self._next_seq = generation, other._stream, other._next_seq
        self._spooled += books.spooled

    def inherit(self, streams: Iterable[StreamAccount], rows: Iterable[Row], account: Account) -> Books:
        """Take over a damaged spool's streams and the rows saved of it, in one transaction; the rest is declared lost.

        ``account`` is the damaged spool's; its sums hold, so that the loss is exact.
        """
        with transaction(self._db):
            for stream in streams:
                self._add_stream(stream.generation, stream.name, stream.next_seq)
            self._db.executemany("INSERT OR IGNORE INTO sample VALUES (?, ?, ?)", rows)
            (spooled,) = self._db.execute("SELECT count(*) FROM sample").fetchone()
            for stream in streams:
                self._bury_gaps(stream)
            # Rows that were acknowledged out of order may have come back; the coordinator knows them.
            generated = max(account.generated, spooled)
            acked = min(account.acked, generated - spooled)
            lost = generated - acked - spooled
            self._db.execute("UPDATE books SET generated=?, acked=?, lost=?", (generated, acked, lost))
        return self.recount()

    def _bury_gaps(self, stream: StreamAccount) -> None:
        expected = position(stream.generation, stream.floor)
        end = position(stream.generation, stream.next_seq)
        kept = self._db.execute("SELECT position FROM sample WHERE position >= ? AND position < ?", (expected, end))
        for (at,) in [*kept, (end,)]:
            if at > expected:
                self._bury(expected, at - 1, "spool_corrupt")
            expected = at + 1
