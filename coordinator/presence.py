"""The coordinator's own sign of life, and its eye on others who claim the site.

Agents hold limits only while heartbeats come; a broker's connection proves nothing about who decides. Two coordinators
for one site are told apart by ``instance`` and ordered by ``epoch``: the older one must go.
"""

import asyncio
import logging
import math

from hil.bus import Bus, Will
from hil.clock import Clock
from hil.wire import CoordinatorState, Heartbeat, Topics, WireError, decode, encode

log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
GREETING_S = 0.05


def offline_will(topics: Topics, instance: str) -> Will:
    """What the broker says for a coordinator that vanished."""
    return Will(topics.coordinator_state, encode(CoordinatorState(online=False, instance=instance, epoch=0)))


class Rivals:
    """Other coordinators of the site, as far as their messages tell."""

    def __init__(self, topics: Topics, instance: str) -> None:
        self._topics = topics
        self._instance = instance
        self._online: CoordinatorState | None = None
        self._alive_epoch: int | None = None
        self.last_word_is_theirs = False
        self.highest_epoch = 0
        self.unreadable = 0
        self._changed = asyncio.Event()

    @property
    def filters(self) -> list[str]:
        """What must be subscribed to for rivals to be seen."""
        return [self._topics.coordinator_state, self._topics.heartbeat]

    @property
    def claimed(self) -> CoordinatorState | None:
        """A rival that says it is online; it may be a retained word of one long dead."""
        return self._online

    @property
    def alive(self) -> CoordinatorState | None:
        """A rival that is online and was heard."""
        if self._online is None or self._alive_epoch != self._online.epoch:
            return None
        return self._online

    async def until_alive(self) -> None:
        """Return once a rival is known to be alive."""
        while self.alive is None:
            self._changed.clear()
            await self._changed.wait()

    def take(self, topic: str, payload: bytes, *, own_epoch: int) -> bool:
        """Look at a message; True if it was one about coordinators."""
        try:
            if topic == self._topics.coordinator_state:
                self._state(decode(payload, CoordinatorState))
            elif topic == self._topics.heartbeat:
                epoch = decode(payload, Heartbeat).epoch
                self._see(epoch)
                if epoch != own_epoch:
                    self._alive_epoch = epoch
            else:
                return False
        except WireError as error:
            self.unreadable += 1
            if self.unreadable == 1:
                log.warning("unreadable message on %s: %s (told once; counted from here on)", topic, error)
        self._changed.set()
        return True

    def _state(self, state: CoordinatorState) -> None:
        self._see(state.epoch)
        self.last_word_is_theirs = state.instance != self._instance
        if state.instance != self._instance:
            self._online = state if state.online else None

    def _see(self, epoch: int) -> None:
        self.highest_epoch = max(self.highest_epoch, epoch)


class Echo:
    """A message to oneself: when it is back, everything that the broker retained has come before it."""

    def __init__(self, topics: Topics, instance: str, bus: Bus) -> None:
        self.topic = f"{topics.root}/coordinator/echo/{instance}"
        self._bus = bus
        self._back = asyncio.Event()

    @property
    def back(self) -> bool:
        """Whether the call is back."""
        return self._back.is_set()

    def call(self) -> None:
        """Send the call; the bus must be connected and subscribed to ``topic``."""
        self._bus.publish(self.topic, b"{}")

    def take(self, topic: str) -> None:
        """Look at an incoming topic."""
        if topic == self.topic:
            self._back.set()

    async def heard(self) -> None:
        """Call, and return when the call is back."""
        self.call()
        await self._back.wait()


class Presence:
    """Publishes state and heartbeats."""

    def __init__(self, topics: Topics, instance: str, epoch: int, bus: Bus, clock: Clock) -> None:
        self._topics = topics
        self._instance = instance
        self._epoch = epoch
        self._bus = bus
        self._clock = clock
        self._count = 0
        self._online = False
        self._draining = False
        self._beaten = -math.inf
        self._expected = asyncio.Event()

    def come_online(self) -> None:
        """Say that this coordinator decides, now and after each reconnect."""
        self._online = True
        self._bus.on_connection(self.assert_state)
        self.assert_state(self._bus.connected)

    def drain(self) -> None:
        """Say that this coordinator decides no more, and still takes samples."""
        self._online, self._draining = False, True
        self._publish_state()

    def go_offline(self) -> None:
        """Say that this coordinator leaves. Harmless when repeated."""
        if self._online or self._draining:
            self._online = self._draining = False
            self._publish_state()

    def give_way(self) -> None:
        """Stop without a word: the site belongs to another, whose word must stand."""
        self._online = self._draining = False

    def assert_state(self, connected: bool = True) -> None:
        """Say again that this coordinator decides, as after a reconnect or a word of one that left."""
        if connected and self._online:
            self._publish_state()
            self._beat_once()

    def greet(self) -> None:
        """Beat for an agent that has just come: one without a synchronised clock obeys nobody before it hears us.

        At once, or together with others where many come at the same time.
        """
        if self._clock.monotonic() - self._beaten >= GREETING_S:
            self._beat_once()
        else:
            self._expected.set()

    async def beat(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            self._beat_once()
            self._expected.clear()
            now = self._clock.monotonic()
            await self._clock.sleep_until(now + GREETING_S)
            await self._expected_or(now + HEARTBEAT_S)

    async def _expected_or(self, deadline: float) -> None:
        expected = asyncio.create_task(self._expected.wait())
        timer = asyncio.create_task(self._clock.sleep_until(deadline))
        try:
            await asyncio.wait({expected, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            expected.cancel()
            timer.cancel()

    def _publish_state(self) -> None:
        state = CoordinatorState(
            online=self._online, draining=self._draining, instance=self._instance, epoch=self._epoch
        )
        self._bus.publish(self._topics.coordinator_state, encode(state), qos=1, retain=True)

    def _beat_once(self) -> None:
        if not self._online:
            return
        self._beaten = self._clock.monotonic()
        self._count += 1
        heartbeat = Heartbeat(epoch=self._epoch, count=self._count)
        self._bus.publish(self._topics.heartbeat, encode(heartbeat), qos=0)
