"""Obeying the coordinator: the agent's commands, leases and states, on its actuators and its bus.

``Obedience`` lets commands in (``agent.gate``), hands each to the desk of its actuator (``agent.desk``) and watches the
coordinator (``agent.watch``). Everything called from the receive loop returns at once.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Protocol

import msgspec

from agent.answers import Answers
from agent.desk import Desk
from agent.gate import Arrival, Gate, Mode
from agent.grip import Grip
from agent.lease import UNLIMITED, Bounds, Refusal
from agent.leasestore import Change, LeaseStore, Memory
from agent.office import Office, Order, Tally
from agent.report import ActuatorReport
from agent.watch import Failsafe, LeaseState, Watch
from hil.clock import Clock
from hil.devices import Actuator, DeviceError, Quality
from hil.wire import (
    MAX_BYTES,
    Ack,
    AckState,
    ActuatorInfo,
    Command,
    CoordinatorState,
    Heartbeat,
    LimitState,
    Message,
    Target,
    WireError,
    decode,
)

TICK_S: Final = 1.0
LOG_AGAIN_S: Final = 60.0

_log = logging.getLogger(__name__)


class Outbox(Protocol):
    """Where the agent's word goes; both publish and return False, keeping nothing, while there is no connection."""

    def ack(self, ack: Ack) -> bool:
        """Publish an answer to a command."""

    def limit(self, state: LimitState) -> bool:
        """Publish, retained, what limits an actuator."""

    def actuators(self, infos: list[ActuatorInfo]) -> None:
        """Take note that what can be commanded has changed; the birth says so."""


@dataclass(slots=True)
class Counters:
    """What has become of the commands so far; ``refused`` by code, ``unreadable`` could not even be answered."""

    tally: Tally = field(default_factory=Tally)
    repeated: int = 0
    unreadable: int = 0
    stale_heartbeats: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Restored:
    """What ``restore_all`` did: actuators restored, and those that could not be, with the reason."""

    done: list[str]
    failed: list[tuple[str, str]]


class _Envelope(Message, frozen=True, kw_only=True):
    """What an answer to an unreadable command needs: as much of its identity as can be read."""

    id: Annotated[str, msgspec.Meta(min_length=8, max_length=64)]
    issuer: str = ""
    epoch: int = 0
    seq: int = 0
    target: Target | None = None


class Obedience:
    """Commands in; limits, answers and the way back out. The constructor only stores; ``start`` acts."""

    def __init__(
        self,
        *,
        node: str,
        mode: Mode,
        actuators: Sequence[Actuator],
        bounds: Mapping[str, Bounds],
        failsafe: Failsafe,
        store: LeaseStore,
        clock: Clock,
        outbox: Outbox,
        boot_id: str,
        synchronised: Callable[[], bool | None] = lambda: None,
        locked: Callable[[], bool] = lambda: False,
    ) -> None:
        self.counters = Counters()
        self._node = node
        self._boot_id = boot_id
        self._clock = clock
        self._outbox = outbox
        self._store = store
        self._synchronised = synchronised
        self._locked = locked
        self._watch = Watch(clock.boottime())
        self._answers = Answers(store, clock, boot_id, outbox.ack)
        self._gate = Gate(node, {})
        office = Office(
            mode=mode,
            failsafe=failsafe,
            watch=self._watch,
            store=store,
            answers=self._answers,
            clock=clock,
            tally=self.counters.tally,
            locked=self._look_at_lock,
            refuse=self._refuse,
            publish=outbox.limit,
        )
        self._desks = {
            actuator.name: Desk(Grip(actuator), bounds.get(actuator.name, Bounds()), office) for actuator in actuators
        }
        self._said = LeaseState.INIT
        self._coordinator: CoordinatorState | None = None
        self._logged_at: dict[str, float] = {}
        self._stopped = False

    @property
    def state(self) -> LeaseState:
        """Who decides on this agent's limits now."""
        return self._watch.state(self._clock.boottime())

    @property
    def highest_epoch(self) -> int:
        """The highest epoch obeyed, over restarts; 0 before the first command."""
        return self._gate.highest_epoch

    @property
    def infos(self) -> list[ActuatorInfo]:
        """What can be commanded now."""
        return [desk.info for desk in self._desks.values() if desk.info is not None]

    @property
    def reports(self) -> tuple[ActuatorReport, ...]:
        """How each actuator stands now."""
        return tuple(desk.report() for desk in self._desks.values())

    async def start(self) -> list[ActuatorInfo]:
        """Undo what an earlier life left and return what can be commanded. Raises StoreFailed."""
        memory = await self._store.open()
        self._gate = Gate(self._node, memory.fences)
        self._answers.load(memory.answers)
        _log_strangers(memory, self._desks)
        await asyncio.gather(*(desk.open(memory.undo.get(name)) for name, desk in self._desks.items()))
        await self._answers.conclude(self._last_words(AckState.EXPIRED, "restart"))
        return self.infos

    async def run(self) -> None:
        """Keep leases, answers and states in time, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for name, desk in self._desks.items():
                tasks.create_task(desk.work(), name=f"orders for {name}")
                tasks.create_task(desk.keep(self._found), name=f"leases of {name}")
            tasks.create_task(self._tick(), name="lease state")

    async def stop(self) -> None:
        """End every lease, restore every device, say so, and close devices and store."""
        self._stopped = True
        for desk in self._desks.values():
            await desk.finish()
        await self._answers.conclude(self._last_words(AckState.RELEASED, "stopping"))
        await self._answers.flush()
        await self._store.close()

    def command(self, payload: bytes, retained: bool) -> None:
        """Let a command in, or refuse it; what becomes of it follows as answers."""
        if self._stopped:
            return
        arrival = Arrival(retained, self._clock.wall_us(), self._clock.boottime(), self._synchronised())
        try:
            command = decode(payload, Command)
        except WireError as error:
            self._unreadable(payload, error, arrival)
            return
        if self._known(command.id):
            return
        order = Order(command, arrival.boottime, arrival.wall_us)
        refusal = self._gate.admit(command, arrival, self._watch) or self._hand_over(order)
        if refusal is not None:
            self._refuse(order, refusal)

    def heartbeat(self, heartbeat: Heartbeat) -> None:
        """Note a sign of life of the coordinator; an older coordinator's is none."""
        if heartbeat.epoch < self.highest_epoch:
            self.counters.stale_heartbeats += 1
            return
        self._watch.heartbeat(heartbeat.epoch, self._clock.boottime())
        self._log_state()

    def coordinator_state(self, state: CoordinatorState) -> None:
        """Note what the coordinator, or its last will, says of it; only its heartbeat decides anything."""
        if state != self._coordinator:
            word = "online" if state.online else "offline"
            _log.info("coordinator %s, epoch %d: %s", state.instance, state.epoch, word)
        self._coordinator = state

    def connection(self, up: bool) -> None:
        """Say again, after a lost connection, what may not have been heard."""
        self._answers.connection(up)
        if up:
            for desk in self._desks.values():
                desk.publish(again=True)

    def observe(self, power_w: float | None, quality: Quality) -> None:
        """Judge the limits in force by a sample of the node's own meter, W ≥ 0."""
        for desk in self._desks.values():
            desk.observe(power_w, quality)

    def _known(self, command_id: str) -> bool:
        answer = self._answers.get(command_id)
        if answer is None and not self._answers.expects(command_id):
            return False
        self.counters.repeated += 1
        if answer is not None:
            self._answers.repeat(answer)
        return True

    def _hand_over(self, order: Order) -> Refusal | None:
        desk = self._desks.get(order.command.target.actuator)
        if desk is None:
            return Refusal("unknown_target", f"known actuators: {', '.join(self._desks) or 'none'}")
        self._answers.expect(order.command.id)
        return desk.take(order)

    def _refuse(self, order: Order, refusal: Refusal) -> None:
        self._count(refusal)
        details = {"state": AckState.REJECTED, "code": refusal.code, "detail": refusal.detail[:500]}
        self._answers.refuse(self._answers.compose(order.command, order.received_us, **details))

    def _unreadable(self, payload: bytes, error: WireError, arrival: Arrival) -> None:
        self._count(Refusal(error.code, error.what))
        envelope = _envelope(payload)
        if envelope is None:
            self.counters.unreadable += 1
            return
        if self._known(envelope.id):
            return
        self._answers.refuse(
            Ack(
                id=envelope.id,
                issuer=envelope.issuer,
                epoch=envelope.epoch,
                seq=envelope.seq,
                actuator=envelope.target.actuator if envelope.target is not None else "",
                state=AckState.REJECTED,
                code=error.code,
                detail=error.what[:500],
                t_received_us=arrival.wall_us,
                t_us=arrival.wall_us,
                boot_id=self._boot_id,
            )
        )

    def _count(self, refusal: Refusal) -> None:
        self.counters.refused[refusal.code] += 1
        now = self._clock.monotonic()
        if now - self._logged_at.get(refusal.code, -math.inf) >= LOG_AGAIN_S:
            count = self.counters.refused[refusal.code]
            _log.warning("a command is refused (%d so far): %s: %s", count, refusal.code, refusal.detail)
            self._logged_at[refusal.code] = now

    def _last_words(self, state: AckState, code: str) -> list[Ack]:
        now_us = self._clock.wall_us()
        return [msgspec.structs.replace(ack, state=state, code=code, t_us=now_us) for ack in self._answers.unfinished]

    def _look_at_lock(self) -> bool:
        self._watch.lock(self._locked())
        return self._watch.locked

    def _found(self) -> None:
        self._outbox.actuators(self.infos)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + TICK_S)
            self._look_at_lock()
            self._log_state()
            await self._answers.tick()

    def _log_state(self) -> None:
        state = self.state
        if state is not self._said:
            _log.info("lease state: %s → %s", self._said, state)
            self._said = state


async def restore_all(store: LeaseStore, actuators: Sequence[Actuator]) -> Restored:
    """Undo everything that a dead agent left, and say what was done. Raises StoreFailed.

    Only while no agent runs on the same state directory.
    """
    memory = await store.open()
    by_name = {actuator.name: actuator for actuator in actuators}
    restored = Restored([], [])
    for name, snapshot in memory.undo.items():
        if name not in by_name:
            restored.failed.append((name, "not in the configuration"))
            continue
        try:
            await _restore(by_name[name], snapshot)
        except DeviceError as error:
            restored.failed.append((name, error.what))
            continue
        await store.write(Change(forget=name))
        restored.done.append(name)
    await store.close()
    return restored


async def _restore(actuator: Actuator, snapshot: str) -> None:
    grip = Grip(actuator)
    grip.undo = snapshot
    try:
        await grip.open()
        await grip.hold(UNLIMITED)
    finally:
        await grip.close()


def _envelope(payload: bytes) -> _Envelope | None:
    if len(payload) > MAX_BYTES:
        return None
    try:
        return msgspec.json.decode(payload, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _log_strangers(memory: Memory, desks: Mapping[str, Desk]) -> None:
    for name in memory.undo.keys() - desks.keys():
        _log.warning("%s was limited by an earlier life and is no longer in the configuration: not restored", name)
