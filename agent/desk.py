"""One actuator's desk: takes its commands in order, keeps its leases, and makes the device follow them.

The path of a command: one durable commit of its id, its place in the order and the way back → device → read-back →
``applied``. Everything that may wait follows after that answer.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from typing import Final

from agent.gate import Fence, Mode
from agent.grip import Grip
from agent.lease import UNLIMITED, Bounds, Lease, Refusal, Stack, show
from agent.leasestore import Answered, Change, StoreFailed
from agent.notice import notice
from agent.office import Office, Order
from agent.report import ActuatorReport, report_actuator, report_lease
from agent.watch import LeaseState
from hil.devices import DeviceError, DeviceFailed, Quality, Setting
from hil.verification import Verification
from hil.wire import Ack, AckState, Action, ActuatorInfo, Effect, LimitState

RECHECK_S: Final = 1.0
REOPEN_S: Final = 5.0
WAITING: Final = 64

_log = logging.getLogger(__name__)


class Desk:
    """The leases of one actuator, in force on its device."""

    def __init__(self, grip: Grip, bounds: Bounds, office: Office) -> None:
        self._grip = grip
        self._bounds = bounds
        self._office = office
        self._clock = office.clock
        self._stack: Stack | None = None
        self._orders: asyncio.Queue[Order] = asyncio.Queue(WAITING)
        self._turn = asyncio.Lock()
        self._verification: Verification | None = None
        self._undo_stored = False
        self._reopen_at = 0.0
        self._published: LimitState | None = None

    @property
    def info(self) -> ActuatorInfo | None:
        """What can be commanded here; None while the device is not there."""
        if self._stack is None or self._grip.capabilities is None:
            return None
        return ActuatorInfo(
            name=self._grip.name,
            kind=self._grip.kind,
            actions=self._stack.actions,
            min_w=self._stack.bounds.min_w,
            max_w=self._stack.bounds.max_w,
            step_w=self._grip.capabilities.step_w,
            profiles=list(self._grip.capabilities.profiles),
            note=self._grip.capabilities.note[:500],
        )

    def take(self, order: Order) -> Refusal | None:
        """Queue an order; refused when too many wait already."""
        try:
            self._orders.put_nowait(order)
        except asyncio.QueueFull:
            return Refusal("busy", f"{WAITING} commands wait already")
        return None

    async def open(self, undo: str | None) -> None:
        """Find the device and undo what an earlier life left; a device that is not there is tried again later."""
        if undo is not None:
            self._grip.undo, self._grip.held, self._undo_stored = undo, None, True
        async with self._turn:
            await self._try_open()

    async def work(self) -> None:
        """Obey orders, one after the other, for ever."""
        while True:
            order = await self._orders.get()
            async with self._turn:
                await self._obey(order)

    async def keep(self, found: Callable[[], None]) -> None:
        """End leases on time and hold the device to its setting, for ever; ``found()`` when a lost device is there."""
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + self._until_next_look())
            async with self._turn:
                if self._stack is not None:
                    await self._look(self._stack)
                elif self._clock.boottime() >= self._reopen_at and await self._try_open():
                    found()

    def observe(self, power_w: float | None, quality: Quality) -> None:
        """Judge the limit in force by a sample of the node's own meter."""
        watching = self._verification
        if watching is None or watching.effect is not Effect.PENDING or self._stack is None:
            return
        effect = watching.observe(power_w, quality, self._clock.boottime())
        if effect is Effect.PENDING:
            return
        _log.info("%s: limit %s, measured %.3f W", self._grip.name, effect.value, watching.measured_w)
        for lease in self._stack.leases:
            if lease.limit_w is not None:
                self._office.answers.say(self._answer(lease, effect=effect, measured_w=watching.measured_w))
        self.publish()

    def publish(self, *, again: bool = False) -> None:
        """Publish what limits this actuator if it changed (``again``: anyway)."""
        if self._stack is None:
            return
        state = self._notice(self._stack)
        if again or state != self._published:
            self._published = state if self._office.publish(state) else None

    def report(self) -> ActuatorReport:
        """How the actuator stands now."""
        if self._stack is None:
            return ActuatorReport(self._grip.name, self._grip.kind)
        now = self._clock.boottime()
        leases = [report_lease(held, self._office.answers.get(held.command.id), now) for held in self._stack.leases]
        return report_actuator(self._grip.kind, self._notice(self._stack), leases)

    async def finish(self) -> None:
        """End every lease, restore the device and close it."""
        async with self._turn:
            while not self._orders.empty():
                self._office.refuse(self._orders.get_nowait(), Refusal("stopping", "the agent is stopping"))
            if self._stack is not None:
                await self._follow(self._stack, self._stack.clear(), AckState.RELEASED, "stopping")
            self._stack, self._reopen_at = None, math.inf  # nothing moves the device from here on
            await self._grip.close()

    # --- orders -------------------------------------------------------------------------------------------------------

    async def _obey(self, order: Order) -> None:
        if self._stack is None:
            self._office.refuse(order, Refusal("device", f"{self._grip.name} is not there"))
            return
        lease = self._judge(self._stack, order)
        if isinstance(lease, Refusal):
            self._office.refuse(order, lease)
            return
        self._office.watch.command(self._clock.boottime())
        self._drop_hold(self._stack)
        if lease.command.action is Action.RELEASE:
            await self._release(self._stack, lease)
        else:
            await self._limit(self._stack, lease)

    def _judge(self, stack: Stack, order: Order) -> Lease | Refusal:
        lease = stack.weigh(order.command, order.received, order.received_us, self._clock.boottime())
        if isinstance(lease, Refusal):
            return lease
        if self._office.locked():
            return Refusal("local_lock", "locked on this machine")
        if self._office.mode is Mode.OBSERVE:
            return Refusal("observe", "this agent only observes")
        if self._office.mode is Mode.DRY_RUN:
            return Refusal("dry_run", f"would set {self._grip.name} to {show(stack.setting_with(lease))}")
        return lease

    async def _limit(self, stack: Stack, lease: Lease) -> None:
        wanted = stack.setting_with(lease)
        try:
            await self._commit(lease)
            found = await self._hold(wanted, lease)
        except (StoreFailed, DeviceError) as error:
            await self._fail(lease, error)
            await self._follow(stack)
            return
        renewal = stack.renewed_by(lease)
        ended = stack.place(lease, self._clock.boottime())
        self._office.answers.say(self._applied(lease, found))
        self._office.tally.renewals += renewal
        self._office.tally.applied += not renewal
        self._verify(wanted, renewal)
        await self._conclude(ended, AckState.SUPERSEDED, "renewed" if renewal else "")
        self.publish()

    async def _release(self, stack: Stack, lease: Lease) -> None:
        try:
            await self._commit(lease)
        except StoreFailed as error:
            _log.warning("%s: released without a record: %s", self._grip.name, error)  # letting go needs no leave
        wanted = stack.setting_with(lease)
        ended = stack.place(lease, self._clock.boottime())
        self._verify(wanted)
        try:
            found = await self._hold(wanted, lease)
        except DeviceError as error:
            await self._conclude(ended, AckState.RELEASED, "restore_pending")
            await self._fail(lease, error)
        else:
            self._office.answers.say(self._applied(lease, found))
            self._office.tally.released += 1
            await self._conclude([*ended, lease], AckState.RELEASED)
        self.publish()

    async def _commit(self, lease: Lease) -> None:
        """Make the command durable, and with the first write the way back."""
        command = lease.command
        snapshot = None
        if self._grip.undo is None and command.action is not Action.RELEASE:
            snapshot = await self._grip.snapshot()
        await self._office.store.write(
            Change(
                answers=(Answered(self._received(lease), refused=False),),
                fence=(command.issuer, Fence(command.epoch, command.seq)),
                remember=(self._grip.name, snapshot) if snapshot is not None else None,
            )
        )
        if snapshot is not None:
            self._grip.undo, self._undo_stored = snapshot, True

    async def _hold(self, wanted: Setting, lease: Lease) -> Setting:
        """Set the device; ``received`` is said while the device works, so that ``applied`` need not wait for it."""
        asyncio.get_running_loop().call_soon(self._acknowledge, lease)
        found = await self._grip.hold(wanted)
        self._acknowledge(lease)
        return found

    def _acknowledge(self, lease: Lease) -> None:
        if self._office.answers.get(lease.command.id) is None:
            self._office.answers.say(self._received(lease), saved=True)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _until_next_look(self) -> float:
        deadline = self._stack.deadline if self._stack is not None else self._reopen_at
        return max(0.001, min(RECHECK_S, deadline - self._clock.boottime()))

    async def _look(self, stack: Stack) -> None:
        if self._office.locked():
            await self._follow(stack, stack.clear(), AckState.SUPERSEDED, "local_lock")
            return
        now = self._clock.boottime()
        expired = stack.expire(now)
        self._fall_back(stack, expired, now)
        self._drop_hold(stack)
        await self._follow(stack, expired, AckState.EXPIRED)

    def _fall_back(self, stack: Stack, expired: list[Lease], now: float) -> None:
        watch, failsafe = self._office.watch, self._office.failsafe
        if expired and watch.silent(now):
            _log.warning("%s: a lease ended and the coordinator is silent: %s", self._grip.name, failsafe)
            watch.fail()
            stack.hold(failsafe.limit_w, expired)
            return
        # A limit that protects a feeder must not depend on a lease being there when the coordinator dies.
        if failsafe.limit_w is None or stack.leases or stack.hold_w is not None or self._office.mode is not Mode.ACT:
            return
        if watch.state(now) is LeaseState.HOLD:
            watch.fail()
        if watch.failsafe:
            stack.hold(failsafe.limit_w)

    def _drop_hold(self, stack: Stack) -> None:
        if not self._office.watch.failsafe:
            stack.hold_w = None

    async def _follow(
        self, stack: Stack, ended: Iterable[Lease] = (), state: AckState = AckState.EXPIRED, code: str = ""
    ) -> None:
        """Make the device follow the stack, then give the ended leases their last answer."""
        wanted = stack.setting
        try:
            if self._grip.held == wanted:
                await self._check(stack)
            else:
                await self._prepare(wanted)
                await self._grip.hold(wanted)
                self._verify(wanted)
        except (StoreFailed, DeviceError):
            code = code or ("restore_pending" if wanted == UNLIMITED else "device")
        await self._conclude(ended, state, code)
        self.publish()

    async def _check(self, stack: Stack) -> None:
        contended = self._grip.contended
        await self._grip.check(self._clock.boottime())
        if self._grip.contended and not contended:
            for lease in stack.leases:
                self._office.answers.say(self._answer(lease, code="contended"))

    async def _prepare(self, wanted: Setting) -> None:
        """Store the way back before a first write that no command asked for: the failsafe's."""
        if wanted != UNLIMITED and self._grip.undo is None:
            snapshot = await self._grip.snapshot()
            await self._office.store.write(Change(remember=(self._grip.name, snapshot)))
            self._grip.undo, self._undo_stored = snapshot, True

    async def _try_open(self) -> bool:
        self._reopen_at = self._clock.boottime() + REOPEN_S
        try:
            stack = Stack(await self._grip.open(), self._bounds)
            if stack.bounds.empty:
                raise DeviceFailed(
                    self._grip.name, f"no limit is allowed: the device and the configuration leave {stack.bounds}"
                )
        except DeviceFailed as error:
            _log.error("%s; not tried again", error)
            self._reopen_at = math.inf
            return False
        except DeviceError:
            return False
        self._stack = stack
        await self._follow(stack)
        return True

    def _verify(self, wanted: Setting, renewal: bool = False) -> None:
        pending = self._verification is not None and self._verification.effect is Effect.PENDING
        if renewal and pending:
            return  # leases renewed faster than the meter decides must not start the count anew
        limit_w = wanted.limit_w
        self._verification = Verification(limit_w, started=self._clock.boottime()) if limit_w is not None else None

    def _notice(self, stack: Stack) -> LimitState:
        effect = self._verification.effect if self._verification is not None else Effect.PENDING
        return notice(self._grip, stack, effect, self._office.watch.locked)

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answer(self, lease: Lease, **changes: object) -> Ack:
        return self._office.answers.compose(lease.command, lease.received_us, **changes)

    def _received(self, lease: Lease) -> Ack:
        return self._answer(lease, clamped=lease.clamped)

    def _applied(self, lease: Lease, found: Setting) -> Ack:
        # With several sources the device may read back less than this lease asks for.
        return self._answer(
            lease, state=AckState.APPLIED, applied_w=lease.limit_w, readback_w=found.limit_w, detail=found.note
        )

    async def _fail(self, lease: Lease, error: Exception) -> None:
        self._office.tally.failed += 1
        code = "storage" if isinstance(error, StoreFailed) else "device"
        failed = self._answer(lease, state=AckState.FAILED, code=code, detail=str(error)[:500])
        await self._office.answers.conclude([failed], forget=self._forgotten())

    async def _conclude(self, ended: Iterable[Lease], state: AckState, code: str = "") -> None:
        last = [self._answer(lease, state=state, code=code) for lease in ended]
        forget = self._forgotten()
        if last or forget:
            await self._office.answers.conclude(last, forget=forget)

    def _forgotten(self) -> str | None:
        """The actuator's name if it was restored since its way back was stored."""
        if not self._undo_stored or self._grip.undo is not None:
            return None
        self._undo_stored = False
        return self._grip.name
