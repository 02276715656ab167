"""Backoff, and what people are told of a connection's troubles."""

import logging
import random

import pytest

from hil.reconnect import Backoff, Troubles

LOG = logging.getLogger("test")


def test_the_bound_doubles_up_to_its_cap_and_the_jitter_is_full() -> None:
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    draws = []
    for seed in range(300):
        backoff = Backoff(random.Random(seed))
        draws.append([backoff.next_s() for _ in bounds])
    for bound, drawn in zip(bounds, zip(*draws, strict=True), strict=True):
        assert all(0.0 <= pause <= bound for pause in drawn)
        assert min(drawn) < 0.1 * bound
        assert max(drawn) > 0.9 * bound


def test_it_never_grows_past_the_cap() -> None:
    backoff = Backoff(random.Random(1))
    assert all(backoff.next_s() <= 5.0 for _ in range(5_000))


def test_reset_starts_over() -> None:
    backoff = Backoff(random.Random(1))
    for _ in range(20):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 0.1


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def lines(told: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in told.records]


def test_a_first_connection_is_told_once(told: pytest.LogCaptureFixture) -> None:
    troubles = Troubles(LOG, "x")
    troubles.connected("MQTT 5")
    troubles.holds("MQTT 5")
    assert lines(told) == ["x: connected, MQTT 5"]


def test_a_repeating_fault_is_told_once_and_its_count_on_recovery(told: pytest.LogCaptureFixture) -> None:
    troubles = Troubles(LOG, "x")
    for _ in range(7):
        troubles.failed("connection refused", flapping=False)
    troubles.connected("MQTT 5")
    assert lines(told) == [
        "x: connection refused; will keep trying",
        "x: connected, MQTT 5 after 7 failed attempts",
    ]


def test_faults_that_take_turns_are_told_once_each(told: pytest.LogCaptureFixture) -> None:
    troubles = Troubles(LOG, "x")
    for why in ("refused", "timed out", "refused", "timed out"):
        troubles.failed(why, flapping=False)
    assert lines(told) == ["x: refused; will keep trying", "x: timed out; will keep trying"]


def test_after_it_held_the_same_fault_is_news_again(told: pytest.LogCaptureFixture) -> None:
    troubles = Troubles(LOG, "x")
    for _ in range(2):
        troubles.failed("refused", flapping=False)
        troubles.connected("MQTT 5")
        troubles.holds("MQTT 5")
    assert (
        lines(told)
        == [
            "x: refused; will keep trying",
            "x: connected, MQTT 5 after 1 failed attempt",
        ]
        * 2
    )


def test_a_flapping_connection_is_told_once_until_it_holds(told: pytest.LogCaptureFixture) -> None:
    troubles = Troubles(LOG, "x")
    troubles.connected("MQTT 5")
    for _ in range(50):
        troubles.failed("taken over", flapping=True)
        troubles.connected("MQTT 5")
    assert lines(told) == ["x: connected, MQTT 5", "x: taken over; will keep trying"]
    troubles.holds("MQTT 5")
    assert lines(told)[2:] == ["x: connected, MQTT 5 after 50 failed attempts"]
