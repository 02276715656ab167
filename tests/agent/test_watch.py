import pytest

from agent.watch import Failsafe, LeaseState, Watch


@pytest.fixture
def watch() -> Watch:
    return Watch(started=100.0)


def test_init_until_a_heartbeat(watch: Watch) -> None:
    assert watch.state(100.0) is LeaseState.INIT
    watch.heartbeat(1, 101.0)
    assert watch.state(101.0) is LeaseState.CONTROLLED


def test_autonomous_when_no_coordinator_ever_came(watch: Watch) -> None:
    assert watch.state(219.9) is LeaseState.INIT
    assert watch.state(220.0) is LeaseState.AUTONOMOUS
    watch.heartbeat(1, 500.0)
    assert watch.state(500.0) is LeaseState.CONTROLLED


def test_hold_after_fifteen_seconds_of_silence(watch: Watch) -> None:
    watch.heartbeat(1, 100.0)
    assert watch.state(115.0) is LeaseState.CONTROLLED
    assert watch.state(115.1) is LeaseState.HOLD
    watch.heartbeat(1, 130.0)
    assert watch.state(130.0) is LeaseState.CONTROLLED


def test_failsafe_ends_on_heartbeat_and_command_whichever_comes_first(watch: Watch) -> None:
    watch.fail()
    watch.heartbeat(2, 200.0)
    assert watch.state(200.0) is LeaseState.FAILSAFE
    watch.command(201.0)
    assert watch.state(201.0) is LeaseState.CONTROLLED
    watch.fail()
    watch.command(300.0)
    assert watch.state(300.0) is LeaseState.FAILSAFE
    watch.heartbeat(2, 301.0)
    assert watch.state(301.0) is LeaseState.CONTROLLED


def test_what_came_before_the_failsafe_does_not_end_it(watch: Watch) -> None:
    watch.heartbeat(1, 100.0)
    watch.command(100.0)
    watch.fail()
    assert watch.failsafe
    watch.command(101.0)
    assert watch.failsafe


def test_a_heartbeat_that_has_died_again_does_not_end_the_failsafe(watch: Watch) -> None:
    watch.fail()
    watch.heartbeat(1, 100.0)
    watch.command(116.0)
    assert watch.failsafe


def test_silence_begins_at_seven_and_a_half_seconds(watch: Watch) -> None:
    assert watch.silent(100.0)
    watch.heartbeat(1, 100.0)
    assert not watch.silent(107.5)
    assert watch.silent(107.6)


def test_only_the_coordinator_of_the_same_epoch_vouches(watch: Watch) -> None:
    watch.heartbeat(7, 100.0)
    assert watch.alive(7, 115.0)
    assert not watch.alive(7, 115.1)
    assert not watch.alive(6, 100.0)
    assert not watch.alive(8, 100.0)


def test_the_local_lock_beats_everything_and_ends_the_failsafe(watch: Watch) -> None:
    watch.fail()
    watch.lock(True)
    assert watch.state(100.0) is LeaseState.LOCKED
    watch.lock(False)
    assert watch.state(100.0) is LeaseState.INIT


def test_a_failsafe_in_words() -> None:
    assert str(Failsafe()) == "release"
    assert str(Failsafe(7.5)) == "limit 7.5 W"
