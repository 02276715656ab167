"""Heartbeats: regular, and at once for agents that come."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from coordinator.presence import GREETING_S, HEARTBEAT_S, Presence
from hil.bus import MemoryBroker, MemoryBus
from hil.clock import ManualClock, settle
from hil.wire import CoordinatorState, Topics, decode

TOPICS = Topics("lab")


class Ear:
    """Counts heartbeats."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._heard = 0

    def beats(self) -> int:
        """How many came since the last time."""
        before, self._heard = self._heard, self._bus.counters.received
        return self._heard - before


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def ear(broker: MemoryBroker, clock: ManualClock) -> Ear:
    bus = MemoryBus(broker, clock.monotonic)
    bus.subscribe(TOPICS.heartbeat)
    await bus.start()
    return Ear(bus)


@pytest.fixture
async def presence(broker: MemoryBroker, clock: ManualClock, ear: Ear) -> AsyncIterator[Presence]:
    bus = MemoryBus(broker, clock.monotonic)
    await bus.start()
    made = Presence(TOPICS, "a1", 7, bus, clock)
    beating = asyncio.create_task(made.beat())
    yield made
    beating.cancel()
    await settle()


async def advance(clock: ManualClock, seconds: float) -> None:
    await settle()
    await clock.advance(seconds)
    await settle()


async def period(clock: ManualClock) -> None:
    await advance(clock, GREETING_S)
    await advance(clock, HEARTBEAT_S - GREETING_S)


async def test_it_beats_every_five_seconds_once_it_is_online(presence: Presence, ear: Ear, clock: ManualClock) -> None:
    await period(clock)
    assert ear.beats() == 0
    presence.come_online()
    assert ear.beats() == 1
    for _ in range(3):
        await period(clock)
        assert ear.beats() == 1
    presence.go_offline()
    await period(clock)
    assert ear.beats() == 0


async def test_an_agent_that_comes_is_greeted_at_once(presence: Presence, ear: Ear, clock: ManualClock) -> None:
    presence.come_online()
    await advance(clock, 1.0)
    ear.beats()
    presence.greet()
    assert ear.beats() == 1


async def test_many_that_come_together_are_greeted_together(presence: Presence, ear: Ear, clock: ManualClock) -> None:
    presence.come_online()
    await advance(clock, 1.0)
    ear.beats()
    for _ in range(1000):
        presence.greet()
    assert ear.beats() == 1
    await advance(clock, GREETING_S)
    await advance(clock, GREETING_S)
    assert ear.beats() == 1
    await advance(clock, 1.0)
    assert ear.beats() == 0


async def test_who_is_not_online_greets_nobody(presence: Presence, ear: Ear) -> None:
    presence.greet()
    assert ear.beats() == 0


def retained(broker: MemoryBroker) -> CoordinatorState:
    return decode(broker.retained[TOPICS.coordinator_state], CoordinatorState)


async def test_it_says_online_and_offline_retained_and_gives_way_without_a_word(
    presence: Presence, broker: MemoryBroker
) -> None:
    presence.come_online()
    assert (retained(broker).online, retained(broker).epoch) == (True, 7)
    presence.go_offline()
    assert not retained(broker).online
    presence.come_online()
    presence.give_way()
    presence.go_offline()
    assert retained(broker).online


async def test_it_drains_before_it_leaves(
    presence: Presence, broker: MemoryBroker, clock: ManualClock, ear: Ear
) -> None:
    presence.come_online()
    ear.beats()
    presence.drain()
    assert (retained(broker).online, retained(broker).draining) == (False, True)
    await period(clock)
    assert ear.beats() == 0
    presence.go_offline()
    assert (retained(broker).online, retained(broker).draining) == (False, False)
