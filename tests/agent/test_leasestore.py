import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.gate import Fence
from agent.leasestore import ANSWERS_KEPT, TIDY_EVERY, Answered, Change, LeaseStore, Memory, StoreFailed
from hil.wire import Ack, AckState


def answered(name: str, state: AckState = AckState.RECEIVED, *, refused: bool = False) -> Answered:
    return Answered(Ack(id=name, issuer="lab", epoch=1, seq=1, actuator="board", state=state), refused)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lease.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[LeaseStore]:
    store = LeaseStore(path)
    await store.open()
    yield store
    await store.close()


async def reopened(store: LeaseStore) -> Memory:
    await store.close()
    return await store.open()


async def test_a_new_store_remembers_nothing(path: Path) -> None:
    store = LeaseStore(path)
    assert await store.open() == Memory()
    await store.close()


async def test_one_change_is_kept_as_a_whole(store: LeaseStore) -> None:
    change = Change(answers=(answered("command-1"),), fence=("lab", Fence(42, 7)), remember=("board", "[null,null]"))
    await store.write(change)
    assert await reopened(store) == Memory([answered("command-1")], {"lab": Fence(42, 7)}, {"board": "[null,null]"})


async def test_the_newest_answer_counts_and_the_order_is_the_first_ones(store: LeaseStore) -> None:
    await store.write(Change(answers=(answered("command-1"), answered("command-2"))))
    await store.write(Change(answers=(answered("command-1", AckState.EXPIRED),)))
    memory = await reopened(store)
    assert memory.answers == [answered("command-1", AckState.EXPIRED), answered("command-2")]


async def test_settled_answers_stay_settled_until_answered_anew(store: LeaseStore) -> None:
    await store.write(Change(answers=(answered("command-1"),)))
    await store.write(Change(settled=("command-1",), durable=False))
    assert (await reopened(store)).answers[0].settled
    await store.write(Change(answers=(answered("command-1", AckState.EXPIRED),)))
    assert not (await reopened(store)).answers[0].settled


async def test_a_way_back_is_remembered_until_forgotten(store: LeaseStore) -> None:
    await store.write(Change(remember=("board", "first")))
    await store.write(Change(forget="board", remember=None))
    assert (await reopened(store)).undo == {}


async def test_old_answers_are_dropped_but_unfinished_ones_and_those_of_the_other_kind_stay(store: LeaseStore) -> None:
    await store.write(Change(answers=(answered("live"), answered("refused", AckState.REJECTED, refused=True))))
    many = tuple(answered(f"command-{n}", AckState.EXPIRED) for n in range(2 * ANSWERS_KEPT))
    await store.write(Change(answers=many))
    for _ in range(TIDY_EVERY):
        await store.write(Change(durable=False))
    names = [answer.ack.id for answer in (await reopened(store)).answers]
    assert names[:2] == ["live", "refused"]
    assert names[2:] == [f"command-{n}" for n in range(ANSWERS_KEPT, 2 * ANSWERS_KEPT)]


async def test_a_failed_change_leaves_nothing_behind(store: LeaseStore, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON undo BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    other.close()
    with pytest.raises(StoreFailed, match="disk is full"):
        await store.write(Change(answers=(answered("command-1"),), remember=("board", "first")))
    assert await reopened(store) == Memory()


async def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    store = LeaseStore(tmp_path / "missing" / "lease.db")
    with pytest.raises(StoreFailed, match=r"lease\.db: unable to open"):
        await store.open()
    await store.close()


async def test_a_closed_store_says_so(store: LeaseStore) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreFailed, match="not open"):
        await store.write(Change())


@pytest.fixture
def scribble(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


@pytest.mark.usefixtures("scribble")
async def test_a_file_that_is_no_store_is_moved_aside(path: Path) -> None:
    store = LeaseStore(path)
    assert await store.open() == Memory()
    await store.write(Change(remember=("board", "first")))
    assert (await reopened(store)).undo == {"board": "first"}
    await store.close()
    assert _moved_aside(path) == 1


def _moved_aside(path: Path) -> int:
    return len(list(path.parent.glob("lease.db.corrupt-*")))


async def test_what_can_be_read_of_a_damaged_store_is_kept(store: LeaseStore, path: Path) -> None:
    answers = tuple(answered(f"command-{n:04}", AckState.EXPIRED) for n in range(500))
    await store.write(Change(answers=answers, fence=("lab", Fence(42, 7)), remember=("board", "first")))
    await store.close()
    _damage(path, "answers")
    memory = await store.open()
    assert memory.undo == {"board": "first"}
    assert memory.fences == {"lab": Fence(42, 7)}
    assert _moved_aside(path) == 1


def _damage(path: Path, table: str) -> None:
    connection = sqlite3.connect(path)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)


async def test_durable_is_the_rule(store: LeaseStore) -> None:
    def level() -> int:
        assert store._connection is not None
        (found,) = store._connection.execute("PRAGMA synchronous").fetchone()
        return int(found)

    full = 2
    assert await store._do(level) == full
    await store.write(Change(answers=(answered("command-1"),), durable=False))
    assert await store._do(level) == full
