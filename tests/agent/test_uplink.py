import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from agent.sample import Sample
from agent.spool import Committed, SampleStore, Spool, SpoolBounds, Sync
from agent.uplink import Uplink
from hil.bus import MemoryBroker, MemoryBus
from hil.clock import ManualClock, settle
from hil.devices import Quality
from hil.intervals import Intervals
from hil.wire import MAX_DATA_BYTES, MAX_RECORDS, CoordinatorState, Data, DataAck, Record, Topics, decode, encode

TOPICS = Topics("lab").node("n")


class Coordinator:
    """The other end: keeps what it gets, and acknowledges it unless told not to."""

    def __init__(self, broker: MemoryBroker, clock: ManualClock) -> None:
        self.bus = MemoryBus(broker, clock.monotonic)
        self.batches: list[Data] = []
        self.intervals: dict[str, Intervals] = {}
        self.duplicates = 0
        self.silent = False
        self.deaf: Callable[[Data], bool] = lambda _: False

    async def run(self) -> None:
        self.bus.subscribe(TOPICS.data)
        await self.bus.start()
        while True:
            for message in await self.bus.receive():
                data = decode(message.payload, Data)
                if not self.deaf(data):
                    self.take(data)

    def take(self, data: Data) -> None:
        self.batches.append(data)
        intervals = self.intervals.setdefault(data.stream, Intervals())
        for record in data.r:
            self.duplicates += 1 - intervals.add(record.seq, record.seq)
        for lost in data.lost:
            intervals.add(lost.first, lost.last)
        if not self.silent:
            self.ack(data.stream)

    def ack(self, stream: str) -> None:
        held = self.intervals.get(stream, Intervals())
        self.bus.publish(TOPICS.data_ack, encode(DataAck(stream=stream, upto=held.upto, have=list(held.have))))

    def seqs(self, *, hist: bool) -> list[int]:
        return [record.seq for data in self.batches if data.hist is hist for record in data.r]


class Bench:
    """An uplink between a real spool and a coordinator, on a bus in memory and a manual clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.broker = MemoryBroker()
        self.bus = MemoryBus(self.broker, self.clock.monotonic)
        store = SampleStore(folder, SpoolBounds(1 << 28, 1e9), Sync.TICK, "boot-1", self.clock)
        self.spool = Spool(store, self.clock, self.stored)
        self.uplink = Uplink(TOPICS, self.bus, self.spool, self.clock)
        self.coordinator = Coordinator(self.broker, self.clock)
        self.made = 0
        self.tasks: list[asyncio.Task[None]] = []

    def stored(self, committed: Committed, waited_s: float) -> None:
        self.uplink.stored(committed, waited_s)

    async def start(self, *, coordinator: bool = True) -> None:
        self.uplink.begin(await self.spool.open())
        self.bus.subscribe(TOPICS.data_ack)
        self.bus.on_connection(self.uplink.connection)
        if coordinator:
            self.run(self.coordinator.run())
            await settle()
        self.run(self.uplink.run())
        self.run(self.receive())
        await self.bus.start()

    def run(self, work: object) -> None:
        self.tasks.append(asyncio.create_task(work))  # type: ignore[arg-type]

    async def receive(self) -> None:
        while True:
            for message in await self.bus.receive():
                self.uplink.ack(message.payload)

    async def sample(self, count: int = 1) -> None:
        for _ in range(count):
            self.made += 1
            t_us = self.clock.wall_us()
            self.spool.append(Sample("m", t_us, float(self.made), None, 0, Quality.GOOD))
        await self.spool.flush()
        await settle()

    async def wait(self, seconds: float) -> None:
        """Let time pass, and the spool's worker keep up with it."""
        for _ in range(round(seconds / 0.05)):
            await self.clock.advance(0.05)
            await self.spool.batch(0, 0)

    async def spooled(self) -> int:
        await settle()
        return (await self.spool.books()).spooled

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        await self.spool.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.stop()


async def test_a_stored_sample_is_published_at_once_and_let_go_when_acknowledged(bench: Bench) -> None:
    await bench.start()
    await bench.sample()
    assert bench.coordinator.seqs(hist=False) == [1]
    assert await bench.spooled() == 0


async def test_nothing_is_sent_twice_while_all_is_well(bench: Bench) -> None:
    await bench.start()
    for _ in range(50):
        await bench.sample(4)
        await bench.wait(0.2)
    await bench.wait(5.0)
    assert bench.coordinator.duplicates == 0
    assert bench.coordinator.seqs(hist=False) == list(range(1, 201))
    assert bench.coordinator.seqs(hist=True) == []


async def test_what_was_stored_without_a_connection_follows_as_history(bench: Bench) -> None:
    await bench.start()
    await bench.sample()
    bench.bus.cut()
    await bench.sample(500)
    bench.bus.reconnect()
    await bench.sample()
    await bench.wait(2.0)
    assert bench.coordinator.seqs(hist=False) == [1, 502]
    assert bench.coordinator.seqs(hist=True) == list(range(2, 502))
    assert bench.coordinator.duplicates == 0
    assert await bench.spooled() == 0


async def test_live_samples_do_not_wait_for_the_backlog(bench: Bench) -> None:
    await bench.start()
    bench.bus.cut()
    await bench.sample(5000)
    bench.bus.reconnect()
    await bench.sample()
    assert bench.coordinator.seqs(hist=False) == [5001]
    assert len(bench.coordinator.seqs(hist=True)) < 5000


async def test_an_earlier_life_is_backlog(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    await first.start(coordinator=False)
    await first.sample(3)
    await first.stop()
    again = Bench(tmp_path)
    await again.start()
    await again.wait(0.5)
    assert again.coordinator.seqs(hist=True) == [1, 2, 3]
    assert await again.spooled() == 0
    await again.stop()


async def test_a_batch_that_got_lost_is_sent_again_as_history(bench: Bench) -> None:
    await bench.start()
    bench.coordinator.deaf = lambda data: any(record.seq == 3 for record in data.r) and not data.hist
    for _ in range(6):
        await bench.sample()
        await bench.wait(0.1)
    await bench.wait(3.0)
    assert bench.coordinator.seqs(hist=False) == [1, 2, 4, 5, 6]
    assert bench.coordinator.seqs(hist=True) == [3]
    assert await bench.spooled() == 0


async def test_an_absent_coordinator_is_tried_ever_more_rarely_with_one_window(bench: Bench) -> None:
    await bench.start(coordinator=False)
    await bench.sample(1000)
    await bench.wait(2.5)
    before = bench.uplink.counters.hist
    await bench.wait(100.0)
    tries = (bench.uplink.counters.hist - before) / 4
    assert 3 <= tries <= 7
    assert await bench.spooled() == 1000


async def test_a_coordinator_that_comes_gets_the_backlog_soon(bench: Bench) -> None:
    await bench.start(coordinator=False)
    await bench.sample(1000)
    await bench.wait(60.0)
    bench.run(bench.coordinator.run())
    await settle()
    bench.uplink.coordinator_state(CoordinatorState(online=True, instance="a", epoch=1))
    await bench.wait(4.0)
    assert sorted(bench.coordinator.seqs(hist=True)) == list(range(1, 1001))
    assert await bench.spooled() == 0


async def test_a_coordinator_that_is_there_but_acknowledges_nothing_is_said_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await bench.start()
    bench.coordinator.deaf = lambda _: True
    bench.uplink.coordinator_state(CoordinatorState(online=True, instance="a", epoch=1))
    for _ in range(130):
        await bench.sample()
        await bench.wait(1.0)
    assert bench.uplink.not_acked
    bench.coordinator.deaf = lambda _: False
    await bench.sample()
    assert not bench.uplink.not_acked
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "the coordinator acknowledges no samples",
        "the coordinator acknowledges samples again",
    ]


async def test_no_backlog_is_sent_to_a_coordinator_that_is_known_to_be_away(bench: Bench) -> None:
    await bench.start(coordinator=False)
    bench.uplink.coordinator_state(CoordinatorState(online=False, instance="a", epoch=1))
    await bench.sample(100)
    await bench.wait(60.0)
    assert bench.uplink.counters.hist == 0


async def test_backlog_takes_no_more_than_its_share_of_the_link(bench: Bench) -> None:
    await bench.start()
    bench.bus.cut()
    await bench.sample(4000)
    bench.coordinator.silent = True
    bench.bus.reconnect()
    busy = idle = 0
    for _ in range(400):
        unanswered = len(bench.coordinator.batches)
        await bench.wait(0.1)
        if len(bench.coordinator.batches) > unanswered:
            await bench.wait(0.3)  # the coordinator takes its time
            busy += 4
            bench.coordinator.ack(bench.spool.stream)
        idle += 1
        if await bench.spooled() == 0:
            break
    assert await bench.spooled() == 0
    assert idle / (busy + idle) > 0.15


async def test_history_whose_acks_never_come_does_not_stop_what_is_new(bench: Bench) -> None:
    await bench.start()
    bench.coordinator.deaf = lambda data: data.hist
    bench.bus.cut()
    await bench.sample(10)
    bench.bus.reconnect()
    for _ in range(20):
        await bench.sample()
        await bench.wait(0.5)
    assert bench.coordinator.seqs(hist=False) == list(range(11, 31))
    assert await bench.spooled() == 10


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"null",
        b'{"stream":7,"upto":1}',
        b'{"stream":"a","upto":-1}',
        b'{"stream":"a","upto":1,"have":[[1]]}',
        b'{"stream":"a","upto":1e999}',
        b"[" * 5000,
        b'{"stream":"' + b"a" * 70_000 + b'","upto":1}',
    ],
)
async def test_garbage_for_an_ack_is_counted_and_survived(bench: Bench, payload: bytes) -> None:
    await bench.start(coordinator=False)
    await bench.sample()
    bench.uplink.ack(payload)
    assert bench.uplink.counters.garbage == 1
    assert await bench.spooled() == 1


async def test_an_ack_of_samples_that_never_were_is_refused(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.start(coordinator=False)
    await bench.sample(3)
    for _ in range(5):
        bench.uplink.ack(encode(DataAck(stream=bench.spool.stream, upto=4)))
    assert await bench.spooled() == 3
    assert bench.uplink.counters.garbage == 5
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


async def test_an_ack_of_another_stream_is_not_ours(bench: Bench) -> None:
    await bench.start(coordinator=False)
    await bench.sample(3)
    bench.uplink.ack(encode(DataAck(stream="0123456789abcdef", upto=3)))
    assert await bench.spooled() == 3


async def test_a_coordinator_with_a_fresh_ledger_acknowledges_with_holes(bench: Bench) -> None:
    await bench.start()
    bench.coordinator.deaf = lambda data: any(record.seq % 2 for record in data.r)
    for _ in range(20):
        await bench.sample()
    await settle()
    assert await bench.spooled() == 10
    bench.coordinator.intervals.clear()
    bench.coordinator.deaf = lambda _: False
    await bench.wait(6.0)
    assert await bench.spooled() == 0
    assert bench.coordinator.seqs(hist=True) == list(range(1, 20, 2))


async def test_samples_that_waited_for_a_slow_disk_are_no_live_ones(bench: Bench) -> None:
    await bench.start()
    bench.spool.append(Sample("m", 0, 1.0, None, 0, Quality.GOOD))
    await bench.clock.advance(3.0)
    await bench.spool.flush()
    await bench.wait(0.5)
    assert bench.coordinator.seqs(hist=True) == [1]
    assert bench.coordinator.seqs(hist=False) == []


async def test_draining_ends_as_soon_as_all_is_acknowledged(bench: Bench) -> None:
    await bench.start()
    bench.coordinator.silent = True
    await bench.sample(3)
    drain = asyncio.create_task(bench.uplink.drain(2.0))
    await bench.wait(0.3)
    assert not drain.done()
    bench.coordinator.ack(bench.spool.stream)
    await bench.wait(0.1)
    assert drain.done()


async def test_draining_ends_after_its_time_or_at_once_where_nobody_listens(bench: Bench) -> None:
    await bench.start(coordinator=False)
    await bench.sample(3)
    drain = asyncio.create_task(bench.uplink.drain(2.0))
    await bench.wait(1.8)
    assert not drain.done()
    await bench.wait(0.4)
    assert drain.done()
    bench.bus.cut()
    await asyncio.wait_for(bench.uplink.drain(2.0), 1.0)


def test_the_largest_batch_fits_the_wire() -> None:
    record = Record(
        2**40 - 1, 2**53, "m" * 63, -1.2345678901234567e-300, -1.2345678901234567e-300, 2**53, Quality.ESTIMATED
    )
    payload = encode(Data(stream="f" * 16, r=[record] * MAX_RECORDS))
    assert len(payload) < MAX_DATA_BYTES
    assert msgspec.json.decode(payload, type=Data).r[0] == record


async def test_draining_sends_again_in_time_what_was_lost_on_its_way(bench: Bench) -> None:
    await bench.start()
    bench.coordinator.deaf = lambda data: not data.hist
    await bench.sample(3)
    drain = asyncio.create_task(bench.uplink.drain(2.0))
    await bench.wait(1.0)
    assert drain.done()
    assert bench.coordinator.seqs(hist=True) == [1, 2, 3]


async def test_a_coordinator_that_decides_no_more_may_still_take_samples(bench: Bench) -> None:
    await bench.start()
    bench.coordinator.silent = True
    await bench.sample(3)
    bench.uplink.coordinator_state(CoordinatorState(online=False, draining=True, instance="a", epoch=1))
    drain = asyncio.create_task(bench.uplink.drain(2.0))
    await bench.wait(0.3)
    assert not drain.done()
    bench.uplink.coordinator_state(CoordinatorState(online=False, instance="a", epoch=1))
    await bench.wait(0.05)
    assert drain.done()
