"""The bus over an MQTT broker: MQTT 5, or 3.1.1 where the broker knows no better.

Connections come and go, one ``Link`` after the other; sessions are clean, so that nothing stale waits in a broker. What
a link's thread has to say is handled on the event loop, which is woken once per burst.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from hil.brokerconfig import BrokerConfig
from hil.bus import BusCounters, ConnectionListener, Inbound, Inbox, Will
from hil.clock import Clock
from hil.mqttlink import CLOSED, Accepted, Acked, Ended, Event, Link, Subscribed, Version
from hil.outbox import MAX_TRIES, Outbox, Outgoing
from hil.reconnect import Backoff, Troubles

__all__ = ["BrokerConfig", "MqttBus"]

HANDSHAKE_S: Final = 10.0
STABLE_S: Final = 5.0
FLUSH_S: Final = 2.0
GOODBYE_S: Final = 2.0
NOT_ACKED_S: Final = 60.0
FALLBACK_AFTER: Final = 3
PACKET_OVERHEAD: Final = 32

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Attempt:
    """One link and how far it has come. ``settled`` is done once it is up or over, ``ended`` once it is over."""

    link: Link
    settled: asyncio.Future[None]
    ended: asyncio.Future[Ended]
    max_packet: int | None = None
    subscribing: dict[int, Sequence[str]] = field(default_factory=dict)
    accepted: bool = False
    up_since: float | None = None


class MqttBus:
    """An MQTT client that keeps itself connected. All methods belong on one event loop.

    A message that was handed over but not acknowledged when the connection broke is sent again on the next one, at most
    twice, and not past its expiry.
    """

    def __init__(
        self,
        config: BrokerConfig,
        client_id: str,
        clock: Clock,
        will: Will | None = None,
        *,
        draw: random.Random | None = None,
    ) -> None:
        self.counters = BusCounters()
        self._config = config
        self._client_id = client_id
        self._clock = clock
        self._will = will
        self._filters: list[str] = []
        self._listeners: list[ConnectionListener] = []
        self._inbox = Inbox(self.counters)
        self._outbox = Outbox()
        self._backoff = Backoff(draw or random.Random())
        self._troubles = Troubles(log, config.url)
        self._refused_topics: set[str] = set()
        self._version = Version.V5
        self._unanswered = 0
        self._up = asyncio.Event()
        self._flushed = asyncio.Event()
        self._attempt: Attempt | None = None
        self._task: asyncio.Task[None] | None = None
        # Shared with the links' threads: they append and ring, the event loop empties.
        self._events: deque[tuple[Link, Event]] = deque()
        self._rung = False
        self._loop: asyncio.AbstractEventLoop

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and answered our subscriptions."""
        return self._up.is_set()

    @property
    def not_acked(self) -> bool:
        """Whether the broker has left a message unacknowledged for a minute."""
        oldest = self._outbox.oldest()
        return oldest is not None and self._clock.monotonic() - oldest >= NOT_ACKED_S

    @property
    def description(self) -> str:
        """The broker's URL, and what we speak with it."""
        spoken = self._attempt.link.version if self.connected and self._attempt else "not connected"
        return f"{self._config.url} ({spoken})"

    def subscribe(self, topic_filter: str) -> None:
        """Ask for a filter at QoS 1, now and after each reconnect."""
        if topic_filter not in self._filters:
            self._filters.append(topic_filter)
        if self._attempt is not None and self._attempt.accepted:
            self._ask(self._attempt, [topic_filter])

    def on_connection(self, listener: ConnectionListener) -> None:
        """Call ``listener`` at each change of ``connected``."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Begin connecting. Raises ConfigError when a file that the configuration names cannot be used."""
        if self._task is not None:
            return
        await asyncio.to_thread(self._config.access)
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._keep_connected(), name=f"mqtt-{self._client_id}")

    async def wait_connected(self) -> None:
        """Return when connected."""
        await self._up.wait()

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, expiry_s: int | None = None
    ) -> bool:
        """Hand a message over; False while disconnected, and when too much is under way already.

        Raises ValueError for a topic with wildcards.
        """
        if not self.connected or not self._fits(topic, payload):
            return False
        if not self._outbox.takes(payload):
            self.counters.overflowed += 1
            return False
        now = self._clock.monotonic()
        message = Outgoing(topic, payload, qos, retain, None if expiry_s is None else now + expiry_s, now)
        mid = self._send(message)
        if mid is None:
            return False
        self._outbox.sent(mid, message, now)
        self.counters.published += 1
        return True

    async def receive(self) -> list[Inbound]:
        """What has arrived, in order."""
        return await self._inbox.take()

    async def stop(self) -> None:
        """Wait a moment for what was handed over, say goodbye and disconnect."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            await self._flush()
        finally:
            task.cancel()
            await asyncio.wait({task})
            await self._leave()

    # --- connecting ---

    async def _keep_connected(self) -> None:
        """One attempt after the other, until cancelled."""
        while True:
            attempt = self._attempt = self._begin()
            try:
                end = await self._attend(attempt)
            except asyncio.CancelledError:
                if self._task is not None:  # not by stop: the event loop ends, and nobody will say goodbye
                    attempt.link.abandon("cancelled")
                raise
            await self._clock.sleep_until(self._clock.monotonic() + self._after(attempt, end))

    async def _attend(self, attempt: Attempt) -> Ended:
        """See an attempt through to its end."""
        if not await self._within(HANDSHAKE_S, attempt.settled):
            attempt.link.abandon("the broker does not answer")
        if self.connected and not await self._within(STABLE_S, attempt.ended):
            self._backoff.reset()
            self._troubles.holds(attempt.link.version)
        await asyncio.wait({attempt.ended})  # which, unlike a bare await, leaves the future whole when we are cancelled
        return attempt.ended.result()

    def _begin(self) -> Attempt:
        loop = asyncio.get_running_loop()
        link = Link(
            self._config, self._client_id, self._will, self._version, self._clock, self._on_message, self._on_event
        )
        attempt = Attempt(link, loop.create_future(), loop.create_future())
        link.open()
        return attempt

    async def _within(self, seconds: float, future: asyncio.Future[None] | asyncio.Future[Ended]) -> bool:
        """Whether ``future`` was done within ``seconds``."""
        timer = asyncio.ensure_future(self._clock.sleep_until(self._clock.monotonic() + seconds))
        try:
            await asyncio.wait({future, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        return future.done()

    def _after(self, attempt: Attempt, end: Ended) -> float:
        """Seconds to wait after an attempt that has ended; decides what the next one speaks."""
        flapping = attempt.up_since is not None and self._clock.monotonic() - attempt.up_since < STABLE_S
        if end.version_refused and self._version is Version.V5:
            self._version = Version.V311
            return 0.0
        self._unanswered = self._unanswered + 1 if end.unanswered else 0
        if attempt.up_since is not None:
            # A broker that was only restarting may have looked like one that knows no MQTT 5.
            self._version = Version.V5
        elif self._unanswered >= FALLBACK_AFTER:
            self._version = Version.V311 if self._version is Version.V5 else Version.V5
            self._unanswered = 0
        self._troubles.failed(self._explained(end.why, flapping), flapping=flapping)
        return self._backoff.next_s()

    def _explained(self, why: str, flapping: bool) -> str:
        if flapping and self._troubles.flapping and why == CLOSED:
            # All that MQTT 3.1.1 tells a client whose id another one took over.
            return f"{why} again as soon as it was up; does another program use the client id {self._client_id}?"
        return why

    async def _flush(self) -> None:
        if not self.connected:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                while not self._outbox.empty:
                    self._flushed.clear()
                    await self._flushed.wait()

    async def _leave(self) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        attempt.link.close()
        await asyncio.wait({attempt.ended}, timeout=GOODBYE_S)
        attempt.link.abandon("stopped")
        self._fall()
        self._attempt = None
        await asyncio.sleep(0)  # the listeners' turn

    # --- in the link's thread ---

    def _on_message(self, message: Inbound) -> bool:
        self._inbox.put(message)
        return self._ring()

    def _on_event(self, link: Link, event: Event) -> bool:
        self._events.append((link, event))
        return self._ring()

    def _ring(self) -> bool:
        """Wake the event loop, once until it has looked; False where it is closed."""
        if self._rung:
            return not self._loop.is_closed()
        self._rung = True
        try:
            self._loop.call_soon_threadsafe(self._hear)
        except RuntimeError:
            return False
        return True

    # --- what the thread told, on the event loop ---

    def _hear(self) -> None:
        self._rung = False
        self._inbox.wake()
        while self._events:
            link, event = self._events.popleft()
            if self._attempt is not None and link is self._attempt.link:  # else a word from the past
                self._handle(self._attempt, event)

    def _handle(self, attempt: Attempt, event: Event) -> None:
        match event:
            case Acked(mid, refusal):
                self._acked(mid, refusal)
            case Accepted(max_packet):
                attempt.accepted = True
                attempt.max_packet = max_packet
                if self._ask(attempt, self._filters):
                    self._rise_when_subscribed(attempt)
            case Subscribed(mid, refusals):
                self._subscribed(attempt.subscribing.pop(mid, ()), refusals)
                self._rise_when_subscribed(attempt)
            case Ended():
                self._fall()
                self._outbox.connection_lost()
                _settle(attempt.settled, None)
                _settle(attempt.ended, event)

    def _ask(self, attempt: Attempt, filters: Sequence[str]) -> bool:
        """Ask for filters; False where the link is gone already."""
        if not filters:
            return True
        mid = attempt.link.subscribe(filters)
        if mid is None:
            return False
        attempt.subscribing[mid] = tuple(filters)
        return True

    def _subscribed(self, filters: Sequence[str], refusals: Sequence[str]) -> None:
        for topic_filter, refusal in zip(filters, refusals, strict=False):
            if refusal:
                self.counters.refused += 1
                self._tell_refused(topic_filter, f"subscription refused: {refusal}")

    def _rise_when_subscribed(self, attempt: Attempt) -> None:
        if attempt.up_since is not None or attempt.subscribing:
            return
        attempt.up_since = self._clock.monotonic()
        self.counters.connections += 1
        self._up.set()
        _settle(attempt.settled, None)
        self._troubles.connected(attempt.link.version)
        self._send_waiting(attempt.up_since)
        self._tell_listeners(connected=True)

    def _fall(self) -> None:
        if self.connected:
            self._up.clear()
            self._tell_listeners(connected=False)

    def _tell_listeners(self, *, connected: bool) -> None:
        for listener in self._listeners:
            # One by one, so that a listener that fails is reported and harms nobody else.
            asyncio.get_running_loop().call_soon(listener, connected)

    # --- messages on their way ---

    def _fits(self, topic: str, payload: bytes) -> bool:
        limit = self._attempt.max_packet if self._attempt is not None else None
        if limit is None or len(topic) + len(payload) + PACKET_OVERHEAD <= limit:
            return True
        self.counters.refused += 1
        self._tell_refused(topic, f"{len(payload)} bytes are more than the broker takes in a packet of {limit}")
        return False

    def _send(self, message: Outgoing) -> int | None:
        if self._attempt is None:
            return None
        expiry_s = message.remaining_s(self._clock.monotonic())
        return self._attempt.link.publish(message.topic, message.payload, message.qos, message.retain, expiry_s)

    def _send_waiting(self, now: float) -> None:
        for message in self._outbox.send_waiting(self._send, now):
            if message.tries >= MAX_TRIES:
                self.counters.refused += 1
                self._tell_refused(message.topic, f"not acknowledged on {message.tries} connections")

    def _acked(self, mid: int, refusal: str) -> None:
        message = self._outbox.acknowledged(mid)
        if message is not None and refusal:
            self.counters.refused += 1
            self._tell_refused(message.topic, refusal)
        if self._outbox.empty:
            self._flushed.set()

    def _tell_refused(self, topic: str, why: str) -> None:
        if topic not in self._refused_topics:
            self._refused_topics.add(topic)
            log.warning("%s: %s: %s", self._config.url, topic, why)


T = TypeVar("T")


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)
