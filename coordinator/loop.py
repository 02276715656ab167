"""The live loop: at each deadline read, step, decide, record, and command once the record is on disk.

Deadlines are absolute. Steps that were missed are run late with held inputs and without decisions, up to
``CATCH_UP_STEPS``; beyond that one gap row covers them all: every late step is counted, none is hidden in a long one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from coordinator.fleet import Fleet, Notice
from coordinator.inputs import NodeInput
from coordinator.ledger import Ledger
from coordinator.ledgerschema import LedgerError
from coordinator.orders import Demand
from coordinator.publication import microgrid_state
from coordinator.records import CommandRow, EventRow, InputRow, InputSource, SignalRow, StepCommit, StepKind, StepTime
from coordinator.scenario import Scenario
from coordinator.stepper import ActorKey, Ask, Happening, Outcome, Stepper, StepperSnapshot
from coordinator.timeline import Due, Pacer, Timeline
from hil.bus import Bus
from hil.clock import Clock
from hil.devices import Quality
from hil.units import MICROSECONDS_PER_SECOND
from hil.wire import Topics, encode

log = logging.getLogger(__name__)

CATCH_UP_STEPS: Final = 10
TEND_S: Final = 0.5

EventListener = Callable[[EventRow], None]


class HeldInput(msgspec.Struct, frozen=True):
    """The newest input of one actor, for a step that must do without."""

    microgrid: str
    actor: str
    power_w: float


class RunSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run needs to go on after a crash: ``k`` is the next step."""

    k: int
    timeline: Timeline
    stepper: StepperSnapshot
    demands: list[Demand]
    held: list[HeldInput]


class LiveLoop:
    """Steps a scenario in real time."""

    def __init__(
        self,
        scenario: Scenario,
        stepper: Stepper,
        timeline: Timeline,
        inputs: Mapping[ActorKey, NodeInput],
        fleet: Fleet,
        ledger: Ledger,
        bus: Bus,
        clock: Clock,
    ) -> None:
        self._scenario = scenario
        self._stepper = stepper
        self._timeline = timeline
        self._inputs = inputs
        self._fleet = fleet
        self._ledger = ledger
        self._bus = bus
        self._clock = clock
        self._topics = Topics(scenario.config.site)
        self._pacer: Pacer | None = None
        self._k = 0
        self._until = clock.monotonic()  # time up to which energy is accounted for
        self._held: dict[ActorKey, InputRow] = {}
        self._pending: list[EventRow] = []
        self._unrecorded = 0
        self._listeners: list[EventListener] = []
        self._on_step: list[Callable[[int, float], None]] = []

    @property
    def overdue_s(self) -> float:
        """For how long the next step has been due; 0 before its deadline, and before the loop runs."""
        return 0.0 if self._pacer is None else max(0.0, self._clock.monotonic() - self._pacer.deadline(self._k))

    def on_event(self, listener: EventListener) -> None:
        """Call ``listener`` with each event as it happens."""
        self._listeners.append(listener)

    def on_step(self, listener: Callable[[int, float], None]) -> None:
        """Call ``listener`` with number and lateness in s after each step taken."""
        self._on_step.append(listener)

    def resume(self, snapshot: RunSnapshot) -> None:
        """Go on where ``snapshot`` was taken; what was missed since shows up as missed steps."""
        self._k = snapshot.k
        self._stepper.restore(snapshot.stepper)
        self._fleet.restore(snapshot.demands)
        self._held = {
            (held.microgrid, held.actor): InputRow(held.actor, held.power_w, Quality.STALE, InputSource.HELD)
            for held in snapshot.held
        }

    async def run(self) -> None:
        """Take step after step until the run is over."""
        pacer = self._pacer = Pacer(self._timeline, self._clock.wall_us(), self._clock.monotonic())
        self._until = pacer.began(self._k)
        tending = asyncio.create_task(self._tend(), name="fleet")
        try:
            while self._timeline.steps is None or self._k < self._timeline.steps:
                await self._clock.sleep_until(pacer.deadline(self._k))
                now = self._clock.monotonic()
                due = pacer.due(self._k, now)
                if due.missed:
                    self._make_up(due)
                self._take(now, due.lateness_s)
                if tending.done():
                    tending.result()
        finally:
            tending.cancel()

    async def release(self, within_s: float) -> None:
        """Take back every demand and wait, for a while, until the agents have said their last word."""
        self._fleet.release_all()
        self._issue(self._fleet.decide(None, self._now_us()))
        deadline = self._clock.monotonic() + within_s
        while self._fleet.unanswered and self._clock.monotonic() < deadline:
            self._fleet.repeat()
            await self._clock.sleep_until(self._clock.monotonic() + 0.02)

    def notice(self, notice: Notice) -> None:
        """Make an event of something that happened between two steps."""
        self.event(notice.microgrid, notice.kind, notice.detail)

    def event(self, microgrid: str | None, kind: str, detail: str) -> None:
        """Record something that happened between two steps; it goes to disk with the next one."""
        row = EventRow(self._now_us(), self._clock.wall_us(), None, microgrid, kind, detail)
        self._pending.append(row)
        for listener in self._listeners:
            listener(row)

    def flush_events(self) -> None:
        """Hand events that no step will take along to the ledger."""
        rows, self._pending = self._pending, []
        for row in rows:
            self._ledger.record_event(row)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _make_up(self, due: Due) -> None:
        """Account for the steps that went by: one by one, or as one gap."""
        interval_s, real_s = self._timeline.interval_s, self._timeline.real_interval_s
        if due.missed <= CATCH_UP_STEPS:
            for k in range(due.first, due.first + due.missed):
                self._advance(k, StepKind.CATCH_UP, interval_s, self._hold(), due.lateness_s, decide=False)
        else:
            self.event(None, "gap", f"{due.missed} steps missed from step {due.first} on")
            dt_s = interval_s * due.missed
            self._advance(due.first, StepKind.GAP, dt_s, self._hold(), due.lateness_s, decide=False)
        self._k = due.first + due.missed
        self._until += due.missed * real_s

    def _take(self, now: float, lateness_s: float) -> None:
        """The step that is due, over the interval really passed since the last one."""
        dt_s = (now - self._until) * self._timeline.speed
        inputs = {key: source.take() for key, source in self._inputs.items()}
        self._until = now
        self._held.update(inputs)
        self._advance(self._k, StepKind.NORMAL, dt_s, inputs, lateness_s, decide=True)
        self._k += 1

    def _hold(self) -> dict[ActorKey, InputRow]:
        return {
            key: replace(row, quality=_held(row.quality), source=InputSource.HELD, age_s=None, samples=None)
            if (row := self._held.get(key)) is not None
            else source.take()
            for key, source in self._inputs.items()
        }

    def _advance(
        self,
        k: int,
        kind: StepKind,
        dt_s: float,
        inputs: Mapping[ActorKey, InputRow],
        lateness_s: float,
        *,
        decide: bool,
    ) -> None:
        began = self._clock.monotonic()
        signals = tuple(SignalRow(name, signal.newest) for name, signal in self._scenario.externals.items())
        outcome = self._stepper.step(k, kind, dt_s, inputs, signals, decide=decide)
        changed = self._ask(outcome.asks)
        t_us = self._timeline.simulated_us(k + 1)
        commands = self._fleet.decide(k, t_us) if decide else []
        events = self._events(k, t_us, [*outcome.happenings, *changed])
        time = StepTime(k, self._clock.wall_us(), lateness_s, self._clock.monotonic() - began)
        after = k + 1 if kind is not StepKind.GAP else k + round(dt_s / self._timeline.interval_s)
        commit = StepCommit(k, tuple(outcome.rows), time, tuple(commands), events, self._snapshot(after), signals)
        self._record(commit, commands)
        self._show(outcome)
        for listener in self._on_step:
            listener(k, lateness_s)

    def _ask(self, asks: Iterable[Ask]) -> list[Happening]:
        """Pass the controllers' wishes to the fleet; what is new is worth an event."""
        return [ask.happening() for ask in asks if self._fleet.ask(ask.source, ask.microgrid, ask.action)]

    def _events(self, k: int, t_us: int, happenings: Iterable[Happening]) -> tuple[EventRow, ...]:
        real_us = self._clock.wall_us()
        rows = [EventRow(t_us, real_us, k, h.microgrid, h.kind, h.detail) for h in happenings]
        for row in rows:
            for listener in self._listeners:
                listener(row)
        waiting, self._pending = self._pending, []
        return (*waiting, *rows)

    def _record(self, commit: StepCommit, commands: list[CommandRow]) -> None:
        try:
            committed = self._ledger.commit_step(commit)
        except LedgerError as error:
            self._unrecorded += 1
            if self._unrecorded == 1:
                log.error("steps are not recorded: %s", error)  # the ledger has told the traceback
            return
        if self._unrecorded:
            log.warning("steps are recorded again after %d that were not", self._unrecorded)
            self._unrecorded = 0
        self._publish_after(committed, commands)

    def _snapshot(self, k: int) -> bytes:
        snapshot = RunSnapshot(
            k=k,
            timeline=self._timeline,
            stepper=self._stepper.snapshot(),
            demands=self._fleet.demands(),
            held=[HeldInput(*key, row.power_w) for key, row in self._held.items()],
        )
        return msgspec.json.encode(snapshot)

    def _show(self, outcome: Outcome) -> None:
        for row in outcome.rows:
            state = microgrid_state(row, self._timeline, self._scenario)
            topic = self._topics.microgrid(row.microgrid)
            self._bus.publish(topic, encode(state), qos=0, retain=True)

    # --- commands -----------------------------------------------------------------------------------------------------

    async def _tend(self) -> None:
        """Renew leases and repeat what was not answered, between the steps."""
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + TEND_S)
            self._issue(self._fleet.decide(None, self._now_us()))
            self._fleet.repeat()

    def _issue(self, rows: list[CommandRow]) -> None:
        for row in rows:
            try:
                committed = self._ledger.record_command(row)
            except LedgerError as error:
                log.error("a command is not sent, for it cannot be recorded: %s", error)
                return
            self._publish_after(committed, [row])

    def _publish_after(self, committed: "asyncio.Future[None]", rows: list[CommandRow]) -> None:
        """Commands are on disk before they are on the wire."""
        if rows:
            committed.add_done_callback(
                lambda done: self._fleet.publish(rows) if not done.cancelled() and done.exception() is None else None
            )

    def _now_us(self) -> int:
        """The simulated instant of now, on the run's grid."""
        elapsed_s = self._k * self._timeline.interval_s
        behind_s = min(self._timeline.interval_s, (self._clock.monotonic() - self._until) * self._timeline.speed)
        return self._timeline.start_us + round((elapsed_s + max(0.0, behind_s)) * MICROSECONDS_PER_SECOND)


def _held(quality: Quality) -> Quality:
    return quality if quality in {Quality.ESTIMATED, Quality.MISSING} else Quality.STALE
