"""MqttBus against brokers that misbehave, refuse and vanish; what every bus promises is in tests/contract."""

import asyncio
import gc
import logging
import os
import random
import resource
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hil.broker import free_port
from hil.bus import Will
from hil.clock import Clock, ManualClock, SystemClock
from hil.mqtt import BrokerConfig, MqttBus
from hil.outbox import MAX_MESSAGES, MAX_TRIES
from hil.yamlfile import ConfigError

PATIENCE_S = 30.0

CONNACK_5 = b"\x20\x03\x00\x00\x00"
CONNACK_5_MAX_1000 = b"\x20\x08\x00\x00\x05\x27\x00\x00\x03\xe8"
CONNACK_3 = b"\x20\x02\x00\x00"
VERSION_REFUSED = b"\x20\x02\x00\x01"
NOT_AUTHORIZED_5 = b"\x20\x03\x00\x87\x00"
BAD_PASSWORD_3 = b"\x20\x02\x00\x04"
TAKEN_OVER_5 = b"\xe0\x02\x8e\x00"
CONNECT, PUBLISH, PUBACK, SUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 4, 8, 12, 14


@dataclass(slots=True)
class Packet:
    """A control packet as it came in."""

    kind: int
    flags: int
    body: bytes

    @property
    def version(self) -> int:
        """Of a CONNECT: 4 is MQTT 3.1.1, 5 is MQTT 5."""
        return self.body[6]

    @property
    def topic(self) -> str:
        """Of a PUBLISH."""
        length = int.from_bytes(self.body[:2], "big")
        return self.body[2 : 2 + length].decode()

    @property
    def mid(self) -> bytes:
        """Of a PUBLISH at QoS 1, or of a SUBSCRIBE."""
        at = 2 + len(self.topic) if self.kind == PUBLISH else 0
        return self.body[at : at + 2]


@dataclass(slots=True)
class Peer:
    """One connection, seen from the broker's side."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def packet(self) -> Packet | None:
        """The next packet; None at the end."""
        try:
            head = (await self.reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self.reader.readexactly(1))[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            return Packet(head >> 4, head & 0x0F, await self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def suback(self, subscribe: Packet, *codes: int) -> None:
        """Answer an MQTT 5 SUBSCRIBE."""
        self.send(bytes([0x90, 3 + len(codes)]) + subscribe.mid + b"\x00" + bytes(codes))


Script = Callable[[Peer], Awaitable[None]]


@dataclass(slots=True)
class ScriptedBroker:
    """A broker that follows a script for each connection in turn, the last one for all that follow."""

    scripts: list[Script]
    packets: list[list[Packet]] = field(default_factory=list)
    server: asyncio.Server | None = None
    url: str = ""
    peers: list[Peer] = field(default_factory=list)

    async def open(self, port: int = 0) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = f"mqtt://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        script = self.scripts[min(len(self.peers), len(self.scripts) - 1)]
        self.peers.append(peer)
        try:
            await script(peer)
        finally:
            writer.close()

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for peer in self.peers:
            peer.writer.transport.abort()


class Hasty(random.Random):
    """Draws no pause at all."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


class Stage:
    """Buses and scripted brokers that end with the test."""

    def __init__(self) -> None:
        self.buses: list[MqttBus] = []
        self.brokers: list[ScriptedBroker] = []

    async def broker(self, *scripts: Script, port: int = 0) -> ScriptedBroker:
        broker = ScriptedBroker(list(scripts))
        await broker.open(port)
        self.brokers.append(broker)
        return broker

    def bus(
        self,
        where: ScriptedBroker | str | BrokerConfig,
        clock: Clock | None = None,
        client_id: str = "node",
        draw: random.Random | None = None,
    ) -> MqttBus:
        if isinstance(where, ScriptedBroker):
            where = where.url
        config = BrokerConfig(url=where) if isinstance(where, str) else where
        bus = MqttBus(config, client_id, clock or SystemClock(), draw=draw or random.Random(1))
        self.buses.append(bus)
        return bus

    async def close(self) -> None:
        for broker in self.brokers:
            broker.close()
        for bus in self.buses:
            await bus.stop()


@pytest.fixture
async def stage(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Stage]:
    caplog.set_level(logging.INFO)
    stage = Stage()
    yield stage
    await stage.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for lies beyond an interface
            await asyncio.sleep(0.005)


async def advance_until(clock: ManualClock, condition: Callable[[], bool], step_s: float = 0.25) -> float:
    """Let time pass on the clock until ``condition`` holds; returns how much of it."""
    passed = 0.0
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await clock.advance(step_s)
            passed += step_s
            await asyncio.sleep(0.005)
    return passed


async def connected(bus: MqttBus) -> MqttBus:
    await bus.start()
    async with asyncio.timeout(PATIENCE_S):
        await bus.wait_connected()
    return bus


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def infos(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.INFO]


# --- scripts: what a broker does with one connection ---


async def close_at_once(peer: Peer) -> None:
    await peer.packet()


async def refuse_version(peer: Peer) -> None:
    await peer.packet()
    peer.send(VERSION_REFUSED)


async def say_nothing(peer: Peer) -> None:
    while await peer.packet():
        pass


async def serve(peer: Peer) -> None:
    """A well-behaved broker for one publisher, of either version."""
    connect = await peer.packet()
    if connect is None:
        return
    peer.send(CONNACK_5 if connect.version == 5 else CONNACK_3)
    while packet := await peer.packet():
        if packet.kind == PUBLISH and packet.flags & 0x06:
            peer.send(b"\x40\x02" + packet.mid)
        elif packet.kind == SUBSCRIBE:
            code = b"\x01"
            peer.send(
                b"\x90\x04" + packet.mid + b"\x00" + code if connect.version == 5 else b"\x90\x03" + packet.mid + code
            )
        elif packet.kind == DISCONNECT:
            return


async def accept_and_never_ack(peer: Peer) -> None:
    await peer.packet()
    peer.send(CONNACK_5)
    await say_nothing(peer)


def recording(log: list[Packet], then: Script | None = None) -> Script:
    """Accept, note every packet and acknowledge none; close after the first PUBLISH if ``then`` is close_at_once."""

    async def script(peer: Peer) -> None:
        connect = await peer.packet()
        assert connect is not None
        log.append(connect)
        peer.send(CONNACK_5)
        while packet := await peer.packet():
            log.append(packet)
            if packet.kind == PUBLISH and then is close_at_once:
                return

    return script


# --- versions ---


async def test_it_speaks_mqtt_5_with_a_clean_session_and_keepalive_15(stage: Stage) -> None:
    log: list[Packet] = []
    bus = await connected(stage.bus(await stage.broker(recording(log))))
    connect = log[0].body
    assert log[0].version == 5
    assert connect[7] == 0x02  # clean start; no will, no user
    assert connect[8:10] == b"\x00\x0f"
    assert connect[-4:] == b"node"
    assert bus.description.endswith("(MQTT 5)")


async def test_the_will_is_sent_at_qos_1_retained(stage: Stage) -> None:
    log: list[Packet] = []
    broker = await stage.broker(recording(log))
    bus = MqttBus(BrokerConfig(url=broker.url), "node", SystemClock(), Will("site/state", b"lost"))
    stage.buses.append(bus)
    await connected(bus)
    assert log[0].body[7] == 0x02 | 0x04 | 0x08 | 0x20
    assert log[0].body.endswith(b"\x00\x0asite/state\x00\x04lost")


async def test_a_refused_version_is_answered_with_3_1_1_at_once(stage: Stage) -> None:
    clock = ManualClock()  # no time passes: there is no pause between the two
    bus = stage.bus(await stage.broker(refuse_version, serve), clock)
    await connected(bus)
    assert bus.description.endswith("(MQTT 3.1.1)")


@pytest.mark.parametrize(("closes", "version"), [(1, "MQTT 5"), (2, "MQTT 5"), (3, "MQTT 3.1.1"), (6, "MQTT 5")])
async def test_three_closes_before_an_answer_change_the_version(stage: Stage, closes: int, version: str) -> None:
    broker = await stage.broker(*[close_at_once] * closes, serve)
    bus = await connected(stage.bus(broker))
    assert bus.description.endswith(f"({version})")
    assert len(broker.peers) == closes + 1


async def test_a_broker_that_is_silent_is_not_taken_for_an_old_one(stage: Stage) -> None:
    clock = ManualClock()
    bus = stage.bus(await stage.broker(*[say_nothing] * 4, serve), clock)
    await bus.start()
    await advance_until(clock, lambda: bus.connected)
    assert bus.description.endswith("(MQTT 5)")


async def test_each_loss_starts_over_with_mqtt_5(stage: Stage) -> None:
    async def serve_briefly(peer: Peer) -> None:
        await peer.packet()
        peer.send(CONNACK_3)
        await asyncio.sleep(0.05)

    bus = stage.bus(await stage.broker(refuse_version, serve_briefly, serve))
    await connected(bus)
    await until(lambda: bus.counters.connections == 2)
    assert bus.description.endswith("(MQTT 5)")


# --- connecting, and failing to ---


async def test_a_broker_that_is_down_costs_two_lines(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    bus = stage.bus(f"mqtt://127.0.0.1:{port}")
    await bus.start()
    await until(lambda: bool(warnings(caplog)))
    await asyncio.sleep(0.3)  # several attempts
    assert not bus.connected
    assert bus.description == f"mqtt://127.0.0.1:{port} (not connected)"
    await stage.broker(serve, port=port)
    await until(lambda: bus.connected)
    assert warnings(caplog) == [f"mqtt://127.0.0.1:{port}: connection refused; will keep trying"]
    [told] = infos(caplog)
    assert told.startswith(f"mqtt://127.0.0.1:{port}: connected, MQTT 5 after ")


async def test_a_host_that_is_not_there_is_told_plainly(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    await stage.bus("mqtt://no-such-host.invalid").start()
    await until(lambda: bool(warnings(caplog)))
    [told] = warnings(caplog)
    assert told.startswith("mqtt://no-such-host.invalid: ")
    assert told.endswith("; will keep trying")
    assert "Traceback" not in caplog.text


async def test_a_silent_broker_is_given_up_after_ten_seconds(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    broker = await stage.broker(say_nothing, serve)
    bus = stage.bus(broker, clock)
    await bus.start()
    await until(lambda: len(broker.peers) == 1)
    await clock.advance(9.9)
    await asyncio.sleep(0.05)
    assert warnings(caplog) == []
    await advance_until(clock, lambda: bus.connected)
    assert warnings(caplog) == [f"{broker.url}: the broker does not answer; will keep trying"]


async def test_a_subscription_that_is_never_answered_counts_as_silence(stage: Stage) -> None:
    clock = ManualClock()
    broker = await stage.broker(accept_and_never_ack, serve)
    bus = stage.bus(broker, clock)
    bus.subscribe("site/#")
    await bus.start()
    await until(lambda: len(broker.peers) == 1)
    await clock.advance(5.0)
    assert not bus.connected
    await advance_until(clock, lambda: bus.connected)
    assert len(broker.peers) == 2


async def test_the_pause_between_attempts_grows_to_five_seconds(stage: Stage) -> None:
    clock = ManualClock()
    broker = await stage.broker(close_at_once)
    bus = stage.bus(broker, clock)
    await bus.start()
    passed = await advance_until(clock, lambda: len(broker.peers) >= 60)
    # Full jitter under a 5 s cap: a mean of about 2.5 s once it has grown, 53 of the 60 pauses.
    assert 60 <= passed <= 250


async def test_a_refused_login_is_told_once_and_tried_again(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse_login(peer: Peer) -> None:
        await peer.packet()
        peer.send(NOT_AUTHORIZED_5)

    broker = await stage.broker(*[refuse_login] * 4, serve)
    await connected(stage.bus(BrokerConfig(url=broker.url, username="jetson-1")))
    refused = f"{broker.url}: the broker refused the login of user jetson-1: Not authorized; will keep trying"
    assert warnings(caplog) == [refused]
    assert infos(caplog) == [f"{broker.url}: connected, MQTT 5 after 4 failed attempts"]


async def test_a_refused_login_in_3_1_1(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse_login(peer: Peer) -> None:
        await peer.packet()
        peer.send(BAD_PASSWORD_3)

    broker = await stage.broker(refuse_version, refuse_login, refuse_login, serve)
    await connected(stage.bus(broker))
    told = "the broker refused the login without a user name: Bad user name or password"
    assert warnings(caplog) == [f"{broker.url}: {told}; will keep trying"]


async def test_a_secret_that_others_can_read_stops_the_start(stage: Stage, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("x")
    secret.chmod(0o644)
    bus = stage.bus(BrokerConfig(url="mqtt://127.0.0.1:1", username="u", password_file=str(secret)))
    with pytest.raises(ConfigError, match="mode 0644"):
        await bus.start()
    assert not bus.connected


async def test_two_clients_of_one_id_are_told_so_and_do_not_fill_the_log(
    stage: Stage, mosquitto_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = [stage.bus(mosquitto_url, client_id="twin") for _ in range(2)]
    await first.start()
    await second.start()
    await until(lambda: first.counters.connections + second.counters.connections >= 12)
    assert "client id twin" in caplog.text
    assert len(warnings(caplog)) <= 4  # each once that it was closed, and once why that may be
    assert len(infos(caplog)) == 2


async def test_a_broker_that_says_who_took_over_is_quoted(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def throw_out(peer: Peer) -> None:
        await peer.packet()
        peer.send(CONNACK_5 + TAKEN_OVER_5)

    broker = await stage.broker(throw_out)
    bus = stage.bus(broker)
    await bus.start()
    await until(lambda: bus.counters.connections >= 4)
    told = "the broker ended the connection: Session taken over; two programs must not share the client id node"
    assert warnings(caplog) == [f"{broker.url}: {told}; will keep trying"]


async def test_in_3_1_1_a_taken_over_client_can_only_guess(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def throw_out(peer: Peer) -> None:
        connect = await peer.packet()
        assert connect is not None
        peer.send(CONNACK_3 if connect.version == 4 else VERSION_REFUSED)
        await asyncio.sleep(0.01)

    broker = await stage.broker(throw_out)
    await stage.bus(broker).start()
    await until(lambda: len(warnings(caplog)) == 2)
    assert warnings(caplog)[0] == f"{broker.url}: the connection was closed; will keep trying"
    assert "does another program use the client id node?" in warnings(caplog)[1]


async def test_the_pause_grows_while_connections_do_not_hold(stage: Stage) -> None:
    async def throw_out(peer: Peer) -> None:
        await peer.packet()
        peer.send(CONNACK_5)

    clock = ManualClock()
    broker = await stage.broker(throw_out)
    bus = stage.bus(broker, clock)
    await bus.start()
    passed = await advance_until(clock, lambda: bus.counters.connections >= 30)
    assert passed > 30  # 30 pauses of up to 0.1 s would be 3 s at most


# --- subscriptions ---


async def test_a_refused_subscription_is_told_and_counted_and_the_rest_works(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def grant_one(peer: Peer) -> None:
        await peer.packet()
        peer.send(CONNACK_5)
        subscribe = await peer.packet()
        assert subscribe is not None
        peer.suback(subscribe, 0x87, 0x01)
        await say_nothing(peer)

    broker = await stage.broker(grant_one)
    bus = stage.bus(broker)
    bus.subscribe("secret/#")
    bus.subscribe("site/#")
    await connected(bus)
    assert bus.counters.refused == 1
    assert warnings(caplog) == [f"{broker.url}: secret/#: subscription refused: Not authorized"]


async def test_it_is_connected_only_once_subscribed(stage: Stage) -> None:
    answer = asyncio.Event()

    async def answer_late(peer: Peer) -> None:
        await peer.packet()
        peer.send(CONNACK_5)
        subscribe = await peer.packet()
        assert subscribe is not None
        await answer.wait()
        peer.suback(subscribe, 0x01)
        await say_nothing(peer)

    bus = stage.bus(await stage.broker(answer_late))
    bus.subscribe("site/#")
    await bus.start()
    await asyncio.sleep(0.1)
    assert not bus.connected
    assert bus.publish("site/a", b"x") is False
    answer.set()
    await until(lambda: bus.connected)


async def test_a_filter_asked_for_twice_while_connected_is_sent_twice(stage: Stage) -> None:
    log: list[Packet] = []
    bus = await connected(stage.bus(await stage.broker(recording(log))))
    bus.subscribe("site/#")
    bus.subscribe("site/#")
    await until(lambda: len(log) == 3)  # the second one brings what is retained again
    assert [packet.kind for packet in log] == [CONNECT, SUBSCRIBE, SUBSCRIBE]


# --- publishing ---


async def test_an_expiry_travels_in_mqtt_5(stage: Stage) -> None:
    log: list[Packet] = []
    bus = await connected(stage.bus(await stage.broker(recording(log))))
    bus.publish("site/cmd", b"x", expiry_s=60)
    bus.publish("site/cmd", b"y")
    await until(lambda: len(log) == 3)
    assert log[1].body.endswith(b"\x05\x02\x00\x00\x00\x3cx")
    assert log[2].body.endswith(b"\x00y")


async def test_an_expiry_is_left_out_of_3_1_1(stage: Stage) -> None:
    log: list[Packet] = []

    async def accept_3(peer: Peer) -> None:
        await peer.packet()
        peer.send(CONNACK_3)
        while packet := await peer.packet():
            log.append(packet)

    bus = await connected(stage.bus(await stage.broker(refuse_version, accept_3)))
    assert bus.publish("site/cmd", b"x", expiry_s=60)
    await until(lambda: len(log) == 1)
    assert log[0].body == b"\x00\x08site/cmd" + log[0].mid + b"x"


async def test_a_refused_publish_is_told_once_a_topic_and_counted(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def deny(peer: Peer) -> None:
        await peer.packet()
        peer.send(CONNACK_5)
        while packet := await peer.packet():
            if packet.kind == PUBLISH:
                peer.send(b"\x40\x03" + packet.mid + b"\x87")

    broker = await stage.broker(deny)
    bus = await connected(stage.bus(broker))
    for topic in ("site/a", "site/a", "site/b", "site/a"):
        assert bus.publish(topic, b"x")
    await until(lambda: bus.counters.refused == 4)
    assert warnings(caplog) == [f"{broker.url}: {topic}: Not authorized" for topic in ("site/a", "site/b")]


async def test_no_subscriber_is_no_refusal(stage: Stage) -> None:
    async def find_nobody(peer: Peer) -> None:
        await peer.packet()
        peer.send(CONNACK_5)
        while packet := await peer.packet():
            if packet.kind == PUBLISH:
                peer.send(b"\x40\x03" + packet.mid + b"\x10")

    bus = await connected(stage.bus(await stage.broker(find_nobody)))
    bus.publish("site/a", b"x")
    await bus.stop()  # waits for the acknowledgement
    assert bus.counters.refused == 0


async def test_a_topic_with_wildcards_is_a_mistake_of_the_caller(stage: Stage) -> None:
    bus = await connected(stage.bus(await stage.broker(serve)))
    with pytest.raises(ValueError, match="wildcard"):
        bus.publish("site/+", b"x")


async def test_more_than_the_broker_takes_is_refused_before_it_cuts_us_off(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[Packet] = []

    async def take_little(peer: Peer) -> None:
        await peer.packet()
        peer.send(CONNACK_5_MAX_1000)
        while packet := await peer.packet():
            log.append(packet)

    broker = await stage.broker(take_little)
    bus = await connected(stage.bus(broker))
    assert bus.publish("site/a", b"x" * 2_000) is False
    assert bus.publish("site/a", b"x" * 900)
    await until(lambda: len(log) == 1)
    assert (len(log[0].body) < 1_000, bus.counters.refused) == (True, 1)
    told = "site/a: 2000 bytes are more than the broker takes in a packet of 1000"
    assert warnings(caplog) == [f"{broker.url}: {told}"]


async def test_a_bus_that_is_full_says_no_and_counts(stage: Stage) -> None:
    bus = await connected(stage.bus(await stage.broker(accept_and_never_ack)))
    assert all(bus.publish("site/a", b"x") for _ in range(MAX_MESSAGES))
    assert bus.publish("site/a", b"x") is False
    assert (bus.counters.published, bus.counters.overflowed) == (MAX_MESSAGES, 1)


async def test_a_minute_without_an_acknowledgement_is_shown(stage: Stage) -> None:
    clock = ManualClock()
    broker = await stage.broker(accept_and_never_ack)
    bus = await connected(stage.bus(broker, clock))
    await clock.advance(100.0)
    assert bus.not_acked is False  # nothing was sent
    bus.publish("site/a", b"x")
    await clock.advance(59.0)
    assert bus.not_acked is False
    await clock.advance(1.0)
    assert bus.not_acked is True


async def test_what_was_not_acknowledged_goes_out_again_on_the_next_connection(stage: Stage) -> None:
    log: list[Packet] = []
    bus = stage.bus(await stage.broker(recording(log, close_at_once), recording(log)))
    await connected(bus)
    bus.publish("site/a", b"first")
    bus.publish("site/a", b"light", qos=0)
    bus.on_connection(lambda up: up and bus.publish("site/a", b"then") and None)
    await until(lambda: len([packet for packet in log if packet.kind == PUBLISH]) >= 3)
    second = log[[packet.kind for packet in log].index(CONNECT, 1) + 1 :]
    assert [packet.body[-5:] for packet in second] == [b"first", b"\x00then"]


async def test_what_expired_in_between_does_not(stage: Stage) -> None:
    log: list[Packet] = []
    clock = ManualClock()
    bus = stage.bus(await stage.broker(recording(log, close_at_once), close_at_once, recording(log)), clock)
    await connected(bus)
    bus.publish("site/cmd", b"stale", expiry_s=5)
    bus.publish("site/cmd", b"fresh", expiry_s=60)
    await until(lambda: not bus.connected)
    await clock.advance(6.0)
    await advance_until(clock, lambda: bus.connected)
    await until(lambda: len([packet for packet in log if packet.kind == PUBLISH]) >= 2)
    [again] = log[[packet.kind for packet in log].index(CONNECT, 1) + 1 :]
    assert again.body[-5:] == b"fresh"
    assert 40 <= int.from_bytes(again.body[-9:-5], "big") <= 54  # what is left of the 60 s


async def test_a_message_that_breaks_each_connection_is_given_up(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[Packet] = []
    broker = await stage.broker(recording(log, close_at_once))
    bus = await connected(stage.bus(broker))
    bus.publish("site/poison", b"x")
    await until(lambda: bus.counters.refused == 1)
    assert [packet.kind for packet in log].count(PUBLISH) == MAX_TRIES
    assert f"{broker.url}: site/poison: not acknowledged on 3 connections" in warnings(caplog)
    await until(lambda: bus.connected)


# --- stopping, and what is left behind ---


def link_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mqtt-")]


async def test_stop_leaves_no_thread(stage: Stage) -> None:
    bus = await connected(stage.bus(await stage.broker(serve)))
    assert link_threads() == ["mqtt-node"]
    await bus.stop()
    await until(lambda: link_threads() == [])


@pytest.mark.parametrize("script", [say_nothing, close_at_once, refuse_version], ids=lambda script: script.__name__)
async def test_stop_in_the_midst_of_connecting_is_prompt_and_final(stage: Stage, script: Script) -> None:
    broker = await stage.broker(script)
    bus = stage.bus(broker)
    await bus.start()
    await until(lambda: len(broker.peers) >= 1)
    async with asyncio.timeout(2.0):
        await bus.stop()
    attempts = len(broker.peers)
    await until(lambda: link_threads() == [])
    await asyncio.sleep(0.3)
    assert len(broker.peers) == attempts
    assert not bus.connected


async def test_stop_right_after_start(stage: Stage) -> None:
    bus = stage.bus(await stage.broker(serve))
    await bus.start()
    await bus.stop()
    await until(lambda: link_threads() == [])


async def test_stop_does_not_wait_for_a_broker_that_never_acknowledges(stage: Stage) -> None:
    log: list[Packet] = []
    bus = await connected(stage.bus(await stage.broker(recording(log))))
    bus.publish("site/a", b"x")
    async with asyncio.timeout(6.0):
        await bus.stop()
    await until(lambda: log[-1].kind == DISCONNECT)
    assert log[-1].body[:1] in {b"", b"\x00"}  # a normal disconnection: no will


@pytest.mark.parametrize("lived_s", [0.0, 4.0, 6.0, 3600.0])
async def test_stop_lets_the_broker_close_first_however_long_they_have_talked(stage: Stage, lived_s: float) -> None:
    closed: list[bool] = []

    async def close_slowly(peer: Peer) -> None:
        await peer.packet()
        peer.send(CONNACK_5)
        goodbye = await peer.packet()
        await asyncio.sleep(0.1)
        closed.append(goodbye is not None and goodbye.kind == DISCONNECT)

    clock = ManualClock()
    bus = await connected(stage.bus(await stage.broker(close_slowly), clock))
    await clock.advance(lived_s)
    await bus.stop()
    assert closed == [True]


async def test_a_stopped_bus_can_start_again(stage: Stage) -> None:
    bus = stage.bus(await stage.broker(serve))
    for count in (1, 2):
        await connected(bus)
        assert bus.publish("site/a", b"x")
        await bus.stop()
        assert (bus.counters.connections, bus.counters.published) == (count, count)


def test_an_event_loop_that_ends_first_takes_the_thread_along(broker_url: str) -> None:
    async def forget_to_stop() -> None:
        await connected(MqttBus(BrokerConfig(url=broker_url), "forgotten", SystemClock()))
        assert link_threads() == ["mqtt-forgotten"]

    asyncio.run(forget_to_stop())
    deadline = time.monotonic() + PATIENCE_S
    while link_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert link_threads() == []


async def test_connections_that_come_and_go_leave_no_descriptor(stage: Stage) -> None:
    async def throw_out(peer: Peer) -> None:
        await peer.packet()
        peer.send(CONNACK_5)

    broker = await stage.broker(throw_out)
    bus = stage.bus(broker, draw=Hasty())
    await bus.start()
    await until(lambda: bus.counters.connections >= 3)
    gc.disable()  # what only the collector would close is leaked as far as a long run is concerned
    try:
        before = open_descriptors()
        await until(lambda: bus.counters.connections >= 33)
        await bus.stop()
        await until(lambda: link_threads() == [])
        assert open_descriptors() <= before + 4
    finally:
        gc.enable()


async def test_more_files_than_the_library_can_wait_for_are_told_plainly(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await stage.broker(serve)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4_096:
        pytest.skip(f"a process may open {hard} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4_096, hard))
    held = [os.dup(0) for _ in range(1_024)]
    try:
        bus = stage.bus(broker)
        await bus.start()
        await until(lambda: bool(warnings(caplog)))
        told = "too many open files in this process for an MQTT connection"
        assert warnings(caplog) == [f"{broker.url}: {told}; will keep trying"]
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: bus.connected)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
