"""The spool as the agent uses it: append and forget, publish what was committed, let go of what was acknowledged."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from agent.sample import EnergyState, Sample
from agent.spool.accounts import Books
from agent.spool.row import Batch, Committed
from agent.spool.store import SampleStore
from hil.clock import Clock
from hil.wire import DataAck

T = TypeVar("T")

GATHER_S: Final = 0.005
PENDING_SAMPLES: Final = 50_000


class Spool:
    """Samples survive here until the coordinator has them on disk.

    ``on_commit`` gets what is stored and numbered, and how many seconds the oldest of it had to wait for that.

    Nothing here waits for the disk but who awaits it: one worker thread commits what has gathered since its last
    commit, so that a slow disk makes larger transactions and not a longer queue.
    """

    def __init__(self, store: SampleStore, clock: Clock, on_commit: Callable[[Committed, float], None]) -> None:
        self._store = store
        self._clock = clock
        self._on_commit = on_commit
        self._worker = ThreadPoolExecutor(1, "spool")
        self._pending: deque[Sample] = deque()
        self._unstored = 0
        self._waiting_since = 0.0
        self._acks: dict[str, DataAck] = {}
        self._wake = asyncio.Event()
        self._committing: asyncio.Task[None] | None = None
        self.stream = ""
        self.commits = 0

    async def open(self) -> int:
        """Open, create or salvage; never fails for what lies on the disk. The position at which this life begins."""
        await self._in_worker(self._store.open)
        self.stream = self._store.stream
        return self._store.end

    def energy(self, meter: str) -> EnergyState | None:
        """A meter's energy as an earlier life of the agent left it."""
        return self._store.energies.get(meter)

    @property
    def first_epoch(self) -> int:
        """The epoch in which the energy of a meter begins that has none from an earlier life."""
        return self._store.first_epoch

    def append(self, sample: Sample) -> None:
        """Store a sample soon. Where the disk is so far behind that memory would run out, the oldest counts as lost."""
        if len(self._pending) >= PENDING_SAMPLES:
            self._pending.popleft()
            self._unstored += 1
        if not self._pending:
            self._waiting_since = self._clock.monotonic()
        self._pending.append(sample)
        self._wake.set()

    def acknowledge(self, ack: DataAck) -> None:
        """Let go of what the coordinator holds; done with the next commit or look at the backlog."""
        self._acks[ack.stream] = ack

    async def run(self) -> None:
        """Commit what gathers, until cancelled."""
        while True:
            await self._wake.wait()
            await self._clock.sleep_until(self._clock.monotonic() + GATHER_S)
            await self.flush()

    async def flush(self) -> None:
        """Commit what has gathered, now. A commit under way comes to its end, and is told of, whoever stops waiting."""
        if self._committing is not None:
            await asyncio.wait({self._committing})
        self._committing = asyncio.create_task(self._commit(), name="spool commit")
        await asyncio.shield(self._committing)

    async def _commit(self) -> None:
        self._wake.clear()
        samples, self._pending, since = self._pending, deque(), self._waiting_since
        unstored, self._unstored = self._unstored, 0
        if not samples:
            return
        committed = await self._in_worker(self._store.commit, samples, unstored, self._take_acks())
        self.stream = committed.stream
        self.commits += 1
        self._on_commit(committed, self._clock.monotonic() - since)

    async def batch(self, after: int, before: int) -> Batch | None:
        """The oldest unacknowledged samples between two positions, both excluded; None where there are none."""
        return await self._in_worker(self._store.batch, after, before, self._take_acks())

    async def books(self) -> Books:
        """The accounts, samples counted anew."""
        return await self._in_worker(self._store.books, self._take_acks())

    async def close(self) -> None:
        """Commit what has gathered, bring it to the disk, and close."""
        await self.flush()
        await self._in_worker(self._store.close, self._take_acks())
        self._worker.shutdown()

    def _take_acks(self) -> Iterable[DataAck]:
        acks, self._acks = self._acks, {}
        return acks.values()

    async def _in_worker(self, job: Callable[..., T], *arguments: object) -> T:
        # Shielded: what is handed over is done, whoever stops waiting for it.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._worker, job, *arguments))
