"""From the spool to the coordinator: what was just stored at once, what is still unacknowledged as the link allows.

Samples go out live, once, as soon as they are on disk. What is not acknowledged within two seconds, or was stored
while nobody listened, is backlog: it goes out, oldest first and marked ``hist``, a window at a time, each after the one
before it was acknowledged, with a pause so that at most 80 % of the link's time is spent on it. Without any
acknowledgement it is tried ever more rarely, until something shows that the coordinator is back.
"""

import asyncio
import logging
import math
from dataclasses import dataclass
from typing import Final

from agent.faultlog import FaultLog
from agent.spool import Batch, Committed, Spool
from agent.spool.row import position
from hil.bus import Bus
from hil.clock import Clock
from hil.intervals import Range
from hil.wire import MAX_RECORDS, CoordinatorState, Data, DataAck, NodeTopics, WireError, decode, encode

log = logging.getLogger(__name__)

ACK_S: Final = 2.0
WATCH_S: Final = 0.25
NOT_ACKED_S: Final = 60.0
RETRY_MAX_S: Final = 30.0
WINDOW_BATCHES: Final = 4
BACKLOG_SHARE: Final = 0.8
DRAIN_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class Flight:
    """A published batch that is not acknowledged yet: its numbers, its first position, when it went (monotonic s)."""

    stream: str
    ranges: tuple[Range, ...]
    low: int
    sent: float
    hist: bool

    def covered(self, ack: DataAck) -> bool:
        """Whether the coordinator holds all of it."""
        if ack.stream != self.stream:
            return False
        have = [(1, ack.upto), *ack.have]
        return all(any(low <= first and last <= high for low, high in have) for first, last in self.ranges)


@dataclass(slots=True)
class Counters:
    """What went up, in batches; ``garbage`` are acks that made no sense."""

    live: int = 0
    hist: int = 0
    acks: int = 0
    garbage: int = 0


class Uplink:
    """The agent's stream of samples on the bus."""

    def __init__(self, topics: NodeTopics, bus: Bus, spool: Spool, clock: Clock) -> None:
        self.counters = Counters()
        self.not_acked = False
        self._topics = topics
        self._bus = bus
        self._spool = spool
        self._clock = clock
        self._flights: list[Flight] = []
        self._edge = 0
        self._newest: tuple[str, int] | None = None
        self._coordinator: CoordinatorState | None = None
        self._behind = False
        self._progress = 0
        self._patience_s = ACK_S
        self._retry_s = ACK_S
        self._retry_at = 0.0
        self._go = asyncio.Event()
        self._changed = asyncio.Event()
        self._garbage = FaultLog(log, "data acknowledgement")
        self._acked_at = 0.0

    # --- what happens -------------------------------------------------------------------------------------------------

    def begin(self, edge: int) -> None:
        """Take what the spool holds below the position ``edge`` for backlog."""
        self._edge = edge
        self._behind = True

    def stored(self, committed: Committed, waited_s: float) -> None:
        """Publish samples that were just stored; those that had to wait for the disk are no news any more."""
        hist = waited_s > ACK_S
        for start in range(0, len(committed.records), MAX_RECORDS):
            records = committed.records[start : start + MAX_RECORDS]
            if not self._send(Batch(committed.stream, committed.generation, records, []), hist=hist):
                self._behind = True
        newest = committed.records[-1].seq
        self._newest = (committed.stream, newest)
        self._edge = position(committed.generation, newest) + 1

    def ack(self, payload: bytes) -> None:
        """Take the coordinator's word for what it holds; anything else is counted and survived."""
        try:
            ack = decode(payload, DataAck)
        except WireError as error:
            self._refuse(str(error))
            return
        if self._newest is not None and ack.stream == self._newest[0] and ack.upto > self._newest[1]:
            self._refuse(f"of samples to {ack.upto}, {self._newest[1]} is the newest")
            return
        self.counters.acks += 1
        self._note_acked()
        self._spool.acknowledge(ack)
        landed = [flight for flight in self._flights if flight.covered(ack)]
        self._flights = [flight for flight in self._flights if flight not in landed]
        if any(flight.hist for flight in landed):
            self._progress += 1
            self._retry_s = self._patience_s
        self._changed.set()

    def connection(self, up: bool) -> None:
        """Note that the bus is connected, or no longer."""
        if up:
            self._start_over()
        self._changed.set()

    def coordinator_state(self, state: CoordinatorState) -> None:
        """Note that the coordinator is there, or not; a new one has the backlog sent at once."""
        if state.online and state != self._coordinator:
            self._start_over()
        self._coordinator = state
        self._changed.set()

    # --- the backlog --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send backlog when there is some, until cancelled."""
        self._start_over()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(), name="uplink watch")
            tasks.create_task(self._catch_up(), name="uplink backlog")

    async def drain(self, seconds: float) -> None:
        """Return when all is acknowledged, or nobody is there to do so, at the latest after ``seconds``.

        There is no time to be patient: what is not acknowledged soon is sent again.
        """
        deadline = self._clock.monotonic() + seconds
        self._patience_s = seconds / DRAIN_TRIES
        self._start_over()
        while self._heard and self._clock.monotonic() < deadline:
            self._changed.clear()
            if (await self._spool.books()).spooled == 0:
                return
            await self._change_or(deadline)

    @property
    def _heard(self) -> bool:
        """Whether somebody may be listening; unknown is reason enough to try."""
        state = self._coordinator
        return self._bus.connected and (state is None or state.online or state.draining)

    def _start_over(self) -> None:
        self._retry_s = self._patience_s
        self._behind = True
        self._go.set()

    async def _watch(self) -> None:
        while True:
            now = self._clock.monotonic()
            overdue = [flight for flight in self._flights if now - flight.sent >= self._patience_s]
            if overdue:
                self._flights = [flight for flight in self._flights if now - flight.sent < self._patience_s]
                self._behind = True
                self._changed.set()
            self._look_for_acks(now)
            if self._behind and now >= self._retry_at and self._heard:
                self._go.set()
            await self._clock.sleep_until(now + WATCH_S)

    def _look_for_acks(self, now: float) -> None:
        """Notice that what goes out does not arrive: MQTT 3.1.1 acknowledges also what its broker then throws away."""
        waiting = (self._flights or self._behind) and self._coordinator is not None and self._coordinator.online
        if not waiting:
            self._acked_at = now
        elif now - self._acked_at >= NOT_ACKED_S and not self.not_acked:
            self.not_acked = True
            log.warning("the coordinator acknowledges no samples; may this agent publish to %s?", self._topics.data)

    def _note_acked(self) -> None:
        self._acked_at = self._clock.monotonic()
        if self.not_acked:
            self.not_acked = False
            log.info("the coordinator acknowledges samples again")

    async def _catch_up(self) -> None:
        while True:
            await self._go.wait()
            self._go.clear()
            self._behind, self._retry_at = False, math.inf
            if await self._send_backlog():
                self._retry_at = self._clock.monotonic()
            else:
                self._behind, self._retry_at = True, self._clock.monotonic() + self._retry_s
                self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)

    async def _send_backlog(self) -> bool:
        """Send what is unacknowledged, once, oldest first; False where nobody acknowledged or listened."""
        after = 0
        while self._heard:
            began, progress = self._clock.monotonic(), self._progress
            for _ in range(WINDOW_BATCHES):
                batch = await self._spool.batch(after, self._backlog_end)
                if batch is None:
                    break
                if not self._send(batch, hist=True):
                    return False
                after = position(batch.generation, batch.ranges[-1][1])
            if not self._awaited():
                return True
            while self._awaited():
                self._changed.clear()
                await self._changed.wait()
            if self._progress == progress:
                return False
            now = self._clock.monotonic()
            await self._clock.sleep_until(now + (now - began) * (1 / BACKLOG_SHARE - 1))
        return False

    def _awaited(self) -> bool:
        """Whether backlog is on its way."""
        return any(flight.hist for flight in self._flights)

    @property
    def _backlog_end(self) -> int:
        """The position before which samples are backlog: none that is on its way live, none not yet seen here."""
        return min((flight.low for flight in self._flights if not flight.hist), default=self._edge)

    # --- the bus ------------------------------------------------------------------------------------------------------

    def _send(self, batch: Batch, *, hist: bool) -> bool:
        payload = encode(Data(stream=batch.stream, r=batch.records, lost=batch.lost, hist=hist))
        if not self._bus.publish(self._topics.data, payload, expiry_s=int(ACK_S)):
            return False
        ranges = batch.ranges
        low = position(batch.generation, ranges[0][0])
        self._flights.append(Flight(batch.stream, ranges, low, self._clock.monotonic(), hist))
        if hist:
            self.counters.hist += 1
        else:
            self.counters.live += 1
        return True

    def _refuse(self, why: str) -> None:
        self.counters.garbage += 1
        self._garbage.fault(why)

    async def _change_or(self, deadline: float) -> None:
        change = asyncio.create_task(self._changed.wait())
        timer = asyncio.create_task(self._clock.sleep_until(deadline))
        try:
            await asyncio.wait({change, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
            timer.cancel()
