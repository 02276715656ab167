from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.gate import Arrival, Fence, Gate
from agent.watch import Watch
from hil.wire import Action, Command, Target

NOW = datetime(2026, 6, 21, 20, tzinfo=UTC)


def command(**changes: Any) -> Command:
    fields: dict[str, Any] = {
        "id": "command-1",
        "issuer": "lab",
        "epoch": 42,
        "seq": 7,
        "target": Target(node="jetson-1", actuator="board"),
        "action": Action.LIMIT,
        "limit_w": 7.5,
        "issued_at": NOW,
        "ttl_s": 60.0,
    }
    return Command(**{**fields, **changes})


def arrival(*, late_s: float = 0.0, retained: bool = False, synchronised: bool | None = True) -> Arrival:
    return Arrival(retained, round((NOW.timestamp() + late_s) * 1e6), 1000.0, synchronised)


@pytest.fixture
def watch() -> Watch:
    return Watch(started=900.0)


@pytest.fixture
def gate() -> Gate:
    return Gate("jetson-1", {})


def code(gate: Gate, watch: Watch, order: Command, how: Arrival | None = None) -> str | None:
    refusal = gate.admit(order, how or arrival(), watch)
    return refusal.code if refusal is not None else None


def test_a_command_in_order_comes_in(gate: Gate, watch: Watch) -> None:
    assert code(gate, watch, command()) is None
    assert gate.highest_epoch == 42


@pytest.mark.parametrize(
    ("order", "how", "expected"),
    [
        (command(), arrival(retained=True), "retained"),
        (command(v=2), arrival(), "version"),
        (command(target=Target(node="other", actuator="board")), arrival(), "unknown_target"),
        (command(), arrival(late_s=60.1), "expired_on_arrival"),
        (command(), arrival(late_s=-5.1), "clock"),
        (command(), arrival(synchronised=None), "clock"),
        (command(), arrival(synchronised=False), "clock"),
    ],
)
def test_refusals_leave_the_fence_alone(gate: Gate, watch: Watch, order: Command, how: Arrival, expected: str) -> None:
    assert code(gate, watch, order, how) == expected
    assert gate.highest_epoch == 0
    assert code(gate, watch, command()) is None


def test_late_but_within_its_time_and_a_little_early_are_taken(gate: Gate, watch: Watch) -> None:
    assert code(gate, watch, command(seq=1), arrival(late_s=59.9)) is None
    assert code(gate, watch, command(seq=2), arrival(late_s=-4.9)) is None


def test_sequence_must_rise_within_an_epoch(gate: Gate, watch: Watch) -> None:
    assert code(gate, watch, command(seq=7)) is None
    assert code(gate, watch, command(id="command-2", seq=7)) == "stale_seq"
    assert code(gate, watch, command(id="command-3", seq=6)) == "stale_seq"
    assert code(gate, watch, command(id="command-4", seq=9)) is None


def test_a_newer_epoch_fences_off_the_older_and_starts_its_own_sequence(gate: Gate, watch: Watch) -> None:
    assert code(gate, watch, command(epoch=42, seq=100)) is None
    assert code(gate, watch, command(epoch=43, seq=1)) is None
    refusal = gate.admit(command(epoch=42, seq=101), arrival(), watch)
    assert refusal is not None
    assert refusal.code == "stale_epoch"
    assert "43" in refusal.detail


def test_issuers_are_compared_with_themselves_only(gate: Gate, watch: Watch) -> None:
    assert code(gate, watch, command(issuer="lab", epoch=42)) is None
    assert code(gate, watch, command(issuer="roof", epoch=3)) is None
    assert gate.highest_epoch == 42


def test_fences_of_an_earlier_life_hold(watch: Watch) -> None:
    gate = Gate("jetson-1", {"lab": Fence(42, 7)})
    assert gate.highest_epoch == 42
    assert code(gate, watch, command(seq=7)) == "stale_seq"
    assert code(gate, watch, command(seq=8)) is None


def test_without_a_synchronised_clock_a_heartbeat_of_the_same_epoch_vouches(gate: Gate, watch: Watch) -> None:
    watch.heartbeat(42, 990.0)
    year_late = arrival(late_s=timedelta(days=365).total_seconds(), synchronised=None)
    assert code(gate, watch, command(), year_late) is None
    watch.heartbeat(41, 990.0)
    assert code(gate, watch, command(seq=8), year_late) == "clock"
