"""The agent: measure, store, publish, obey; and on the way out leave nothing limited and nothing untold."""

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import Final

from agent.config import Setup
from agent.energy import EnergyMeter
from agent.lastvalue import LastValues
from agent.leasestore import LeaseStore, StoreFailed
from agent.machine import clock_synchronised
from agent.mailbox import Mailbox, reading
from agent.obedience import Obedience
from agent.report import NewestSamples, NodeReport
from agent.sample import Sample
from agent.sampler import MeterCadence, Sampler
from agent.spool import Books, Committed, SampleStore, Spool
from agent.statedir import StateDir
from agent.supervision import Supervisor
from agent.uplink import Uplink
from agent.voice import Voice
from agent.window import Window
from hil.bus import Bus, Inbound
from hil.clock import Clock
from hil.sdnotify import Notifier
from hil.wire import Birth, CoordinatorState, Heartbeat, MeterInfo, NodeState, Presence, Topics

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
BOOKS_S: Final = 60.0
DRAIN_S: Final = 2.0
STALLED_S: Final = 5.0
STALLED_TICKS: Final = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells this life of the agent from others: ``session`` is higher than in any earlier one."""

    session: int
    boot_id: str
    version: str


class Agent:
    """One node's agent, wired from its setup. The constructor only stores; ``run`` acts."""

    def __init__(
        self, setup: Setup, state_dir: StateDir, identity: Identity, bus: Bus, clock: Clock, notifier: Notifier
    ) -> None:
        config = setup.config
        topics = Topics(config.site)
        node = topics.node(config.node)
        self._setup = setup
        self._config = config
        self._identity = identity
        self._bus = bus
        self._clock = clock
        self._notifier = notifier
        self._tasks = Supervisor(clock)
        store = SampleStore(state_dir.path, config.spool.bounds, config.spool.sync, identity.boot_id, clock)
        self._spool = Spool(store, clock, self._stored)
        self._uplink = Uplink(node, bus, self._spool, clock)
        self._last = LastValues(node, bus, clock)
        self._voice = Voice(node, bus, self._birth, self._state)
        self._obedience = Obedience(
            node=config.node,
            mode=config.mode,
            actuators=setup.actuators,
            bounds={},
            failsafe=config.failsafe_limit(),
            store=LeaseStore(state_dir.leases),
            clock=clock,
            outbox=self._voice,
            boot_id=identity.boot_id,
            synchronised=clock_synchronised,
            locked=state_dir.switch.exists,
        )
        self._mailbox = Mailbox(
            bus,
            {
                node.cmd: lambda message: self._obedience.command(message.payload, message.retained),
                node.data_ack: lambda message: self._uplink.ack(message.payload),
                topics.coordinator_state: reading(CoordinatorState, self._coordinator_state),
                topics.heartbeat: self._heartbeat,
            },
        )
        # A node may have several meters; the first that measures it judges its limits.
        self._own_meter = next((meter.name for meter in config.meters if config.measured_by(meter) == config.node), "")
        self._newest = NewestSamples(clock)
        self._window = Window(state_dir.window, self._report)
        self._books = Books()
        self._announced_stream = ""
        self._sampled = clock.monotonic()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then leave in order. Raises StoreFailed or ConfigError if it cannot begin."""
        try:
            await self._start()
        except BaseException:
            await self._tasks.stop()
            await self._window.close()
            await self._bus.stop()
            await self._spool.close()
            raise
        try:
            await stop.wait()
        finally:
            self._notifier.stopping()
            await self._stop()

    async def _start(self) -> None:
        self._uplink.begin(await self._spool.open())
        self._tasks.start("sampler", self._sampler().run)
        self._tasks.start("spool", self._spool.run)
        await self._obedience.start()
        self._tasks.start("obedience", self._obedience.run)
        await self._window.open()
        self._mailbox.subscribe()
        self._bus.on_connection(self._connection)
        await self._bus.start()
        self._tasks.start("mailbox", self._mailbox.run)
        self._tasks.start("uplink", self._uplink.run)
        self._tasks.start("housekeeping", self._keep_house)
        if self._notifier.watchdog_s is not None:
            self._tasks.start("watchdog", self._feed_watchdog)
        self._notifier.ready()
        log.info("agent %s of site %s: %d meters, mode %s", *self._summary())

    async def _stop(self) -> None:
        await self._window.close()
        await self._tasks.stop("sampler")
        try:
            await self._obedience.stop()
        except StoreFailed as error:
            log.error("%s", error)
        await self._tasks.stop("obedience", "spool")
        await self._spool.flush()
        await self._uplink.drain(DRAIN_S)
        await self._tasks.stop()
        self._books = await self._spool.books()
        self._voice.leave()
        await self._bus.stop()
        await self._spool.close()
        log.info("stopped: %s", self._books)

    def _summary(self) -> tuple[str, str, int, str]:
        return self._config.node, self._config.site, len(self._config.meters), self._config.mode

    def _sampler(self) -> Sampler:
        cadences = []
        for meter, config in zip(self._setup.meters, self._config.meters, strict=True):
            energy = EnergyMeter(self._spool.energy(meter.name), self._spool.first_epoch)
            interval_s = self._config.interval_of(config)
            cadences.append(MeterCadence(meter, interval_s, energy, self._clock, self._take))
        return Sampler(cadences, self._clock)

    # --- samples ------------------------------------------------------------------------------------------------------

    def _take(self, sample: Sample) -> None:
        self._sampled = self._clock.monotonic()
        self._spool.append(sample)
        self._newest.take(sample)
        self._last.show(sample)
        if sample.meter == self._own_meter:
            self._obedience.observe(sample.power_w, sample.quality)

    def _stored(self, committed: Committed, waited_s: float) -> None:
        self._uplink.stored(committed, waited_s)
        if committed.stream != self._announced_stream:
            self._voice.arrive()

    # --- the bus ------------------------------------------------------------------------------------------------------

    def _connection(self, up: bool) -> None:
        if up:
            self._voice.arrive()
        self._obedience.connection(up)
        self._uplink.connection(up)

    def _coordinator_state(self, state: CoordinatorState) -> None:
        self._obedience.coordinator_state(state)
        self._uplink.coordinator_state(state)

    def _heartbeat(self, message: Inbound) -> None:
        if not message.retained:  # a retained one shows that somebody was alive once
            reading(Heartbeat, self._obedience.heartbeat)(message)

    def _birth(self) -> Birth:
        config = self._config
        self._announced_stream = self._spool.stream
        return Birth(
            node=config.node,
            version=self._identity.version,
            boot_id=self._identity.boot_id,
            stream=self._spool.stream,
            epoch=self._obedience.highest_epoch,
            mode=config.mode,
            nameplate_w=config.nameplate_w,
            failsafe=str(config.failsafe_limit()),
            sync=config.spool.sync,
            clock_synchronised=clock_synchronised(),
            mqtt=self._bus.description,
            meters=[
                MeterInfo(
                    name=meter.name,
                    kind=str(meter.__struct_config__.tag),
                    measures=config.measured_by(meter),
                    interval_s=config.interval_of(meter),
                )
                for meter in config.meters
            ],
            actuators=self._obedience.infos,
        )

    def _state(self, presence: Presence) -> NodeState:
        return NodeState(
            state=presence,
            session=self._identity.session,
            lease=self._obedience.state,
            stream=self._spool.stream,
            generated=self._books.generated,
            acked=self._books.acked,
            spooled=self._books.spooled,
            lost=self._books.lost,
        )

    async def _report(self) -> NodeReport:
        self._books = await self._spool.books()
        return NodeReport(
            site=self._config.site,
            node=self._config.node,
            mode=self._config.mode,
            pid=os.getpid(),
            version=self._identity.version,
            lease_state=self._obedience.state,
            broker=self._bus.description,
            connected=self._bus.connected,
            own_meter=self._own_meter,
            meters=self._newest.report(),
            actuators=self._obedience.reports,
            books=str(self._books),
        )

    # --- housekeeping -------------------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        """Report each change of the lease state, and check the books each minute."""
        books_at, said = self._clock.monotonic(), ""
        while True:
            now = self._clock.monotonic()
            if now >= books_at:
                books_at = now + BOOKS_S
                await self._check_books()
            elif self._obedience.state != said:
                self._voice.report()
            said = self._obedience.state
            await self._clock.sleep_until(now + LOOK_S)

    async def _check_books(self) -> None:
        self._books = books = await self._spool.books()
        if not books.balanced:
            log.error("the books do not balance: %s", books)
        self._voice.report()
        connected = "connected" if self._bus.connected else "not connected"
        self._notifier.status(f"{connected} to {self._bus.description}, lease {self._obedience.state}, {books}")

    async def _feed_watchdog(self) -> None:
        period_s = (self._notifier.watchdog_s or 0.0) / 3
        shortest_s = min(self._config.interval_of(meter) for meter in self._config.meters)
        while True:
            if self._clock.monotonic() - self._sampled < STALLED_S + STALLED_TICKS * shortest_s:
                self._notifier.alive()
            await self._clock.sleep_until(self._clock.monotonic() + period_s)
