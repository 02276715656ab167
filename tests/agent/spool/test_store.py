import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.sample import EnergyState, Sample
from agent.spool.accounts import Books
from agent.spool.database import SpoolBounds
from agent.spool.row import position
from agent.spool.store import SampleStore, Sync
from hil.clock import ManualClock
from hil.wire import DataAck

MakeSamples = Callable[..., list[Sample]]

BOUNDS = SpoolBounds(max_bytes=1 << 28, max_age_s=1e9)
FAR = position(1 << 20, 0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def pass_time(clock: ManualClock, seconds: float = 1.1) -> None:
    asyncio.run(clock.advance(seconds))


def store_in(folder: Path, clock: ManualClock, sync: Sync = Sync.TICK, boot_id: str = "boot-1") -> SampleStore:
    store = SampleStore(folder, BOUNDS, sync, boot_id, clock)
    store.open()
    return store


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow: what a full disk looks like to whoever writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def everything(store: SampleStore) -> list[tuple[str, int, float | None]]:
    found, after = [], 0
    while (batch := store.batch(after, FAR, ())) is not None:
        found += [(batch.stream, record.seq, record.w) for record in batch.records]
        after = position(batch.generation, batch.ranges[-1][1])
    return found


@pytest.mark.parametrize("sync", Sync)
def test_samples_and_energies_survive_a_restart(
    tmp_path: Path, clock: ManualClock, samples: MakeSamples, sync: Sync
) -> None:
    store = store_in(tmp_path, clock, sync)
    store.commit(samples(3), 0, ())
    stream = store.stream
    store.close(())
    again = store_in(tmp_path, clock, sync, "boot-2")
    assert again.stream == stream
    assert again.energies == {"m": EnergyState(200.0, 0, device=False)}
    assert again.first_epoch == 0
    assert [seq for _, seq, _ in everything(again)] == [1, 2, 3]
    again.close(())


def test_acks_ride_along_with_the_next_commit(tmp_path: Path, clock: ManualClock, samples: MakeSamples) -> None:
    store = store_in(tmp_path, clock)
    store.commit(samples(3), 0, ())
    store.commit(samples(1), 0, [DataAck(stream=store.stream, upto=2)])
    assert [seq for _, seq, _ in everything(store)] == [3, 4]
    assert store.books([DataAck(stream=store.stream, upto=4)]) == Books(4, 4, 0, 0)
    store.close(())


def test_a_full_disk_costs_nothing_while_memory_lasts(
    tmp_path: Path, clock: ManualClock, samples: MakeSamples, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = store_in(tmp_path, clock)
    store.commit(samples(3), 0, ())
    on_disk = store.stream
    with full_disk():
        for first in range(3, 9):
            store.commit(samples(1, first=first), 0, ())
        in_memory = store.stream
        assert in_memory != on_disk
        assert store.books(()) == Books(9, 0, 9, 0)
    store.commit(samples(1, first=9), 0, ())  # still within the pause between two attempts
    pass_time(clock)
    store.commit(samples(1, first=10), 0, ())
    assert store.stream == in_memory
    assert store.books(()) == Books(11, 0, 11, 0)
    store.close(())
    again = store_in(tmp_path, clock)
    expected = [(on_disk, seq, 9.0 + seq) for seq in (1, 2, 3)] + [(in_memory, seq, 12.0 + seq) for seq in range(1, 9)]
    assert everything(again) == expected
    again.close(())
    assert "cannot store samples on disk" in caplog.messages[0]
    assert "works again" in caplog.messages[-1]
    assert len(caplog.messages) <= 4


def test_what_is_acknowledged_while_the_disk_is_full_is_let_go_later(
    tmp_path: Path, clock: ManualClock, samples: MakeSamples
) -> None:
    store = store_in(tmp_path, clock)
    store.commit(samples(3), 0, ())
    on_disk = store.stream
    with full_disk():
        store.commit(samples(2, first=3), 0, ())
        acks = [DataAck(stream=on_disk, upto=3), DataAck(stream=store.stream, upto=1)]
        store.commit(samples(1, first=5), 0, acks)
    pass_time(clock)
    store.commit(samples(1, first=6), 0, ())
    assert store.books(()) == Books(7, 4, 3, 0)
    store.close(())


def test_a_disk_that_cannot_be_used_at_the_start_is_used_when_it_can(
    tmp_path: Path, clock: ManualClock, samples: MakeSamples
) -> None:
    (tmp_path / "spool.db").mkdir()
    store = store_in(tmp_path, clock)
    store.commit(samples(2), 0, ())
    (tmp_path / "spool.db").rmdir()
    pass_time(clock)
    store.commit(samples(1, first=2), 0, ())
    assert [power_w for _, _, power_w in everything(store)] == [10.0, 11.0, 12.0]
    assert (tmp_path / "spool.db").is_file()
    store.close(())


def test_memory_is_bounded_and_what_it_drops_is_counted(
    tmp_path: Path, clock: ManualClock, samples: MakeSamples
) -> None:
    store = store_in(tmp_path, clock)
    with full_disk():
        for first in range(0, 150_000, 5000):
            store.commit(samples(5000, first=first), 0, ())
        books = store.books(())
    assert books.balanced
    assert books.generated == 150_000
    assert 10_000 < books.lost < 100_000
    pass_time(clock)
    store.commit(samples(1), 0, ())
    assert store.books(()).balanced
    store.close(())


def test_a_database_that_breaks_while_it_is_used_is_salvaged(
    tmp_path: Path, clock: ManualClock, samples: MakeSamples, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_in(tmp_path, clock)
    for first in range(0, 2000, 50):
        store.commit(samples(50, first=first), 0, ())
    store.close(())
    store = store_in(tmp_path, clock)
    path = tmp_path / "spool.db"
    content = bytearray(path.read_bytes())
    for page in range(2, 12):
        content[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    path.write_bytes(content)
    for first in range(2000, 2010):
        pass_time(clock)
        store.commit(samples(1, first=first), 0, [DataAck(stream=store.stream, upto=first - 1999)])
    books = store.books(())
    assert books.balanced
    assert books.generated == 2010
    store.close(())


def test_after_a_salvage_energies_begin_in_an_epoch_of_their_own(
    tmp_path: Path, clock: ManualClock, samples: MakeSamples
) -> None:
    store = store_in(tmp_path, clock)
    store.commit(samples(3), 0, ())
    store.close(())
    (tmp_path / "spool.db").write_bytes(b"x" * 9000)
    again = store_in(tmp_path, clock)
    assert again.energies == {}
    assert again.first_epoch == clock.wall_us() // 1_000_000
    assert again.books(()) == Books(3, 0, 0, 3)
    again.close(())
