"""A real program under the lease machinery: what a lease did to it ends with the lease, whoever has died."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from agent.actuators.workload import WorkloadActuator, WorkloadConfig
from agent.gate import Mode
from agent.leasestore import LeaseStore
from agent.obedience import Obedience
from agent.watch import Failsafe
from hil.clock import ManualClock, utc
from hil.wire import Ack, AckState, Action, ActuatorInfo, Command, Heartbeat, LimitState, Target, Verb, encode


class Paper:
    def __init__(self) -> None:
        self.acks: list[Ack] = []
        self.limits: list[LimitState] = []

    def ack(self, ack: Ack) -> bool:
        self.acks.append(ack)
        return True

    def limit(self, state: LimitState) -> bool:
        self.limits.append(state)
        return True

    def actuators(self, infos: list[ActuatorInfo]) -> None:
        pass


class Rig:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.paper = Paper()
        argv = (sys.executable, "-I", "-c", "import time; time.sleep(1000)")
        self.job = WorkloadActuator(WorkloadConfig(name="job", argv=argv), self.clock)
        self.obedience = Obedience(
            node="here",
            mode=Mode.ACT,
            actuators=[self.job],
            bounds={},
            failsafe=Failsafe(),
            store=LeaseStore(folder / "lease.db"),
            clock=self.clock,
            outbox=self.paper,
            boot_id="boot-1",
            synchronised=lambda: True,
        )
        self.seq = 0

    def say(self, verb: Verb, ttl_s: float = 60.0) -> str:
        self.seq += 1
        command = Command(
            id=f"command-{self.seq}",
            issuer="lab",
            epoch=1,
            seq=self.seq,
            target=Target(node="here", actuator="job"),
            action=Action.WORKLOAD,
            workload=verb,
            issued_at=utc(self.clock.wall_us()) - timedelta(milliseconds=1),
            ttl_s=ttl_s,
        )
        self.obedience.heartbeat(Heartbeat(epoch=1, count=self.seq))
        self.obedience.command(encode(command), False)
        return command.id

    def heard(self, command_id: str, state: AckState) -> bool:
        return any(ack.id == command_id and ack.state is state for ack in self.paper.acks)

    async def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not holds():  # real processes take real time
            assert time.monotonic() < deadline, self.paper.acks
            await asyncio.sleep(0.01)
            await self.clock.advance(0.01)

    async def does(self) -> str:
        return (await self.job.readback()).note.split(" as ")[0]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    await rig.obedience.start()
    task = asyncio.create_task(rig.obedience.run())
    yield rig
    task.cancel()
    await asyncio.wait([task])
    await rig.obedience.stop()
    assert rig.obedience.reports[0].state == "unavailable"


async def test_start_pause_resume_and_the_end_of_the_lease(rig: Rig) -> None:
    started = rig.say(Verb.START)
    await rig.until(lambda: rig.heard(started, AckState.APPLIED))
    assert await rig.does() == "running"
    paused = rig.say(Verb.PAUSE)
    await rig.until(lambda: rig.heard(paused, AckState.APPLIED))
    assert await rig.does() == "paused"
    assert rig.heard(started, AckState.SUPERSEDED)
    [report] = rig.obedience.reports
    assert (report.workload, report.note, report.leases[0].workload) == ("paused", "paused", Verb.PAUSE)
    await rig.clock.advance(1.5)
    resumed = rig.say(Verb.RESUME)
    await rig.until(lambda: rig.heard(resumed, AckState.APPLIED))
    assert await rig.does() == "running"
    await rig.clock.advance(61)
    await rig.until(lambda: rig.heard(resumed, AckState.EXPIRED))
    assert await rig.does() == "ended by SIGTERM"


async def test_a_stopping_agent_ends_its_programs(rig: Rig) -> None:
    started = rig.say(Verb.START)
    await rig.until(lambda: rig.heard(started, AckState.APPLIED))
    await rig.obedience.stop()
    assert await rig.does() == "ended by SIGTERM"
    assert rig.heard(started, AckState.RELEASED)
