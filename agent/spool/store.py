"""Where samples are kept: on disk, or in memory for as long as the disk takes nothing.

The spool in memory is small and has a stream of its own, so that numbers never depend on what a failing disk may still
have written; it moves to the disk when that works again. Everything here blocks: it runs in the spool's worker thread.
"""

import enum
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from agent.faultlog import FaultLog
from agent.sample import EnergyState, Sample
from agent.spool.accounts import AccountFile, Books
from agent.spool.database import SpoolBounds, SpoolDatabase
from agent.spool.row import Batch, Committed, place
from agent.spool.salvage import ACCOUNT, is_damage, open_spool
from hil.clock import Clock
from hil.units import MICROSECONDS_PER_SECOND
from hil.wire import DataAck

log = logging.getLogger(__name__)

SYNC_PERIOD_S: Final = 10.0
RETRY_S: Final = 1.0
MEMORY_BYTES: Final = 8 << 20


class Sync(enum.StrEnum):
    """When commits are brought to the disk: each before it is published, every ten seconds, or as the kernel likes.

    A power cut loses what came since; a crash of the agent never loses anything.
    """

    TICK = "tick"
    TEN_SECONDS = "10s"
    OFF = "off"


PRAGMA: Final = {Sync.TICK: "FULL", Sync.TEN_SECONDS: "NORMAL", Sync.OFF: "OFF"}


class SampleStore:
    """The samples that are not acknowledged yet, and the energy of each meter."""

    def __init__(self, folder: Path, bounds: SpoolBounds, sync: Sync, boot_id: str, clock: Clock) -> None:
        self._folder = folder
        self._bounds = bounds
        self._sync = sync
        self._boot_id = boot_id
        self._clock = clock
        self._account = AccountFile(folder / ACCOUNT)
        self._disk: SpoolDatabase | None = None
        self._memory: SpoolDatabase | None = None
        self._acks: dict[str, DataAck] = {}
        self._faults = FaultLog(log, "spool")
        self._account_faults = FaultLog(log, "spool account")
        self._synced = self._retried = clock.monotonic()
        self.energies: dict[str, EnergyState] = {}
        self.first_epoch = 0

    def open(self) -> None:
        """Open, create or salvage what lies on the disk; in memory where the disk takes nothing."""
        try:
            self._open_disk()
        except (sqlite3.Error, OSError) as error:
            self._fall_back(error)

    @property
    def stream(self) -> str:
        """The stream that new samples belong to."""
        return self._present.stream

    @property
    def end(self) -> int:
        """The position of the next sample."""
        return self._present.end

    def commit(self, samples: Sequence[Sample], unstored: int, acks: Iterable[DataAck]) -> Committed:
        """Number and store samples; ``unstored`` ones before them are gone already."""
        self._acks.update({ack.stream: ack for ack in acks})
        if self._memory is None or self._back_on_disk():
            try:
                committed = self._commit_to_disk(samples, unstored)
            except sqlite3.Error as error:
                self._fall_back(error)
            else:
                self._keep_account()
                return committed
        self._acknowledge()
        return self._present.commit(samples, self._clock.wall_us(), unstored)

    def batch(self, after: int, before: int, acks: Iterable[DataAck]) -> Batch | None:
        """The oldest unacknowledged samples between two positions, both excluded; None where there are none."""
        self._acknowledge(acks)
        for database in self._databases:
            try:
                batch = database.batch(after, before)
            except sqlite3.Error as error:
                self._look_into(error)
                continue
            if batch is not None:
                return batch
        return None

    def books(self, acks: Iterable[DataAck]) -> Books:
        """The accounts, samples counted anew where that can be done."""
        self._acknowledge(acks)
        books = Books()
        for database in self._databases:
            try:
                books += database.recount()
            except sqlite3.Error as error:
                self._look_into(error)
        return books

    def close(self, acks: Iterable[DataAck]) -> None:
        """Bring everything to the disk and close."""
        self._acknowledge(acks)
        if self._memory is not None and not self._back_on_disk(at_once=True):
            log.error("spool: %d samples in memory are lost, the disk took none", self._memory.books().spooled)
        if self._disk is not None:
            try:
                self._disk.end_life()
            except sqlite3.Error as error:
                self._faults.fault(f"not closed in order ({error})")
            self._keep_account()
        for database in self._databases:
            database.close()
        self._account.close()

    # --- disk and memory ----------------------------------------------------------------------------------------------

    @property
    def _databases(self) -> list[SpoolDatabase]:
        return [database for database in (self._disk, self._memory) if database is not None]

    @property
    def _present(self) -> SpoolDatabase:
        return self._databases[-1]

    def _open_disk(self) -> None:
        opened = open_spool(self._folder, self._bounds, self._clock.wall_us())
        database = opened.database
        try:
            missing = database.begin_life(self._boot_id, safe=self._sync is Sync.TICK, numbered=opened.numbered)
            database.set_sync(PRAGMA[self._sync])
            energies = database.energies()
        except sqlite3.Error:
            database.close()
            raise
        if missing is not None:
            log.warning("spool: a power cut may have taken samples, %d for certain; a new stream begins", missing)
        if opened.salvaged:
            # An epoch that is higher than any used before: those rise by one at a reset.
            self.first_epoch = self._clock.wall_us() // MICROSECONDS_PER_SECOND
        else:
            self.energies = dict(energies)
        self._disk = database
        self._keep_account()

    def _commit_to_disk(self, samples: Sequence[Sample], unstored: int) -> Committed:
        disk, now = self._present, self._clock.monotonic()
        due = self._sync is Sync.TEN_SECONDS and now - self._synced >= SYNC_PERIOD_S
        if due:
            disk.set_sync("FULL")
            self._synced = now
        committed = disk.commit(samples, self._clock.wall_us(), unstored, self._acks.values())
        self._acks.clear()
        if due:
            disk.set_sync(PRAGMA[self._sync])
        return committed

    def _keep_account(self) -> None:
        if self._disk is None:
            return
        try:
            self._account.write(self._disk.account())
        except (sqlite3.Error, OSError) as error:
            self._account_faults.fault(f"cannot be written ({error})")
        else:
            self._account_faults.clear()

    def _look_into(self, error: sqlite3.Error) -> None:
        """Take note of an error in reading; a damaged database is left for memory at once, and salvaged after that."""
        self._faults.fault(f"cannot read samples back from disk ({error})")
        if self._memory is None and is_damage(error):
            self._fall_back(error)

    def _fall_back(self, error: Exception) -> None:
        self._faults.fault(f"cannot store samples on disk ({error}); the newest are kept in memory")
        self._retried = self._clock.monotonic()
        if self._disk is not None and isinstance(error, sqlite3.Error) and is_damage(error):
            self._disk.close()
            self._disk = None
        generation = place(self._disk.end)[0] + 1 if self._disk is not None else 1
        self._memory = SpoolDatabase(None, SpoolBounds(MEMORY_BYTES, self._bounds.max_age_s), generation)
        self._memory.open()

    def _back_on_disk(self, *, at_once: bool = False) -> bool:
        now = self._clock.monotonic()
        if self._memory is None or (now - self._retried < RETRY_S and not at_once):
            return False
        self._retried = now
        try:
            if self._disk is None:
                self._open_disk()
            if self._disk is not None:
                self._disk.adopt(self._memory)
        except (sqlite3.Error, OSError) as error:
            self._faults.fault(f"still cannot store samples on disk ({error})")
            return False
        self._memory.close()
        self._memory = None
        self._faults.clear()
        return True

    def _acknowledge(self, acks: Iterable[DataAck] = ()) -> None:
        self._acks.update({ack.stream: ack for ack in acks})
        for stream, ack in list(self._acks.items()):
            try:
                for database in self._databases:
                    database.acknowledge(ack)
            except sqlite3.Error as error:
                self._faults.fault(f"cannot delete acknowledged samples on disk ({error})")
            else:
                del self._acks[stream]
