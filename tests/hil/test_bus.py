"""MemoryBus, Inbox and the topic filter; what every bus promises is in tests/contract."""

import asyncio

import pytest

from hil.bus import BusCounters, Inbound, Inbox, MemoryBroker, MemoryBus, Will, matches
from hil.clock import settle


def bus_at(broker: MemoryBroker, will: Will | None = None, now: float = 7.0) -> MemoryBus:
    return MemoryBus(broker, lambda: now, will)


async def connected(broker: MemoryBroker, *filters: str, will: Will | None = None) -> MemoryBus:
    bus = bus_at(broker, will)
    for topic_filter in filters:
        bus.subscribe(topic_filter)
    await bus.start()
    return bus


@pytest.mark.parametrize(
    ("topic_filter", "topic", "taken"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/b", "a/b/c", False),
        ("a/b", "a", False),
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a//c", True),
        ("a/+", "a", False),
        ("+", "a", True),
        ("+", "a/b", False),
        ("/+", "/a", True),
        ("+/a", "/a", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("#", "a/b", True),
        ("#", "$SYS/broker", False),
        ("+/broker", "$SYS/broker", False),
        ("$SYS/#", "$SYS/broker", True),
        ("$SYS/+", "$SYS/broker", True),
        ("a/$x", "a/$x", True),
        ("a/#", "a/$x", True),
    ],
)
def test_matches_as_mqtt_does(topic_filter: str, topic: str, taken: bool) -> None:
    assert matches(topic_filter, topic) is taken


async def test_arrival_is_stamped_by_the_clock() -> None:
    broker = MemoryBroker()
    bus = bus_at(broker, now=12.5)
    bus.subscribe("a")
    await bus.start()
    bus.publish("a", b"x")
    assert await bus.receive() == [Inbound("a", b"x", retained=False, arrived=12.5)]


async def test_overlapping_filters_deliver_once() -> None:
    broker = MemoryBroker()
    bus = await connected(broker, "a/#", "a/b", "+/b")
    bus.publish("a/b", b"x")
    await bus.stop()
    assert bus.counters.received == 1


async def test_a_cut_bus_hears_nothing_until_it_reconnects() -> None:
    broker = MemoryBroker()
    bus = await connected(broker, "a")
    writer = await connected(broker)
    bus.cut()
    bus.cut()  # a second pull of the same cable is nothing new
    writer.publish("a", b"missed", retain=True)
    assert (bus.connected, bus.counters.received) == (False, 0)
    bus.reconnect()
    bus.reconnect()
    [message] = await bus.receive()
    assert (message.payload, message.retained) == (b"missed", True)
    assert bus.counters.connections == 2


async def test_a_cut_before_the_start_leaves_no_will() -> None:
    broker = MemoryBroker()
    bus_at(broker, Will("state", b"lost")).cut()
    assert broker.retained == {}


async def test_counters_tell_published_and_received_apart() -> None:
    broker = MemoryBroker()
    bus = await connected(broker, "a")
    writer = await connected(broker)
    for _ in range(3):
        writer.publish("a", b"x")
    writer.publish("nobody/listens", b"x")
    assert writer.counters == BusCounters(published=4, connections=1)
    assert bus.counters == BusCounters(received=3, connections=1)


async def test_a_full_inbox_drops_the_newest_and_counts() -> None:
    counters = BusCounters()
    inbox = Inbox(counters, limit=2)
    for n in range(5):
        inbox.put(Inbound("a", f"{n}".encode(), retained=False, arrived=0.0))
    inbox.wake()
    assert [message.payload for message in await inbox.take()] == [b"0", b"1"]
    assert (counters.received, counters.dropped) == (2, 3)


async def test_an_emptied_inbox_takes_again() -> None:
    counters = BusCounters()
    inbox = Inbox(counters, limit=1)
    for payload in (b"first", b"second"):
        inbox.put(Inbound("a", payload, retained=False, arrived=0.0))
        inbox.wake()
        assert [message.payload for message in await inbox.take()] == [payload]
    assert counters.dropped == 0


async def test_take_waits_until_something_is_there() -> None:
    inbox = Inbox(BusCounters())
    reader = asyncio.create_task(inbox.take())
    await settle()
    inbox.wake()  # for nothing: it must wait on
    await settle()
    assert not reader.done()
    inbox.put(Inbound("a", b"x", retained=False, arrived=0.0))
    inbox.wake()
    assert len(await reader) == 1


async def test_a_cancelled_receive_loses_nothing() -> None:
    broker = MemoryBroker()
    bus = await connected(broker, "a")
    waiting = asyncio.create_task(bus.receive())
    await settle()
    waiting.cancel()
    await asyncio.wait({waiting})
    bus.publish("a", b"kept")
    assert [message.payload for message in await bus.receive()] == [b"kept"]


async def test_a_message_put_from_another_thread_is_found() -> None:
    counters = BusCounters()
    inbox = Inbox(counters)
    loop = asyncio.get_running_loop()

    def write() -> None:
        for n in range(1_000):
            inbox.put(Inbound("a", f"{n}".encode(), retained=False, arrived=0.0))
            loop.call_soon_threadsafe(inbox.wake)

    writing = asyncio.create_task(asyncio.to_thread(write))
    received: list[bytes] = []
    async with asyncio.timeout(20):
        while len(received) < 1_000:
            received += [message.payload for message in await inbox.take()]
    await writing
    assert received == [f"{n}".encode() for n in range(1_000)]
