from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.answers import SETTLED_S, Answers
from agent.leasestore import ANSWERS_KEPT, Answered, LeaseStore
from hil.clock import ManualClock
from hil.wire import Ack, AckState, Action, Command, Target


def ack(name: str, state: AckState = AckState.APPLIED) -> Ack:
    return Ack(id=name, issuer="lab", epoch=1, seq=1, actuator="board", state=state)


class Line:
    """A connection that can be down; ``sent`` is what went out."""

    def __init__(self) -> None:
        self.up = True
        self.sent: list[tuple[str, AckState]] = []

    def publish(self, answer: Ack) -> bool:
        if self.up:
            self.sent.append((answer.id, answer.state))
        return self.up


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LeaseStore]:
    store = LeaseStore(tmp_path / "lease.db")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def answers(store: LeaseStore, clock: ManualClock, line: Line) -> Answers:
    return Answers(store, clock, "boot", line.publish)


async def test_terminal_answers_are_stored_before_they_are_sent(
    answers: Answers, store: LeaseStore, line: Line, clock: ManualClock
) -> None:
    await answers.conclude([ack("command-1", AckState.EXPIRED)])
    await store.close()
    memory = await store.open()
    assert [answer.ack.id for answer in memory.answers] == ["command-1"]
    assert line.sent == [("command-1", AckState.EXPIRED)]


async def test_other_answers_are_sent_at_once_and_stored_soon(answers: Answers, store: LeaseStore, line: Line) -> None:
    answers.say(ack("command-1"))
    answers.refuse(ack("command-2", AckState.REJECTED))
    assert line.sent == [("command-1", AckState.APPLIED)]
    await answers.flush()
    assert line.sent == [("command-1", AckState.APPLIED), ("command-2", AckState.REJECTED)]
    await store.close()
    memory = await store.open()
    assert [(answer.ack.id, answer.refused) for answer in memory.answers] == [("command-1", False), ("command-2", True)]


async def test_a_stored_end_is_not_overwritten_by_what_came_before(answers: Answers, store: LeaseStore) -> None:
    answers.say(ack("command-1"))
    await answers.conclude([ack("command-1", AckState.EXPIRED)])
    await answers.flush()
    await store.close()
    assert (await store.open()).answers[0].ack.state is AckState.EXPIRED


async def test_what_could_not_be_sent_is_sent_when_the_line_is_back_newest_state_only(
    answers: Answers, line: Line
) -> None:
    line.up = False
    answers.say(ack("command-1", AckState.RECEIVED))
    answers.say(ack("command-1"))
    await answers.conclude([ack("command-1", AckState.EXPIRED), ack("command-2", AckState.RELEASED)])
    line.up = True
    answers.connection(up=True)
    assert line.sent == [("command-1", AckState.EXPIRED), ("command-2", AckState.RELEASED)]


async def test_what_was_in_flight_when_the_line_broke_is_sent_again(
    answers: Answers, line: Line, clock: ManualClock
) -> None:
    await answers.conclude([ack("command-1", AckState.EXPIRED)])
    await clock.advance(SETTLED_S / 2)
    await answers.tick()
    answers.connection(up=False)
    answers.connection(up=True)
    assert line.sent == [("command-1", AckState.EXPIRED)] * 2


async def test_what_has_long_been_out_is_not_sent_again(
    answers: Answers, store: LeaseStore, line: Line, clock: ManualClock
) -> None:
    await answers.conclude([ack("command-1", AckState.EXPIRED)])
    await clock.advance(SETTLED_S + 1)
    await answers.tick()
    answers.connection(up=False)
    answers.connection(up=True)
    assert line.sent == [("command-1", AckState.EXPIRED)]
    await store.close()
    assert (await store.open()).answers[0].settled


async def test_a_full_queue_is_tried_again_each_second(answers: Answers, line: Line) -> None:
    line.up = False
    await answers.conclude([ack("command-1", AckState.EXPIRED)])
    line.up = True
    await answers.tick()
    assert line.sent == [("command-1", AckState.EXPIRED)]


async def test_answers_of_an_earlier_life_are_known_and_unsettled_ones_sent(answers: Answers, line: Line) -> None:
    answers.load(
        [
            Answered(ack("command-1", AckState.EXPIRED), refused=False, settled=True),
            Answered(ack("command-2", AckState.REJECTED), refused=True),
            Answered(ack("command-3", AckState.APPLIED), refused=False),
        ]
    )
    assert answers.get("command-1") == ack("command-1", AckState.EXPIRED)
    assert [answer.id for answer in answers.unfinished] == ["command-3"]
    answers.connection(up=True)
    assert line.sent == [("command-2", AckState.REJECTED), ("command-3", AckState.APPLIED)]


async def test_a_flood_of_refusals_displaces_no_other_answer(answers: Answers) -> None:
    await answers.conclude([ack("command-1", AckState.EXPIRED)])
    for number in range(3 * ANSWERS_KEPT):
        answers.refuse(ack(f"flood-{number}", AckState.REJECTED))
    await answers.flush()
    assert answers.get("command-1") is not None
    assert answers.get("flood-0") is None
    assert answers.get(f"flood-{3 * ANSWERS_KEPT - 1}") is not None


async def test_unfinished_answers_are_never_displaced(answers: Answers) -> None:
    answers.say(ack("live"))
    await answers.conclude([ack(f"command-{number}", AckState.EXPIRED) for number in range(2 * ANSWERS_KEPT)])
    assert [answer.id for answer in answers.unfinished] == ["live"]
    assert answers.get("command-0") is None


async def test_a_broken_store_stops_no_answer(answers: Answers, store: LeaseStore, line: Line) -> None:
    await store.close()
    await answers.conclude([ack("command-1", AckState.EXPIRED)])
    answers.refuse(ack("command-2", AckState.REJECTED))
    await answers.flush()
    assert line.sent == [("command-1", AckState.EXPIRED), ("command-2", AckState.REJECTED)]


async def test_answers_build_on_the_newest(answers: Answers, clock: ManualClock) -> None:
    command = Command(
        id="command-1",
        issuer="lab",
        epoch=2,
        seq=3,
        target=Target(node="jetson-1", actuator="board"),
        action=Action.LIMIT,
        limit_w=7.5,
        issued_at=datetime(2026, 6, 21, tzinfo=UTC),
        ttl_s=60.0,
    )
    first = answers.compose(command, 123, clamped=True)
    assert (first.state, first.requested_w, first.t_received_us, first.boot_id) == (
        AckState.RECEIVED,
        7.5,
        123,
        "boot",
    )
    answers.say(first)
    await clock.advance(1.0)
    second = answers.compose(command, 123, state=AckState.APPLIED)
    assert second.clamped
    assert second.t_us == clock.wall_us() > first.t_us
    await answers.flush()
