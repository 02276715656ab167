"""A live run from start to end: what ``wattloop-coordinator run`` does."""

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from coordinator.feeds import Feeds
from coordinator.fleet import Fleet, Journal, Notice
from coordinator.ingest import Ingest
from coordinator.ledger import Ledger
from coordinator.ledgerreader import LedgerReader
from coordinator.ledgerschema import ledger_file
from coordinator.loop import EventListener, LiveLoop, RunSnapshot
from coordinator.presence import HEARTBEAT_S, Echo, Presence, Rivals, offline_will
from coordinator.records import CommandRow
from coordinator.roster import Agent
from coordinator.scenario import Scenario
from coordinator.site import Site
from coordinator.stepper import Stepper
from coordinator.timeline import Timeline
from hil.bus import Inbound
from hil.clock import Clock
from hil.mqtt import MqttBus
from hil.sdnotify import Notifier
from hil.wire import Presence as NodePresence
from hil.wire import Record, Topics

log = logging.getLogger(__name__)

FIRST_SAMPLES_S: Final = 10.0
BROKER_S: Final = 10.0
RELEASE_S: Final = 3.0
POLL_S: Final = 0.02
NOTIFY_EVERY_S: Final = 1.0

SCENARIO_PATH: Final = "scenario_path"
SCENARIO_TEXT: Final = "scenario_text"
VERSION: Final = "wattloop_version"


class RunError(Exception):
    """The run cannot start or go on; the text says why and what helps."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run. ``drain_s``: for how long to go on acknowledging samples after the last step."""

    run_dir: Path
    state_dir: Path
    take_over: bool = False
    drain_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Past:
    """Where an earlier life of a run stopped, and the commands of which it never heard the end."""

    snapshot: RunSnapshot
    commands: list[CommandRow]


def past_of(run_dir: Path, scenario: Path) -> Past | None:
    """What came before in this folder; None where there was no step yet.

    Raises LedgerError, and RunError where the folder holds a run of another scenario.
    """
    if not ledger_file(run_dir).exists():
        return None
    with LedgerReader(run_dir) as reader:
        found = reader.snapshot()
        text = reader.meta(SCENARIO_TEXT)
        commands = reader.open_commands()
    if found is None:
        return None
    if text != scenario.read_text(encoding="utf-8"):
        raise RunError(f"{run_dir} holds a run of another scenario, or of an earlier text of {scenario}")
    return Past(msgspec.json.decode(found[1], type=RunSnapshot), commands)


def can_go_on(run_dir: Path, scenario: Path) -> bool:
    """Whether the folder holds a run of this very scenario that has not come to its end. Raises LedgerError."""
    try:
        past = past_of(run_dir, scenario)
    except RunError:
        return False
    if past is None:
        return False
    steps = past.snapshot.timeline.steps
    return steps is None or past.snapshot.k < steps


class LiveRun:
    """A scenario on real nodes, its parts wired; ``go`` runs it."""

    def __init__(
        self,
        scenario: Scenario,
        past: Past | None,
        options: RunOptions,
        clock: Clock,
        notifier: Notifier,
        on_event: EventListener,
    ) -> None:
        config = scenario.config
        self._scenario = scenario
        self._past = past
        self._options = options
        self._clock = clock
        self._notifier = notifier
        self._on_event = on_event
        self._topics = Topics(config.site)
        self._instance = secrets.token_hex(8)
        self._ousted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._site = Site(options.state_dir, config.site)
        self._ledger = Ledger(options.run_dir, clock)
        self._bus = MqttBus(
            config.broker.beside(scenario.path.parent),
            f"coordinator-{self._instance[:8]}",
            clock,
            offline_will(self._topics, self._instance),
        )
        nodes = {node.node for node in config.nodes()}
        self._ingest = Ingest(config.site, nodes, self._ledger, self._bus, clock)
        self._feeds = Feeds(scenario, self._ingest)
        self._rivals = Rivals(self._topics, self._instance)
        self._echo = Echo(self._topics, self._instance, self._bus)
        self._epoch = 0
        self._newest = (0, 0.0)
        self._running: LiveLoop | None = None
        self._presence: Presence | None = None
        self._early: list[Notice] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def go(self) -> None:
        """Run to the scenario's end. Raises RunError, SiteError, LedgerError; cancel it to stop early."""
        async with AsyncExitStack() as stack:
            self._site.acquire()
            stack.callback(self._site.release)
            await self._ledger.open()
            stack.push_async_callback(self._ledger.close)
            self._describe()
            self._listen()
            await self._bus.start()
            stack.push_async_callback(self._bus.stop)
            self._background(stack, self._ingest.run(), "ingest")
            await self._take_site()
            presence = Presence(self._topics, self._instance, self._epoch, self._bus, self._clock)
            presence.come_online()
            stack.callback(presence.go_offline)
            self._presence = presence
            self._background(stack, presence.beat(), "heartbeat")
            self._ingest.on_birth(lambda _agent, _birth: presence.greet())  # before the fleet commands it
            fleet = self._fleet()
            await self._first_samples()
            loop = self._loop(fleet)
            stack.callback(loop.flush_events)
            self._background(stack, self._watch(loop), "watchdog")
            await self._unless_ousted(loop.run())
            await loop.release(RELEASE_S)
            presence.drain()
            await self._drain()

    # --- start --------------------------------------------------------------------------------------------------------

    def _describe(self) -> None:
        """Keep with the run what it is a run of."""
        path = self._scenario.path.absolute()
        self._ledger.set_meta(SCENARIO_PATH, str(path))
        self._ledger.set_meta(SCENARIO_TEXT, path.read_text(encoding="utf-8"))
        self._ledger.set_meta(VERSION, version("wattloop"))

    def _listen(self) -> None:
        for topic_filter in (*self._rivals.filters, self._echo.topic):
            self._bus.subscribe(topic_filter)
        self._ingest.on_other(self._on_coordinator)
        self._ingest.on_epoch(lambda _agent, epoch: self._see_epoch(epoch))
        self._ingest.on_signal(self._feeds.on_signal)
        self._ledger.on_fault(lambda fault: self._notice(Notice(None, "ledger", fault or "commits work again")))
        self._ingest.start()

    async def _take_site(self) -> None:
        """Get an epoch above every one that the site's agents know, unless another coordinator is at work."""
        if await self._within(self._bus.wait_connected(), BROKER_S):
            await self._within(self._echo.heard(), BROKER_S)  # what the broker retains has come by now
        else:
            log.warning("no broker within %g s: starting without nodes, which count with their nameplates", BROKER_S)
        if self._rivals.claimed is not None:  # it may have died with its broker: a heartbeat tells
            await self._within(self._rivals.until_alive(), 1.5 * HEARTBEAT_S)
        rival = self._rivals.alive
        if rival is not None and not self._options.take_over:
            raise RunError(
                f"another coordinator runs site {self._scenario.config.site} (instance {rival.instance}, epoch "
                f"{rival.epoch}); stop it, or replace it with --take-over"
            )
        self._epoch = self._site.next_epoch(max(self._ingest.highest_epoch, self._rivals.highest_epoch))

    def _fleet(self) -> Fleet:
        config = self._scenario.config
        journal = Journal(
            ack=self._ledger.record_ack,
            effect=self._ledger.record_effect,
            notice=self._notice,
            stale=lambda detail: self._oust(f"agents obey a newer coordinator: {detail}"),
        )
        ttl_s, priority = config.commands.ttl_s, config.commands.priority
        fleet = Fleet(self._topics, config.site, self._epoch, ttl_s, priority, self._clock, self._bus, journal)
        for agent in self._ingest.roster:
            if agent.birth is not None:
                fleet.on_birth(agent.name, agent.birth)
        self._ingest.on_birth(fleet.on_birth)
        self._ingest.on_state(fleet.on_state)
        self._ingest.on_ack(fleet.on_ack)
        self._ingest.on_sample(lambda agent, meter, record: self._show(fleet, agent, meter, record))
        return fleet

    def _show(self, fleet: Fleet, agent: str, meter: str, record: Record) -> None:
        for node in self._feeds.nodes_of(agent, meter):
            fleet.on_sample(node, record.w, record.q)

    async def _first_samples(self) -> None:
        """Wait until every node was heard, or for as long as is decent."""
        deadline = self._clock.monotonic() + FIRST_SAMPLES_S
        while (silent := self._feeds.silent()) and self._clock.monotonic() < deadline:
            await self._clock.sleep_until(self._clock.monotonic() + POLL_S)
        if silent:
            log.warning("not heard within %g s, taken at nameplate: %s", FIRST_SAMPLES_S, ", ".join(silent))

    def _loop(self, fleet: Fleet) -> LiveLoop:
        scenario, past = self._scenario, self._past
        timeline = past.snapshot.timeline if past is not None else self._timeline()
        stepper = Stepper(scenario, timeline)
        parts = (scenario, stepper, timeline, self._feeds.inputs, fleet, self._ledger, self._bus, self._clock)
        loop = LiveLoop(*parts)
        loop.on_event(self._on_event)
        loop.on_step(self._on_step)
        if past is not None:
            loop.resume(past.snapshot)
            fleet.adopt(past.commands)
            loop.event(None, "resumed", f"at step {past.snapshot.k}, epoch {self._epoch}")
        else:
            loop.event(None, "started", f"epoch {self._epoch}, {self._bus.description}")
        for notice in self._early:
            loop.notice(notice)
        self._running = loop
        return loop

    def _timeline(self) -> Timeline:
        config = self._scenario.config
        return Timeline(
            start_us=self._scenario.start_us,
            real_start_us=self._clock.wall_us(),
            interval_s=config.interval_s,
            speed=config.speed,
            steps=self._scenario.steps,
        )

    # --- while it runs ------------------------------------------------------------------------------------------------

    def _notice(self, notice: Notice) -> None:
        if self._running is None:
            self._early.append(notice)
        else:
            self._running.notice(notice)

    async def _watch(self, loop: LiveLoop) -> None:
        """Tell the service manager that steps are taken, for as long as they are."""
        self._notifier.ready()
        period_s = (self._notifier.watchdog_s or 2.0 * NOTIFY_EVERY_S) / 3.0
        while True:
            if loop.overdue_s < period_s:
                self._notifier.alive()
            self._notifier.status(f"step {self._newest[0]}, {self._newest[1] * 1000.0:.1f} ms late")
            await self._clock.sleep_until(self._clock.monotonic() + period_s)

    def _on_step(self, k: int, lateness_s: float) -> None:
        self._newest = (k, lateness_s)

    def _on_coordinator(self, message: Inbound) -> None:
        self._echo.take(message.topic)
        self._rivals.take(message.topic, message.payload, own_epoch=self._epoch)
        if self._presence is None:
            return
        rival = self._rivals.claimed
        if rival is not None and (rival.epoch, rival.instance) > (self._epoch, self._instance):
            self._oust(f"coordinator {rival.instance} took over with epoch {rival.epoch}")
        elif self._rivals.last_word_is_theirs:  # of one that left, or will leave
            self._presence.assert_state()

    def _see_epoch(self, epoch: int) -> None:
        if self._epoch and epoch > self._epoch:
            self._oust(f"an agent obeys epoch {epoch}, ours is {self._epoch}")

    def _oust(self, why: str) -> None:
        if self._presence is not None:
            self._presence.give_way()
        if not self._ousted.done():
            self._ousted.set_result(why)

    async def _unless_ousted(self, running: Coroutine[Any, Any, None]) -> None:
        """Run, but not on under a newer coordinator, nor without the parts in the background."""
        task = asyncio.create_task(running, name="loop")
        try:
            watched: set[asyncio.Future[Any]] = {task, self._ousted, *self._tasks}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for broken in self._tasks:
                if broken.done():
                    broken.result()
            if self._ousted.done() and not task.done():
                raise RunError(f"{self._ousted.result()}; this one ends, and leaves the nodes to it")
            await task
        finally:
            task.cancel()

    def _background(self, stack: AsyncExitStack, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        stack.push_async_callback(_ended, task)

    async def _within(self, work: Coroutine[Any, Any, None], seconds: float) -> bool:
        """Whether ``work`` was done within the time."""
        try:
            async with asyncio.timeout(seconds):
                await work
        except TimeoutError:
            return False
        return True

    # --- end ----------------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Go on acknowledging until every agent has said goodbye and all it took is on disk."""
        deadline = self._clock.monotonic() + self._options.drain_s
        while self._clock.monotonic() < deadline and not all(map(self._has_left, self._ingest.roster)):
            await self._clock.sleep_until(self._clock.monotonic() + POLL_S)

    def _has_left(self, agent: Agent) -> bool:
        """Whether nothing more is to be expected of an agent; a broker may deliver its goodbye before its samples."""
        if agent.birth is None:
            return True
        if agent.state is None or agent.state.state is NodePresence.READY:
            return False
        return all(
            books.generated(agent.state) <= books.committed + books.lost
            for books in self._ingest.books()
            if books.node == agent.name
        )


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})
