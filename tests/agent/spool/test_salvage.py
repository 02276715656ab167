import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.sample import Sample
from agent.spool.accounts import AccountFile, Books
from agent.spool.carve import carve
from agent.spool.database import SpoolBounds, SpoolDatabase
from agent.spool.row import position
from agent.spool.salvage import ACCOUNT, DATABASE, open_spool
from hil.intervals import Intervals
from hil.wire import DataAck

MakeSamples = Callable[..., list[Sample]]

NOW_US = 1_750_000_000_000_000
LARGE = SpoolBounds(max_bytes=1 << 30, max_age_s=1e9)
GENERATED, ACKED = 2000, 300


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, samples: MakeSamples) -> Path:
    """A folder as an agent leaves it that was killed: database, write-ahead log and account."""
    folder = tmp_path_factory.mktemp("alive")
    account = AccountFile(folder / ACCOUNT)
    database = SpoolDatabase(folder / DATABASE, LARGE)
    database.open()
    for first in range(0, GENERATED, 20):
        database.commit(samples(20, first=first), NOW_US)
    database.acknowledge(DataAck(stream=database.stream, upto=ACKED))
    account.write(database.account())
    dead = folder / "dead"
    # Copied while it is open, so that the log is not yet part of the database.
    shutil.copytree(folder, dead, ignore=shutil.ignore_patterns("dead"))
    database.close()
    account.close()
    return dead


@pytest.fixture
def left_behind(tmp_path: Path, original: Path) -> Path:
    """A copy of the original, to be damaged."""
    return shutil.copytree(original, tmp_path / "dead")


def everything(database: SpoolDatabase) -> tuple[Intervals, Intervals]:
    """The numbers of the samples, and of the tombstones, of the first generation."""
    kept, lost = Intervals(), Intervals()
    after = 0
    while (batch := database.batch(after, position(2, 0))) is not None:
        for record in batch.records:
            assert record.w == 10.0 + record.seq - 1  # never another sample's value
            kept.add(record.seq, record.seq)
        for tombstone in batch.lost:
            lost.add(tombstone.first, tombstone.last)
        after = position(1, batch.ranges[-1][1])
    return kept, lost


def test_a_sound_spool_is_simply_opened(left_behind: Path) -> None:
    opened = open_spool(left_behind, LARGE, NOW_US)
    assert not opened.salvaged
    assert opened.numbered == GENERATED + 1
    assert opened.database.recount() == Books(GENERATED, ACKED, GENERATED - ACKED, 0)
    opened.database.close()


def test_an_empty_folder_gets_a_new_spool(tmp_path: Path) -> None:
    opened = open_spool(tmp_path, LARGE, NOW_US)
    assert (opened.salvaged, opened.database.recount()) == (False, Books())
    opened.database.close()


def test_every_intact_row_is_carved_out_of_database_and_log(left_behind: Path) -> None:
    found = {at for at, _, _ in carve(left_behind / DATABASE)}
    assert found >= {position(1, seq) for seq in range(ACKED + 1, GENERATED + 1)}


@pytest.mark.parametrize("size", [0, 1, 50, 100, 4095, 4096, 4097, 20_000])
def test_a_cut_database_is_salvaged(left_behind: Path, size: int) -> None:
    path = left_behind / DATABASE
    path.write_bytes(path.read_bytes()[:size])
    (left_behind / (DATABASE + "-wal")).unlink()
    check_salvaged(left_behind)


def test_a_database_that_is_gone_is_lost_and_said_so(left_behind: Path, caplog: pytest.LogCaptureFixture) -> None:
    (left_behind / DATABASE).unlink()
    (left_behind / (DATABASE + "-wal")).unlink()
    opened = open_spool(left_behind, LARGE, NOW_US)
    assert opened.database.recount() == Books(GENERATED, ACKED, 0, GENERATED - ACKED)
    kept, lost = everything(opened.database)
    assert (kept.ranges, lost.ranges) == ((), ((ACKED + 1, GENERATED),))
    assert "0 samples saved, 1700 lost" in caplog.text
    opened.database.close()


def test_something_else_in_its_place_is_moved_aside(left_behind: Path) -> None:
    (left_behind / (DATABASE + "-wal")).unlink()
    (left_behind / DATABASE).write_text("these are my notes " * 1000)
    opened = open_spool(left_behind, LARGE, NOW_US)
    assert opened.salvaged
    assert opened.database.recount().balanced
    aside = [path for path in left_behind.glob("spool.corrupt-*") if path.read_bytes().startswith(b"these are")]
    assert len(aside) == 1
    opened.database.close()


def test_a_broken_page_costs_only_its_own_rows(left_behind: Path) -> None:
    opened = open_spool(left_behind, LARGE, NOW_US)  # brings the log into the database
    opened.database.close()
    path = left_behind / DATABASE
    content = bytearray(path.read_bytes())
    content[10 * 4096 : 11 * 4096] = bytes(4096)
    content[5 * 4096 : 5 * 4096 + 8] = b"\xff" * 8
    path.write_bytes(content)
    books = check_salvaged(left_behind)
    assert books.spooled > 0.8 * (GENERATED - ACKED)


def test_without_an_account_the_database_itself_tells_what_it_can(left_behind: Path) -> None:
    open_spool(left_behind, LARGE, NOW_US).database.close()
    (left_behind / ACCOUNT).unlink()
    path = left_behind / DATABASE
    content = bytearray(path.read_bytes())
    content[-4096:] = b"\xff" * 4096
    path.write_bytes(content)
    opened = open_spool(left_behind, LARGE, NOW_US)
    assert opened.salvaged
    books = opened.database.recount()
    assert (books.generated, books.acked, books.balanced) == (GENERATED, ACKED, True)
    assert 0 < books.lost < 200
    opened.database.close()


def test_what_is_salvaged_is_no_part_of_the_new_stream(left_behind: Path, samples: MakeSamples) -> None:
    (left_behind / (DATABASE + "-wal")).unlink()
    (left_behind / DATABASE).write_bytes(b"x" * 8192)
    opened = open_spool(left_behind, LARGE, NOW_US)
    old = AccountFile(left_behind / ACCOUNT).read()
    assert old is not None
    assert opened.database.stream != old.streams[-1].name
    assert opened.database.commit(samples(1), NOW_US).records[0].seq == 1
    opened.database.close()


def test_an_older_copy_put_in_its_place_never_reuses_numbers(left_behind: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(left_behind, older)
    database = SpoolDatabase(left_behind / DATABASE, LARGE)
    database.open()
    account = AccountFile(left_behind / ACCOUNT)
    numbers = database.account().streams[-1].next_seq
    account.write(database.account())
    database.close()
    with_later_account = AccountFile(older / ACCOUNT)
    later = AccountFile(left_behind / ACCOUNT).read()
    assert later is not None
    stream = later.streams[-1]
    stream = type(stream)(stream.generation, stream.name, stream.next_seq + 50, stream.floor)
    with_later_account.write(type(later)([stream], later.generated + 50, later.acked, later.lost))
    opened = open_spool(older, LARGE, NOW_US)
    assert opened.numbered == numbers + 50
    assert opened.database.begin_life("b", safe=True, numbered=opened.numbered) == 50
    opened.database.close()


def test_only_a_few_damaged_spools_are_kept(left_behind: Path) -> None:
    for number in range(6):
        (left_behind / DATABASE).write_bytes(b"x" * 8192)
        open_spool(left_behind, LARGE, NOW_US + number * 1_000_000).database.close()
    kept = [path for path in left_behind.glob("spool.corrupt-*") if not path.name.endswith(("-wal", "-shm"))]
    assert len(kept) == 3


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_flipped_or_cut_the_spool_opens_and_its_books_balance(left_behind: Path, seed: int) -> None:
    draw = random.Random(seed)
    for name in draw.sample([DATABASE, DATABASE + "-wal", ACCOUNT], draw.randint(1, 3)):
        path = left_behind / name
        content = bytearray(path.read_bytes())
        if draw.random() < 0.3:
            content = content[: draw.randrange(len(content))]
        for _ in range(draw.choice([0, 1, 8, 64])):
            if content:
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
    opened = open_spool(left_behind, LARGE, NOW_US)
    kept, lost = everything(opened.database)
    assert kept.count == opened.database.recount().spooled
    assert opened.database.recount().balanced
    assert all(kept.lacks(first, last) for first, last in lost)
    opened.database.close()


def check_salvaged(folder: Path) -> Books:
    """Open a damaged spool and check that nothing is wrong, unaccounted for, or both kept and lost."""
    opened = open_spool(folder, LARGE, NOW_US)
    assert opened.salvaged
    books = opened.database.recount()
    assert books.balanced
    assert (books.generated, books.acked) == (GENERATED, ACKED)
    kept, lost = everything(opened.database)
    assert kept.count == books.spooled
    assert lost.count == books.lost
    assert all(kept.lacks(first, last) for first, last in lost)
    both = Intervals([*kept, *lost])
    assert both.ranges == ((ACKED + 1, GENERATED),)
    opened.database.close()
    return books
