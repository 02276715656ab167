"""The bus that messages travel on, and one that lives in memory.

A bus promises little: what was published while connected arrives at most a few times, in order per publisher. Nothing
published while disconnected is kept: durability lies in the agent's spool and the coordinator's fleet, never here.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

INBOX_MESSAGES = 100_000


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message as it came in. ``arrived`` is monotonic seconds: age is our clock since arrival."""

    topic: str
    payload: bytes
    retained: bool
    arrived: float


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the connection dies without a goodbye."""

    topic: str
    payload: bytes


@dataclass(slots=True)
class BusCounters:
    """What a bus has done.

    ``dropped`` were lost to a full inbox, ``refused`` are publishes and subscriptions that the broker denied,
    ``overflowed`` publishes that were turned away because too many were under way.
    """

    published: int = 0
    received: int = 0
    dropped: int = 0
    refused: int = 0
    overflowed: int = 0
    connections: int = 0


ConnectionListener = Callable[[bool], None]


class Bus(Protocol):
    """One client's connection to the broker. Constructors only store; ``start`` acts."""

    counters: BusCounters

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and our subscriptions."""

    @property
    def not_acked(self) -> bool:
        """Whether the broker has left a message unacknowledged for a minute."""

    @property
    def description(self) -> str:
        """Where the bus goes and what it speaks, for people: ``mqtt://127.0.0.1:1883 (MQTT 5)``."""

    def subscribe(self, topic_filter: str) -> None:
        """Ask for a filter at QoS 1, now and after each reconnect. Call before ``start`` or at any time after.

        What matches two filters may arrive twice.
        """

    def on_connection(self, listener: ConnectionListener) -> None:
        """Call ``listener(True)`` on the event loop after each (re)connect, once subscribed, ``False`` after a loss."""

    async def start(self) -> None:
        """Begin connecting, and keep at it; returns at once, also with the broker down."""

    async def wait_connected(self) -> None:
        """Return when connected."""

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, expiry_s: int | None = None
    ) -> bool:
        """Hand a message to the connection; False, and nothing kept, while there is none or too much is under way."""

    async def receive(self) -> list[Inbound]:
        """What has arrived, in order, at least one message; waits for it. One caller at a time."""

    async def stop(self) -> None:
        """Send what was handed over, say goodbye (no will) and disconnect; harmless when repeated."""


class Inbox:
    """A bounded queue between a bus and its one reader; what does not fit is counted, newest dropped."""

    def __init__(self, counters: BusCounters, limit: int = INBOX_MESSAGES) -> None:
        self._messages: deque[Inbound] = deque()
        self._ready = asyncio.Event()
        self._counters = counters
        self._limit = limit

    def put(self, message: Inbound) -> None:
        """Append a message; safe from another thread as long as ``wake`` follows on the event loop."""
        if len(self._messages) >= self._limit:
            self._counters.dropped += 1
            return
        self._counters.received += 1
        self._messages.append(message)

    def wake(self) -> None:
        """Let the reader look; on the event loop."""
        self._ready.set()

    async def take(self) -> list[Inbound]:
        """Everything there, at least one message."""
        while not self._messages:
            self._ready.clear()
            if self._messages:  # put by another thread between the test and the clear
                break
            await self._ready.wait()
        # Only what is there now: a fast writer must not keep the reader here.
        return [self._messages.popleft() for _ in range(len(self._messages))]


@dataclass(slots=True)
class MemoryBroker:
    """A broker in memory: any number of ``MemoryBus`` clients in one event loop."""

    clients: list["MemoryBus"] = field(default_factory=list)
    retained: dict[str, bytes] = field(default_factory=dict)

    def route(self, topic: str, payload: bytes, retain: bool) -> None:
        """Deliver to each connected client with a matching subscription, once."""
        if retain:
            if payload:
                self.retained[topic] = payload
            else:
                self.retained.pop(topic, None)
        for client in self.clients:
            if any(matches(topic_filter, topic) for topic_filter in client.filters):
                client.deliver(topic, payload, retained=False)


class MemoryBus:
    """A bus within one event loop, for tests and for simulations without a broker."""

    def __init__(self, broker: MemoryBroker, clock_monotonic: Callable[[], float], will: Will | None = None) -> None:
        self.counters = BusCounters()
        self.filters: list[str] = []
        self._broker = broker
        self._now = clock_monotonic
        self._will = will
        self._inbox = Inbox(self.counters)
        self._listeners: list[ConnectionListener] = []
        self._up = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether ``start`` was called and neither ``stop`` nor ``cut`` since."""
        return self._up.is_set()

    @property
    def not_acked(self) -> bool:
        """Never: delivery in memory is immediate."""
        return False

    @property
    def description(self) -> str:
        """A name for people."""
        return "memory bus"

    def subscribe(self, topic_filter: str) -> None:
        """Ask for a filter; retained messages follow at once when connected."""
        self.filters.append(topic_filter)
        if self.connected:
            self._replay_retained(topic_filter)

    def on_connection(self, listener: ConnectionListener) -> None:
        """Call ``listener`` at each change of the connection."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Connect."""
        self.reconnect()

    async def wait_connected(self) -> None:
        """Return when connected."""
        await self._up.wait()

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, expiry_s: int | None = None
    ) -> bool:
        """Deliver at once; False while disconnected."""
        del qos, expiry_s  # delivery in memory is immediate and certain
        if not self.connected:
            return False
        self.counters.published += 1
        self._broker.route(topic, payload, retain)
        return True

    async def receive(self) -> list[Inbound]:
        """What has arrived."""
        return await self._inbox.take()

    async def stop(self) -> None:
        """Disconnect without the will."""
        self._leave()

    def cut(self) -> None:
        """Lose the connection as a crash or a pulled cable does: the will is published."""
        was_connected = self.connected
        self._leave()
        if was_connected and self._will is not None:
            self._broker.route(self._will.topic, self._will.payload, retain=True)

    def reconnect(self) -> None:
        """Connect (again)."""
        if self.connected:
            return
        self._broker.clients.append(self)
        self.counters.connections += 1
        self._up.set()
        for topic_filter in self.filters:
            self._replay_retained(topic_filter)
        for listener in self._listeners:
            listener(True)

    def deliver(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take a message from the broker."""
        self._inbox.put(Inbound(topic, payload, retained, self._now()))
        self._inbox.wake()

    def _replay_retained(self, topic_filter: str) -> None:
        for topic, payload in self._broker.retained.items():
            if matches(topic_filter, topic):
                self.deliver(topic, payload, retained=True)

    def _leave(self) -> None:
        if not self.connected:
            return
        self._broker.clients.remove(self)
        self._up.clear()
        for listener in self._listeners:
            listener(False)


def matches(topic_filter: str, topic: str) -> bool:
    """Whether an MQTT topic filter with ``+`` and ``#`` takes a topic."""
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    if levels[0].startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in {"+", levels[index]}:
            return False
    return len(wanted) == len(levels)
