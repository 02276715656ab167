import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agent.sample import Sample
from agent.spool import Books, Committed, SampleStore, Spool, SpoolBounds, Sync
from agent.spool.row import position
from agent.spool.spool import PENDING_SAMPLES
from hil.clock import ManualClock
from hil.wire import DataAck

MakeSamples = Callable[..., list[Sample]]


class Bench:
    """A spool in a folder, and what it said was stored."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.committed: list[Committed] = []
        self.waits: list[float] = []
        store = SampleStore(folder, SpoolBounds(1 << 28, 1e9), Sync.TICK, "boot-1", self.clock)
        self.spool = Spool(store, self.clock, self.stored)

    def stored(self, committed: Committed, waited_s: float) -> None:
        self.committed.append(committed)
        self.waits.append(waited_s)

    @property
    def seqs(self) -> list[int]:
        return [record.seq for committed in self.committed for record in committed.records]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await self.clock.advance(0.01)
                await asyncio.sleep(0.001)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    await bench.spool.open()
    yield bench
    await bench.spool.close()


@pytest.fixture
async def running(bench: Bench) -> AsyncIterator[Bench]:
    task = asyncio.create_task(bench.spool.run())
    yield bench
    task.cancel()
    await asyncio.wait({task})


async def test_what_is_appended_is_stored_and_handed_on(running: Bench, samples: MakeSamples) -> None:
    for sample in samples(3):
        running.spool.append(sample)
    await running.until(lambda: len(running.seqs) == 3)
    assert running.seqs == [1, 2, 3]
    assert running.spool.stream == running.committed[0].stream


async def test_samples_of_one_tick_share_a_commit(running: Bench, samples: MakeSamples) -> None:
    for sample in samples(4):
        running.spool.append(sample)
        await running.clock.advance(0.001)
    await running.until(lambda: len(running.seqs) == 4)
    assert len(running.committed) == 1


async def test_a_sample_does_not_wait_for_the_next_tick(running: Bench, samples: MakeSamples) -> None:
    running.spool.append(samples(1)[0])
    await running.until(lambda: bool(running.seqs))
    assert running.waits[0] < 0.1


async def test_close_stores_what_was_still_pending(tmp_path: Path, samples: MakeSamples) -> None:
    first = Bench(tmp_path)
    await first.spool.open()
    first.spool.append(samples(1)[0])
    await first.spool.close()
    again = Bench(tmp_path)
    assert await again.spool.open() == position(1, 2)
    assert await again.spool.books() == Books(1, 0, 1, 0)
    energy = again.spool.energy("m")
    assert energy is not None
    await again.spool.close()


async def test_acknowledged_samples_are_let_go(bench: Bench, samples: MakeSamples) -> None:
    for sample in samples(5):
        bench.spool.append(sample)
    await bench.spool.flush()
    bench.spool.acknowledge(DataAck(stream=bench.spool.stream, upto=4))
    batch = await bench.spool.batch(0, position(9, 0))
    assert batch is not None
    assert [record.seq for record in batch.records] == [5]
    assert await bench.spool.books() == Books(5, 4, 1, 0)


async def test_what_is_handed_to_the_worker_is_stored_also_when_the_caller_goes(
    bench: Bench, samples: MakeSamples
) -> None:
    bench.spool.append(samples(1)[0])
    flush: Awaitable[None] = asyncio.ensure_future(bench.spool.flush())
    await asyncio.sleep(0)
    flush.cancel()  # type: ignore[attr-defined]
    with pytest.raises(asyncio.CancelledError):
        await flush
    assert await bench.spool.books() == Books(1, 0, 1, 0)


async def test_memory_for_samples_that_the_disk_is_too_slow_for_is_bounded(bench: Bench, samples: MakeSamples) -> None:
    sample = samples(1)[0]
    for _ in range(PENDING_SAMPLES + 7):
        bench.spool.append(sample)
    await bench.spool.flush()
    assert await bench.spool.books() == Books(PENDING_SAMPLES + 7, 0, PENDING_SAMPLES, 7)


async def test_a_commit_that_nobody_waits_for_any_more_is_told_of_all_the_same(
    bench: Bench, samples: MakeSamples
) -> None:
    for sample in samples(3):
        bench.spool.append(sample)
    waiting = asyncio.create_task(bench.spool.flush())
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the commit is under way
    waiting.cancel()
    await asyncio.wait({waiting})
    await bench.spool.flush()
    assert bench.seqs == [1, 2, 3]
