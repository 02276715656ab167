import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.sample import EnergyState, Sample
from agent.spool.accounts import Books
from agent.spool.database import SpoolBounds, SpoolDatabase
from agent.spool.row import position
from hil.wire import DataAck, Lost

MakeSamples = Callable[..., list[Sample]]

NOW_US = 1_750_000_000_000_000
FAR = position(1 << 20, 0)
LARGE = SpoolBounds(max_bytes=1 << 30, max_age_s=1e9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[SpoolDatabase]:
    database = SpoolDatabase(path, LARGE)
    database.open()
    yield database
    database.close()


def ack(database: SpoolDatabase, upto: int, *have: tuple[int, int]) -> bool:
    return database.acknowledge(DataAck(stream=database.stream, upto=upto, have=list(have)))


def seqs(database: SpoolDatabase, after: int = 0, before: int = FAR) -> list[int]:
    batch = database.batch(after, before)
    return [record.seq for record in batch.records] if batch else []


def test_samples_are_numbered_from_one_without_a_gap(spool: SpoolDatabase, samples: MakeSamples) -> None:
    first = spool.commit(samples(3), NOW_US)
    second = spool.commit(samples(2), NOW_US)
    assert [record.seq for record in first.records + second.records] == [1, 2, 3, 4, 5]
    assert first.stream == second.stream == spool.stream
    assert spool.end == position(1, 6)


def test_a_sample_comes_back_as_it_was_committed(spool: SpoolDatabase, samples: MakeSamples) -> None:
    committed = spool.commit(samples(3), NOW_US)
    batch = spool.batch(0, FAR)
    assert batch is not None
    assert batch.records == committed.records
    assert batch.stream == spool.stream


def test_numbers_stream_and_energy_go_on_over_a_restart(path: Path, samples: MakeSamples) -> None:
    before = SpoolDatabase(path, LARGE)
    before.open()
    before.commit(samples(3), NOW_US)
    before.close()
    after = SpoolDatabase(path, LARGE)
    after.open()
    assert after.stream == before.stream
    assert after.energies() == [("m", EnergyState(200.0, 0, device=False))]
    assert [record.seq for record in after.commit(samples(1), NOW_US).records] == [4]
    after.close()


def test_numbers_go_on_also_when_everything_was_acknowledged(path: Path, samples: MakeSamples) -> None:
    before = SpoolDatabase(path, LARGE)
    before.open()
    before.commit(samples(3), NOW_US)
    ack(before, 3)
    before.close()
    after = SpoolDatabase(path, LARGE)
    after.open()
    assert after.commit(samples(1), NOW_US).records[0].seq == 4
    after.close()


def test_an_ack_deletes_exactly_what_it_names(spool: SpoolDatabase, samples: MakeSamples) -> None:
    spool.commit(samples(10), NOW_US)
    assert ack(spool, 3, (5, 6), (9, 9))
    assert seqs(spool) == [4, 7, 8, 10]
    assert spool.recount() == Books(10, 6, 4, 0)


def test_an_ack_again_changes_nothing(spool: SpoolDatabase, samples: MakeSamples) -> None:
    spool.commit(samples(10), NOW_US)
    ack(spool, 4)
    ack(spool, 4)
    ack(spool, 2)
    assert spool.books() == Books(10, 4, 6, 0)


@pytest.mark.parametrize(
    ("upto", "have"),
    [(11, []), (2**53, []), (0, [(5, 4)]), (0, [(0, 3)]), (0, [(-5, 3)]), (2, [(9, 11)]), (0, [(1, 2**62)])],
)
def test_an_ack_that_cannot_be_true_deletes_nothing(
    spool: SpoolDatabase, samples: MakeSamples, upto: int, have: list[tuple[int, int]]
) -> None:
    spool.commit(samples(10), NOW_US)
    assert not ack(spool, upto, *have)
    assert spool.recount() == Books(10, 0, 10, 0)


def test_an_ack_of_another_stream_deletes_nothing(spool: SpoolDatabase, samples: MakeSamples) -> None:
    spool.commit(samples(10), NOW_US)
    assert not spool.acknowledge(DataAck(stream="0123456789abcdef", upto=10))
    assert spool.books().spooled == 10


def test_batches_hold_at_most_a_hundred_and_follow_each_other(spool: SpoolDatabase, samples: MakeSamples) -> None:
    spool.commit(samples(250), NOW_US)
    assert seqs(spool) == list(range(1, 101))
    assert seqs(spool, position(1, 100)) == list(range(101, 201))
    assert seqs(spool, position(1, 200)) == list(range(201, 251))
    assert spool.batch(position(1, 250), FAR) is None


def test_a_batch_ends_before_the_given_position(spool: SpoolDatabase, samples: MakeSamples) -> None:
    spool.commit(samples(10), NOW_US)
    assert seqs(spool, position(1, 2), position(1, 6)) == [3, 4, 5]
    assert spool.batch(0, position(1, 1)) is None


def test_samples_that_could_not_be_stored_get_numbers_and_a_tombstone(
    spool: SpoolDatabase, samples: MakeSamples
) -> None:
    spool.commit(samples(2), NOW_US)
    committed = spool.commit(samples(1), NOW_US, unstored=3)
    assert committed.records[0].seq == 6
    batch = spool.batch(0, FAR)
    assert batch is not None
    assert batch.lost == [Lost(3, 5, "backlog")]
    assert spool.recount() == Books(6, 0, 3, 3)


def test_a_full_spool_drops_its_oldest_and_says_which(path: Path, samples: MakeSamples) -> None:
    database = SpoolDatabase(path, SpoolBounds(max_bytes=100_000, max_age_s=1e9))
    database.open()
    for first in range(0, 5000, 50):
        database.commit(samples(50, first=first), NOW_US)
    books = database.recount()
    assert books.balanced
    assert books.generated == 5000
    assert books.lost > 3000
    batch = database.batch(0, FAR)
    assert batch is not None
    assert batch.lost == [Lost(1, books.lost, "spool_full")]
    assert batch.records[0].seq == books.lost + 1
    assert path.stat().st_size < 200_000
    database.close()


def test_what_is_too_old_is_dropped_and_said(path: Path, samples: MakeSamples) -> None:
    database = SpoolDatabase(path, SpoolBounds(max_bytes=1 << 30, max_age_s=100.0))
    database.open()
    database.commit(samples(1), NOW_US)
    for first in range(1, 201):
        sample = samples(1, first=first)
        database.commit(sample, sample[0].t_us)
    batch = database.batch(0, FAR)
    assert batch is not None
    assert 100 <= batch.lost[0].last <= 105
    assert {lost.why for lost in batch.lost} == {"too_old"}
    assert database.recount().balanced
    database.close()


def test_a_tombstone_is_acknowledged_like_a_sample(spool: SpoolDatabase, samples: MakeSamples) -> None:
    spool.commit(samples(1), NOW_US)
    spool.commit(samples(1), NOW_US, unstored=3)
    ack(spool, 4)
    batch = spool.batch(0, FAR)
    assert batch is not None
    assert batch.lost == []
    assert [record.seq for record in batch.records] == [5]


def test_a_tombstone_lengthened_after_it_was_sent_lives_on_with_its_rest(
    spool: SpoolDatabase, samples: MakeSamples
) -> None:
    spool.commit(samples(1), NOW_US, unstored=3)
    ack(spool, 2)
    batch = spool.batch(0, FAR)
    assert batch is not None
    assert batch.lost == [Lost(3, 3, "backlog")]


def test_a_tombstone_alone_makes_a_batch(spool: SpoolDatabase, samples: MakeSamples) -> None:
    spool.commit(samples(1), NOW_US, unstored=3)
    ack(spool, 0, (4, 4))
    batch = spool.batch(0, FAR)
    assert batch is not None
    assert (batch.records, batch.lost) == ([], [Lost(1, 3, "backlog")])
    assert spool.batch(position(1, 3), FAR) is None


def test_a_row_with_a_flipped_bit_becomes_a_tombstone(spool: SpoolDatabase, path: Path, samples: MakeSamples) -> None:
    spool.commit(samples(5), NOW_US)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE sample SET body = replace(body, '12.0', '13.0') WHERE position = ?", (position(1, 3),))
    db.close()
    batch = spool.batch(0, FAR)
    assert batch is not None
    assert [record.seq for record in batch.records] == [1, 2, 4, 5]
    assert batch.lost == [Lost(3, 3, "spool_corrupt")]
    assert spool.recount() == Books(5, 0, 4, 1)


def test_an_unsafe_life_before_a_reboot_ends_the_stream(path: Path, samples: MakeSamples) -> None:
    database = SpoolDatabase(path, LARGE)
    database.open()
    database.begin_life("boot-1", safe=False, numbered=0)
    database.commit(samples(3), NOW_US)
    old = database.stream
    database.close()
    database.open()
    assert database.begin_life("boot-2", safe=False, numbered=0) == 0
    assert database.stream != old
    assert database.commit(samples(1), NOW_US).records[0].seq == 1
    batch = database.batch(0, FAR)
    assert batch is not None
    assert (batch.stream, len(batch.records)) == (old, 3)
    database.close()


@pytest.mark.parametrize(("safe", "closed", "boot"), [(True, False, "b2"), (False, True, "b2"), (False, False, "b1")])
def test_a_stream_goes_on_where_nothing_can_have_been_lost(
    path: Path, samples: MakeSamples, safe: bool, closed: bool, boot: str
) -> None:
    database = SpoolDatabase(path, LARGE)
    database.open()
    database.begin_life("b1", safe=safe, numbered=0)
    database.commit(samples(3), NOW_US)
    if closed:
        database.end_life()
    database.close()
    database.open()
    assert database.begin_life(boot, safe=safe, numbered=4) is None
    database.close()


def test_a_file_that_is_behind_its_account_declares_the_rest_lost(spool: SpoolDatabase, samples: MakeSamples) -> None:
    spool.commit(samples(3), NOW_US)
    old = spool.stream
    assert spool.begin_life("b", safe=True, numbered=10) == 6
    assert spool.stream != old
    assert spool.recount() == Books(9, 0, 3, 6)
    batch = spool.batch(0, FAR)
    assert batch is not None
    assert batch.lost == [Lost(4, 9, "power_cut")]


def test_an_old_stream_is_forgotten_once_acknowledged(spool: SpoolDatabase, samples: MakeSamples) -> None:
    spool.commit(samples(3), NOW_US)
    old = spool.stream
    spool.begin_life("b", safe=True, numbered=5)
    assert [stream.name for stream in spool.account().streams] == [old, spool.stream]
    assert spool.acknowledge(DataAck(stream=old, upto=4))
    assert [stream.name for stream in spool.account().streams] == [spool.stream]


def test_another_spool_is_adopted_whole(spool: SpoolDatabase, samples: MakeSamples) -> None:
    spool.commit(samples(3), NOW_US)
    other = SpoolDatabase(None, LARGE, generation=2)
    other.open()
    other.commit(samples(4, meter="n"), NOW_US, unstored=2)
    other.acknowledge(DataAck(stream=other.stream, upto=0, have=[(3, 3)]))
    spool.adopt(other)
    assert spool.stream == other.stream
    assert spool.recount() == Books(9, 1, 6, 2)
    assert [record.seq for record in spool.commit(samples(1), NOW_US).records] == [7]
    assert seqs(spool) == [1, 2, 3]
    assert seqs(spool, position(1, 3)) == [4, 5, 6, 7]
    assert dict(spool.energies()).keys() == {"m", "n"}
    other.close()


def test_an_adopted_stream_comes_after_those_that_were_there(spool: SpoolDatabase, samples: MakeSamples) -> None:
    spool.commit(samples(1), NOW_US)
    other = SpoolDatabase(None, LARGE, generation=1)  # begun while the one on disk could not be looked at
    other.open()
    other.commit(samples(2), NOW_US, unstored=1)
    spool.adopt(other)
    assert seqs(spool, position(1, 1)) == [2, 3]
    assert spool.recount().balanced
    other.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE books SET acked = acked + 1",
        "DELETE FROM books",
        "DELETE FROM stream",
        "UPDATE stream SET next_seq = 2",
        "UPDATE stream SET next_seq = 'soon'",
        "DELETE FROM sample WHERE position % 2 = 0",
        "DROP TABLE tombstone",
        "PRAGMA user_version = 99",
    ],
)
def test_a_database_that_contradicts_itself_is_not_opened(path: Path, samples: MakeSamples, damage: str) -> None:
    database = SpoolDatabase(path, LARGE)
    database.open()
    database.commit(samples(5), NOW_US)
    database.close()
    with sqlite3.connect(path) as db:
        db.execute(damage)
    db.close()
    with pytest.raises(sqlite3.Error):
        SpoolDatabase(path, LARGE).open()
