"""Whatever happens in whatever order: bounds, leases, the way back and the one last answer hold.

``WATTLOOP_EXAMPLES`` sets the number of runs, each of up to 40 steps.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.gate import Mode
from agent.lease import Bounds
from agent.leasestore import LeaseStore
from agent.obedience import Obedience
from agent.watch import Failsafe
from hil.clock import ManualClock, settle, utc
from hil.devices import Capabilities, Setting
from hil.emulated.limiter import Limiter
from hil.wire import TERMINAL, Ack, AckState, Action, ActuatorInfo, Command, Heartbeat, LimitState, Target, encode

T = TypeVar("T")

EXAMPLES = int(os.environ.get("WATTLOOP_EXAMPLES", "30"))
LOW_W, HIGH_W = 5.0, 20.0
CHUNK_S = 0.5
MEMORY = Path("/dev/shm")  # noqa: S108  # a crash of the process is played here, not one of the machine

seconds = st.sampled_from([0.5, 1.0, 4.0, 16.0])
limits = st.one_of(st.floats(-1.0, 30.0), st.sampled_from([0.0, 5.0, 7.5, 20.0, 1e9]))


class Inline:
    """Works at once, in the caller's thread: every run of the same steps is the same."""

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        future.set_result(work())
        return future

    def stop(self) -> None:
        pass


class Line:
    """The agent's line to the broker; ``said`` is every answer it tried to give, ``heard`` those that got through."""

    def __init__(self) -> None:
        self.up = True
        self.said: dict[str, Ack] = {}
        self.heard: dict[str, list[Ack]] = {}

    def ack(self, ack: Ack) -> bool:
        self.said[ack.id] = ack
        if self.up:
            self.heard.setdefault(ack.id, []).append(ack)
        return self.up

    def limit(self, state: LimitState) -> bool:
        assert state.effective_w is None or LOW_W <= state.effective_w <= HIGH_W
        return self.up

    def actuators(self, infos: list[ActuatorInfo]) -> None:
        pass


class Agent(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.clock = ManualClock()
        self.board = Limiter("board", Capabilities(min_w=LOW_W, max_w=HIGH_W))
        self.owners = Setting(25.0)
        self.board.setting = self.owners
        self.line = Line()
        self.locked = False
        self.sent: list[Command] = []
        self.until = 0.0
        self.settled_at = 0.0
        self.epoch = 1

    # --- steps --------------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.loop.run_until_complete(self.start())

    @rule(limit_w=limits, ttl_s=st.sampled_from([5.0, 10.0, 30.0]), issuer=st.sampled_from(["lab", "roof"]))
    def limit(self, limit_w: float, ttl_s: float, issuer: str) -> None:
        self.send(self.command(limit_w=limit_w, ttl_s=ttl_s, issuer=issuer))

    @rule(issuer=st.sampled_from(["lab", "roof"]))
    def release(self, issuer: str) -> None:
        self.send(self.command(action=Action.RELEASE, issuer=issuer))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.sent))
        self.send(self.command(limit_w=old.limit_w, action=old.action, issuer=old.issuer, renews=old.id))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), retained=st.booleans())
    def repeat(self, data: st.DataObject, retained: bool) -> None:
        self.send(data.draw(st.sampled_from(self.sent)), retained=retained)

    @rule(limit_w=limits)
    def command_of_an_older_coordinator(self, limit_w: float) -> None:
        self.epoch += 1
        self.send(self.command(limit_w=limit_w))
        stale = self.command(limit_w=limit_w, epoch=self.epoch - 1)
        self.send(stale)
        assert self.line.said[stale.id].code == "stale_epoch"

    @rule(limit_w=limits, late_s=st.sampled_from([-3600.0, 3600.0]))
    def command_out_of_time(self, limit_w: float, late_s: float) -> None:
        issued_at = utc(self.clock.wall_us()) - timedelta(seconds=late_s)
        self.send(self.command(limit_w=limit_w, issued_at=issued_at))

    @rule(limits=st.lists(limits, min_size=2, max_size=6))
    def burst(self, limits: list[float]) -> None:
        self.send(*(self.command(limit_w=limit_w) for limit_w in limits), turns=200)

    @rule(passed_s=seconds, heartbeats=st.booleans())
    def pass_time(self, passed_s: float, heartbeats: bool) -> None:
        self.loop.run_until_complete(self.let_pass(passed_s, heartbeats))

    @rule(gone_s=st.sampled_from([0.0, 3.0]))
    def crash(self, gone_s: float) -> None:
        self.loop.run_until_complete(self.die(gone_s))

    @rule(limit_w=limits, turns=st.integers(0, 25))
    def crash_at_a_command(self, limit_w: float, turns: int) -> None:
        self.send(self.command(limit_w=limit_w), turns=turns)
        self.loop.run_until_complete(self.die(0.0))

    @rule(jump_s=st.sampled_from([-3600.0, 3600.0]))
    def wall_clock_jumps(self, jump_s: float) -> None:
        self.clock.jump_wall(jump_s)

    @rule(asleep_s=st.sampled_from([2.0, 100.0]))
    def sleep(self, asleep_s: float) -> None:
        self.clock.suspend(asleep_s)
        self.disturbed()

    @rule(up=st.booleans())
    def broker(self, up: bool) -> None:
        self.line.up = up
        self.obedience.connection(up)

    @rule(setting=st.sampled_from([Setting(), Setting(19.0)]))
    def somebody_else_sets_the_device(self, setting: Setting) -> None:
        if not self.live_limits:
            self.owners = setting
        self.board.setting = setting
        self.disturbed()

    @rule(locked=st.booleans())
    def lock(self, locked: bool) -> None:
        self.locked = locked
        self.disturbed()

    # --- promises -----------------------------------------------------------------------------------------------------

    @invariant()
    def never_a_limit_outside_the_bounds(self) -> None:
        owners = {self.owners, Setting(25.0), Setting(), Setting(19.0)}
        assert all(write in owners or LOW_W <= (write.limit_w or 0) <= HIGH_W for write in self.board.writes)
        self.board.writes.clear()

    @invariant()
    def never_a_limit_past_its_lease(self) -> None:
        if self.calm and self.clock.boottime() > self.until + 1.0:
            assert self.board.setting == self.owners

    @invariant()
    def the_device_is_set_to_what_was_said(self) -> None:
        if not self.calm:
            return
        wanted = Setting(min(self.live_limits)) if self.live_limits else self.owners
        assert self.board.setting == wanted

    @invariant()
    def at_most_one_last_answer(self) -> None:
        for acks in self.line.heard.values():
            ends = {(ack.state, ack.code) for ack in acks if ack.state in TERMINAL}
            assert len(ends) <= 1, ends

    def teardown(self) -> None:
        try:
            self.loop.run_until_complete(self.end())
        finally:
            self.loop.close()
            self.directory.cleanup()

    async def end(self) -> None:
        self.line.up = True
        self.obedience.connection(up=True)
        await settle(100)
        await self.obedience.stop()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert self.board.setting == self.owners
        for name, acks in self.line.heard.items():
            assert acks[-1].state in TERMINAL, (name, acks)
        self.at_most_one_last_answer()

    # --- machinery ----------------------------------------------------------------------------------------------------

    @property
    def live_limits(self) -> list[float]:
        """By the agent's own word."""
        applied = [ack.applied_w for ack in self.line.said.values() if ack.state is AckState.APPLIED]
        return [limit_w for limit_w in applied if limit_w is not None]

    @property
    def calm(self) -> bool:
        return self.clock.monotonic() >= self.settled_at

    def disturbed(self) -> None:
        self.settled_at = self.clock.monotonic() + 1.0 + CHUNK_S

    def command(self, **changes: Any) -> Command:
        number = len(self.sent) + 1
        fields: dict[str, Any] = {
            "id": f"command-{number}",
            "issuer": "lab",
            "epoch": self.epoch,
            "seq": number,
            "target": Target(node="jetson-1", actuator="board"),
            "action": Action.LIMIT,
            "issued_at": utc(self.clock.wall_us()),
            "ttl_s": 10.0,
        }
        command = Command(**{**fields, **changes})
        self.sent.append(command)
        if command.action is Action.LIMIT:
            self.until = max(self.until, self.clock.boottime() + command.ttl_s)
        return command

    def send(self, *commands: Command, retained: bool = False, turns: int = 60) -> None:
        self.loop.run_until_complete(self.put(commands, retained, turns))

    async def put(self, commands: tuple[Command, ...], retained: bool, turns: int) -> None:
        for command in commands:
            self.obedience.command(encode(command), retained)
        await settle(turns)

    async def start(self) -> None:
        self.obedience = Obedience(
            node="jetson-1",
            mode=Mode.ACT,
            actuators=[self.board],
            bounds={"board": Bounds()},
            failsafe=Failsafe(),
            store=LeaseStore(Path(self.directory.name) / "lease.db", Inline),
            clock=self.clock,
            outbox=self.line,
            boot_id="boot",
            synchronised=lambda: True,
            locked=lambda: self.locked,
        )
        await self.obedience.start()
        assert self.board.setting == self.owners, "restored at the start of each life"
        self.task = self.loop.create_task(self.obedience.run())
        self.obedience.connection(self.line.up)
        await settle(60)

    async def let_pass(self, passed_s: float, heartbeats: bool) -> None:
        for _ in range(round(passed_s / CHUNK_S)):
            if heartbeats:
                self.obedience.heartbeat(Heartbeat(epoch=self.epoch, count=1))
            await self.clock.advance(CHUNK_S)
            await settle(40)

    async def die(self, gone_s: float) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.obedience._store.close()  # the file as it is; nothing is said or restored
        self.line.said.clear()
        await self.clock.advance(gone_s)
        await self.start()


Agent.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestAgent = Agent.TestCase
