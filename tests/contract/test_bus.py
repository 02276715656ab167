"""What every Bus promises, in memory and through each broker."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import pytest

from hil.bus import Bus, Inbound, Will
from hil.clock import settle

PATIENCE_S = 30.0


class World(Protocol):
    """Where the buses live (see conftest)."""

    name: str
    has_dollar_topics: bool

    async def bus(self, client_id: str, will: Will | None = None) -> Bus: ...
    async def started(self, client_id: str, *filters: str, will: Will | None = None) -> Bus: ...
    async def cut(self, bus: Bus) -> None: ...
    async def break_down(self) -> None: ...
    async def come_back(self) -> None: ...


async def collect(bus: Bus, count: int) -> list[Inbound]:
    """The next ``count`` messages."""
    messages: list[Inbound] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(messages) < count:
            messages += await bus.receive()
    return messages


async def until(condition: Callable[[], bool]) -> None:
    """Return once ``condition`` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for lies beyond an interface
            await asyncio.sleep(0.01)


async def publish_all(bus: Bus, topic: str, payloads: list[bytes]) -> None:
    """Publish everything, waiting where the bus is full."""
    async with asyncio.timeout(PATIENCE_S):
        for payload in payloads:
            while not bus.publish(topic, payload):  # noqa: ASYNC110  # full: the bus tells nobody when it is not
                await asyncio.sleep(0.001)


async def seen_before(bus: Bus, mark: bytes) -> set[bytes]:
    """What arrives before ``mark`` does.

    A set: a broker may hand a message over twice, live and retained, to who subscribes in that moment.
    """
    seen: list[bytes] = []
    while mark not in seen:
        seen += payloads(await collect(bus, 1))
    return set(seen) - {mark}


def payloads(messages: list[Inbound]) -> list[bytes]:
    return [message.payload for message in messages]


async def test_what_is_published_arrives_once_and_in_order(world: World) -> None:
    reader = await world.started("reader", "site/a", "site/b")
    writer = await world.started("writer")
    sent = [(f"site/{'ab'[n % 2]}", f"{n}".encode()) for n in range(200)]
    for topic, payload in sent:
        assert writer.publish(topic, payload)
    received = await collect(reader, len(sent))
    assert [(message.topic, message.payload) for message in received] == sent
    assert not any(message.retained for message in received)


async def test_a_bus_hears_itself(world: World) -> None:
    bus = await world.started("alone", "site/a")
    assert bus.publish("site/a", b"echo")
    assert payloads(await collect(bus, 1)) == [b"echo"]


async def test_only_what_was_asked_for_arrives(world: World) -> None:
    reader = await world.started("reader", "site/a")
    writer = await world.started("writer")
    writer.publish("site/b", b"not asked for")
    writer.publish("site/a", b"asked for")
    assert payloads(await collect(reader, 1)) == [b"asked for"]


async def test_qos_0_arrives_too(world: World) -> None:
    reader = await world.started("reader", "site/a")
    writer = await world.started("writer")
    assert writer.publish("site/a", b"light", qos=0)
    assert payloads(await collect(reader, 1)) == [b"light"]


async def test_an_expiry_takes_nothing_from_a_message_in_time(world: World) -> None:
    reader = await world.started("reader", "site/a")
    writer = await world.started("writer")
    assert writer.publish("site/a", b"soon", expiry_s=60)
    assert payloads(await collect(reader, 1)) == [b"soon"]


async def test_an_empty_and_a_large_payload_arrive_whole(world: World) -> None:
    reader = await world.started("reader", "site/a")
    writer = await world.started("writer")
    large = bytes(range(256)) * 235  # 60,160 bytes, every value among them
    writer.publish("site/a", b"")
    writer.publish("site/a", large)
    assert payloads(await collect(reader, 2)) == [b"", large]


async def test_a_retained_message_waits_for_who_comes_later(world: World) -> None:
    writer = await world.started("writer")
    writer.publish("site/state", b"old", retain=True)
    writer.publish("site/state", b"new", retain=True)
    writer.publish("site/event", b"not retained")
    await writer.stop()  # now the broker has it
    reader = await world.started("reader", "site/#")
    message = (await collect(reader, 1))[0]
    assert (message.topic, message.payload, message.retained) == ("site/state", b"new", True)
    reader.publish("site/mark", b"mark")
    assert await seen_before(reader, b"mark") <= {b"new"}


async def test_a_retained_message_that_arrives_live_is_not_marked(world: World) -> None:
    reader = await world.started("reader", "site/#")
    writer = await world.started("writer")
    writer.publish("site/state", b"now", retain=True)
    [message] = await collect(reader, 1)
    assert (message.payload, message.retained) == (b"now", False)


async def test_an_empty_retained_message_clears_the_old_one(world: World) -> None:
    echo = await world.started("echo", "site/#")
    writer = await world.started("writer")
    writer.publish("site/state", b"old", retain=True)
    writer.publish("site/state", b"", retain=True)
    writer.publish("site/other", b"kept", retain=True)
    await collect(echo, 3)  # now the broker has it
    reader = await world.started("reader", "site/#")
    reader.publish("site/mark", b"mark")
    assert await seen_before(reader, b"mark") == {b"kept"}


async def test_a_subscription_may_come_after_the_start(world: World) -> None:
    bus = await world.started("late")
    bus.publish("site/state", b"before", retain=True)
    bus.subscribe("site/#")
    bus.publish("site/event", b"after")
    assert await seen_before(bus, b"after") == {b"before"}


@pytest.mark.parametrize(
    ("topic_filter", "taken", "not_taken"),
    [
        ("site/+/state", "site/jetson-1/state", "site/jetson-1/state/old"),
        ("site/+", "site/", "site"),
        ("site/#", "site/a/b/c", "sites/a"),
        ("site/#", "site", "Site/a"),
        ("+/+", "site/a", "site/a/b"),
        ("#", "any/thing", None),
    ],
)
async def test_wildcards(world: World, topic_filter: str, taken: str, not_taken: str | None) -> None:
    reader = await world.started("reader", topic_filter)
    writer = await world.started("writer")
    if not_taken is not None:
        writer.publish(not_taken, b"no")
    writer.publish(taken, b"yes")
    [message] = await collect(reader, 1)
    assert (message.topic, message.payload) == (taken, b"yes")


async def test_wildcards_leave_dollar_topics_alone(world: World) -> None:
    if not world.has_dollar_topics:
        pytest.skip(f"{world.name} lets no client publish to such a topic")
    readers = [await world.started(f"reader-{n}", wildcard) for n, wildcard in enumerate(["#", "+/x"])]
    named = await world.started("named", "$own/#")
    writer = await world.started("writer")
    writer.publish("$own/x", b"hidden")
    writer.publish("plain/x", b"seen")
    for reader in readers:
        assert payloads(await collect(reader, 1)) == [b"seen"]
    assert payloads(await collect(named, 1)) == [b"hidden"]


async def test_a_cut_connection_leaves_its_will_retained(world: World) -> None:
    observer = await world.started("observer", "site/+/state")
    bus = await world.started("node", will=Will("site/node/state", b"lost"))
    bus.publish("site/node/state", b"ready", retain=True)
    assert payloads(await collect(observer, 1)) == [b"ready"]
    await world.cut(bus)
    assert payloads(await collect(observer, 1)) == [b"lost"]
    late = await world.started("late", "site/+/state")
    message = (await collect(late, 1))[0]
    assert (message.payload, message.retained) == (b"lost", True)


async def test_a_stopped_bus_leaves_no_will(world: World) -> None:
    observer = await world.started("observer", "site/#")
    bus = await world.started("node", will=Will("site/node/state", b"lost"))
    await bus.stop()
    observer.publish("site/mark", b"mark")
    assert payloads(await collect(observer, 1)) == [b"mark"]


async def test_stop_leaves_no_will_in_the_midst_of_traffic(world: World) -> None:
    observer = await world.started("observer", "site/node/state")
    writer = await world.started("writer")
    for _ in range(10):
        bus = await world.started("node", "noise/#", will=Will("site/node/state", b"lost"))
        for _ in range(300):
            writer.publish("noise/x", b"x" * 1000)
        await collect(bus, 1)  # it is coming in
        await bus.stop()
    observer.publish("site/node/state", b"mark")
    assert payloads(await collect(observer, 1)) == [b"mark"]


async def test_stop_sends_what_was_handed_over(world: World) -> None:
    reader = await world.started("reader", "site/a")
    writer = await world.started("writer")
    sent = [f"{n}".encode() for n in range(300)]
    for payload in sent:
        assert writer.publish("site/a", payload)
    await writer.stop()
    assert payloads(await collect(reader, len(sent))) == sent


async def test_stop_is_harmless_at_any_time(world: World) -> None:
    never_started = await world.bus("never")
    await never_started.stop()
    bus = await world.started("node")
    await bus.stop()
    await bus.stop()
    assert not bus.connected
    assert bus.publish("site/a", b"too late") is False


async def test_listeners_hear_of_each_connection_and_each_loss(world: World) -> None:
    heard: list[bool] = []
    bus = await world.bus("node")
    bus.on_connection(heard.append)
    await bus.start()
    await bus.wait_connected()
    await settle()
    assert heard == [True]
    await world.break_down()
    await until(lambda: heard == [True, False])
    assert not bus.connected
    await world.come_back()
    await until(lambda: heard == [True, False, True])
    assert bus.connected
    await bus.stop()
    assert heard == [True, False, True, False]
    assert bus.counters.connections == 2


async def test_a_listener_may_publish(world: World) -> None:
    reader = await world.started("reader", "site/birth")
    bus = await world.bus("node")

    def announce(connected: bool) -> None:
        if connected:
            assert bus.publish("site/birth", b"here")

    bus.on_connection(announce)
    await bus.start()
    assert payloads(await collect(reader, 1)) == [b"here"]


async def test_nothing_published_while_disconnected_is_kept(world: World) -> None:
    bus = await world.bus("node")
    bus.subscribe("site/a")
    assert bus.publish("site/a", b"before the start") is False
    await bus.start()
    await bus.wait_connected()
    await world.break_down()
    await until(lambda: not bus.connected)
    assert bus.publish("site/a", b"in the gap") is False
    await world.come_back()
    await bus.wait_connected()
    assert bus.publish("site/a", b"after it")
    assert payloads(await collect(bus, 1)) == [b"after it"]
    assert bus.counters.published == 1


async def test_subscriptions_survive_a_broker_that_restarts(world: World) -> None:
    reader = await world.started("reader", "site/a", "site/+/b")
    reader.subscribe("late/#")
    writer = await world.started("writer")
    await world.break_down()
    await until(lambda: not reader.connected and not writer.connected)
    reader.subscribe("in/the/gap")
    await world.come_back()
    await reader.wait_connected()
    await writer.wait_connected()
    topics = ["site/a", "site/x/b", "late/y", "in/the/gap"]
    for topic in topics:
        assert writer.publish(topic, b"again")
    assert [message.topic for message in await collect(reader, 4)] == topics


async def test_a_bus_may_start_before_its_broker(world: World) -> None:
    if world.name == "memory":
        pytest.skip("a broker in memory is always there")
    await world.break_down()
    bus = await world.bus("early")
    bus.subscribe("site/a")
    async with asyncio.timeout(1.0):
        await bus.start()
    assert not bus.connected
    await world.come_back()
    async with asyncio.timeout(PATIENCE_S):
        await bus.wait_connected()
    assert bus.publish("site/a", b"at last")
    assert payloads(await collect(bus, 1)) == [b"at last"]


async def test_receive_hands_over_all_that_is_there(world: World) -> None:
    reader = await world.started("reader", "site/a")
    writer = await world.started("writer")
    sent = [f"{n}".encode() for n in range(100)]
    await publish_all(writer, "site/a", sent)
    await until(lambda: reader.counters.received == len(sent))
    assert payloads(await reader.receive()) == sent


async def test_five_thousand_messages_arrive_without_a_loss(world: World) -> None:
    reader = await world.started("reader", "site/a")
    writer = await world.started("writer")
    sent = [f"{n}".encode() for n in range(5_000)]
    writing = asyncio.create_task(publish_all(writer, "site/a", sent))
    assert payloads(await collect(reader, len(sent))) == sent
    await writing
    assert (reader.counters.received, reader.counters.dropped) == (5_000, 0)
    assert (writer.counters.published, writer.counters.refused) == (5_000, 0)


async def test_a_bus_says_where_it_goes(world: World) -> None:
    bus = await world.started("node")
    expected = {"memory": "memory bus", "mosquitto": "(MQTT 5)", "amqtt": "(MQTT 3.1.1)"}[world.name]
    assert expected in bus.description
    assert bus.not_acked is False
