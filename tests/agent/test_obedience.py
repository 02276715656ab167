import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.gate import Mode
from agent.lease import UNLIMITED, Bounds
from agent.leasestore import Change, LeaseStore
from agent.obedience import Obedience, restore_all
from agent.watch import Failsafe, LeaseState
from hil.clock import ManualClock, settle, utc
from hil.devices import Capabilities, Quality, Setting
from hil.emulated.limiter import Limiter
from hil.wire import (
    Ack,
    AckState,
    Action,
    ActuatorInfo,
    Command,
    CoordinatorState,
    Effect,
    Expiry,
    Heartbeat,
    LimitState,
    Target,
    encode,
)

CAPABILITIES = Capabilities(min_w=5.0, max_w=20.0, profiles=("eco",))
OWNERS = Setting(profile="maxn")


class Store(LeaseStore):
    """The real store, which also tells when it is at work."""

    pending = 0

    async def write(self, change: Change) -> None:
        self.pending += 1
        try:
            await super().write(change)
        finally:
            self.pending -= 1


class Paper:
    """Everything the agent said."""

    def __init__(self) -> None:
        self.up = True
        self.acks: list[Ack] = []
        self.limits: list[LimitState] = []
        self.births: list[list[ActuatorInfo]] = []

    def ack(self, ack: Ack) -> bool:
        if self.up:
            self.acks.append(ack)
        return self.up

    def limit(self, state: LimitState) -> bool:
        if self.up:
            self.limits.append(state)
        return self.up

    def actuators(self, infos: list[ActuatorInfo]) -> None:
        self.births.append(infos)


class Rig:
    """An agent's obedience with a limiter in memory, on a clock that is moved by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.board = Limiter("board", CAPABILITIES)
        self.board.setting = OWNERS
        self.paper = Paper()
        self.locked = False
        self.synchronised: bool | None = True
        self.seq = 0
        self.store = Store(directory / "lease.db")
        self._tasks: list[asyncio.Task[None]] = []

    async def start(
        self,
        mode: Mode = Mode.ACT,
        failsafe: Failsafe = Failsafe(),  # noqa: B008  # frozen
        bounds: Bounds = Bounds(),  # noqa: B008  # frozen
        also: list[Limiter] | None = None,
    ) -> list[ActuatorInfo]:
        self.store = Store(self.directory / "lease.db")
        self.obedience = Obedience(
            node="jetson-1",
            mode=mode,
            actuators=[self.board, *(also or [])],
            bounds={"board": bounds},
            failsafe=failsafe,
            store=self.store,
            clock=self.clock,
            outbox=self.paper,
            boot_id="boot-1",
            synchronised=lambda: self.synchronised,
            locked=lambda: self.locked,
        )
        infos = await self.obedience.start()
        self._tasks.append(asyncio.create_task(self.obedience.run()))
        await self.quiet()
        return infos

    async def quiet(self) -> None:
        """Return once nothing moves but the clock could make it."""
        await settle()
        while self.store.pending:
            await asyncio.sleep(0.0005)
            await settle()

    async def pass_time(self, seconds: float, heartbeats: bool = True) -> None:
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            if heartbeats:
                self.obedience.heartbeat(Heartbeat(epoch=1, count=1))
            await self.clock.advance(min(0.25, end - self.clock.monotonic()))
            await self.quiet()

    async def crash(self) -> None:
        """Die as by SIGKILL: nothing more is said or done."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self.quiet()
        await self.store.close()

    async def stop(self) -> None:
        await self.obedience.stop()
        await self.crash()

    def command(self, limit_w: float | None = 7.5, **changes: Any) -> Command:
        self.seq += 1
        fields: dict[str, Any] = {
            "id": f"command-{self.seq}",
            "issuer": "lab",
            "epoch": 1,
            "seq": self.seq,
            "target": Target(node="jetson-1", actuator="board"),
            "action": Action.LIMIT,
            "limit_w": limit_w,
            "issued_at": utc(self.clock.wall_us()),
            "ttl_s": 60.0,
        }
        return Command(**{**fields, **changes})

    async def send(self, limit_w: float | None = 7.5, **changes: Any) -> str:
        command = self.command(limit_w, **changes)
        return await self.send_raw(encode(command)) or command.id

    async def send_raw(self, payload: bytes, retained: bool = False) -> None:
        self.obedience.command(payload, retained)
        await self.quiet()

    async def release(self, **changes: Any) -> str:
        return await self.send(None, action=Action.RELEASE, **changes)

    def states(self, command_id: str) -> list[AckState]:
        return [ack.state for ack in self.paper.acks if ack.id == command_id]

    def last(self, command_id: str) -> Ack:
        return [ack for ack in self.paper.acks if ack.id == command_id][-1]

    def code(self, command_id: str) -> str:
        ack = self.last(command_id)
        assert ack.state is AckState.REJECTED
        return ack.code


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    await rig.crash()


# --- the life of a command --------------------------------------------------------------------------------------------


async def test_a_limit_is_applied_held_and_expires(rig: Rig) -> None:
    await rig.start()
    name = await rig.send(7.5, ttl_s=60.0)
    assert rig.states(name) == [AckState.RECEIVED, AckState.APPLIED]
    assert rig.board.setting == Setting(7.5)
    ack = rig.last(name)
    assert (ack.requested_w, ack.applied_w, ack.readback_w, ack.clamped) == (7.5, 7.5, 7.5, False)
    await rig.pass_time(59.75)
    assert rig.board.setting == Setting(7.5)
    await rig.pass_time(0.25)
    assert rig.board.setting == OWNERS
    assert rig.states(name) == [AckState.RECEIVED, AckState.APPLIED, AckState.EXPIRED]
    assert rig.last(name).applied_w == 7.5


async def test_the_device_is_written_only_when_something_changes(rig: Rig) -> None:
    await rig.start()
    for _ in range(5):
        await rig.send(7.5)
        await rig.pass_time(20)
    assert rig.board.writes == [Setting(7.5)]


async def test_a_renewal_supersedes_extends_without_a_gap_and_is_counted_apart(rig: Rig) -> None:
    await rig.start()
    first = await rig.send(7.5, ttl_s=10.0)
    await rig.pass_time(9)
    second = await rig.send(7.5, ttl_s=10.0, renews=first)
    assert rig.last(first).state is AckState.SUPERSEDED
    assert rig.last(first).code == "renewed"
    await rig.pass_time(9)
    assert rig.board.writes == [Setting(7.5)]
    await rig.pass_time(1)
    assert rig.board.setting == OWNERS
    assert rig.last(second).state is AckState.EXPIRED
    tally = rig.obedience.counters.tally
    assert (tally.applied, tally.renewals) == (1, 1)


async def test_a_new_limit_supersedes(rig: Rig) -> None:
    await rig.start()
    first = await rig.send(10.0)
    second = await rig.send(7.5)
    assert rig.states(first)[-1] is AckState.SUPERSEDED
    assert rig.states(second)[-1] is AckState.APPLIED
    assert rig.board.setting == Setting(7.5)


async def test_a_release_restores_the_owners_setting_and_ends_both(rig: Rig) -> None:
    await rig.start()
    limit = await rig.send()
    release = await rig.release()
    assert rig.board.setting == OWNERS
    assert rig.states(limit) == [AckState.RECEIVED, AckState.APPLIED, AckState.RELEASED]
    assert rig.states(release) == [AckState.RECEIVED, AckState.APPLIED, AckState.RELEASED]
    assert (rig.obedience.counters.tally.released, rig.obedience.counters.tally.applied) == (1, 1)


async def test_a_release_with_nothing_to_release_touches_nothing(rig: Rig) -> None:
    await rig.start()
    assert rig.states(await rig.release())[-1] is AckState.RELEASED
    assert rig.board.writes == []


async def test_the_setting_found_before_the_first_write_of_each_hold_comes_back(rig: Rig) -> None:
    await rig.start()
    await rig.send()
    await rig.release()
    rig.board.setting = Setting(18.0, "owner-changed-it")
    await rig.send()
    await rig.release()
    assert rig.board.setting == Setting(18.0, "owner-changed-it")


async def test_a_limit_outside_the_bounds_is_clamped_and_says_so(rig: Rig) -> None:
    infos = await rig.start(bounds=Bounds(6.0, 50.0))
    assert (infos[0].min_w, infos[0].max_w, infos[0].actions) == (6.0, 20.0, ["limit", "profile", "release"])
    ack = rig.last(await rig.send(1.0))
    assert (ack.requested_w, ack.applied_w, ack.clamped) == (1.0, 6.0, True)
    assert rig.board.setting == Setting(6.0)


async def test_a_profile_is_applied(rig: Rig) -> None:
    await rig.start()
    name = await rig.send(None, action=Action.PROFILE, profile="eco")
    assert rig.last(name).state is AckState.APPLIED
    assert rig.board.setting == Setting(profile="eco")


async def test_several_commands_at_once_are_obeyed_in_order(rig: Rig) -> None:
    await rig.start()
    commands = [rig.command(limit_w) for limit_w in (12.0, 11.0, 10.0, 9.0)]
    for command in commands:
        rig.obedience.command(encode(command), retained=False)
    await rig.quiet()
    assert rig.board.writes == [Setting(12.0), Setting(11.0), Setting(10.0), Setting(9.0)]
    assert [rig.last(command.id).state for command in commands] == [AckState.SUPERSEDED] * 3 + [AckState.APPLIED]


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_every_refusal_has_its_code_is_counted_and_changes_nothing(rig: Rig) -> None:
    await rig.start()
    now = utc(rig.clock.wall_us())
    refused = {
        "out_of_range": rig.command(-1.0),
        "malformed": rig.command(None),
        "version": rig.command(v=2),
        "unknown_target": rig.command(target=Target(node="jetson-1", actuator="fan")),
        "action_not_allowed": rig.command(None, action=Action.WORKLOAD),
        "expired_on_arrival": rig.command(issued_at=now - timedelta(hours=1)),
        "clock": rig.command(issued_at=now + timedelta(hours=1)),
    }
    for code, command in refused.items():
        await rig.send_raw(encode(command))
        assert rig.code(command.id) == code
        assert rig.states(command.id) == [AckState.REJECTED]
    assert rig.obedience.counters.refused == dict.fromkeys(refused, 1)
    assert rig.board.writes == []


async def test_a_retained_command_is_refused(rig: Rig) -> None:
    await rig.start()
    command = rig.command()
    await rig.send_raw(encode(command), retained=True)
    assert rig.code(command.id) == "retained"


async def test_an_older_coordinator_is_told_the_highest_epoch(rig: Rig) -> None:
    await rig.start()
    await rig.send(epoch=42)
    assert rig.obedience.highest_epoch == 42
    name = await rig.send(epoch=41)
    assert rig.code(name) == "stale_epoch"
    assert "42" in rig.last(name).detail


async def test_a_stale_sequence_is_refused(rig: Rig) -> None:
    await rig.start()
    await rig.send(seq=10)
    assert rig.code(await rig.send(seq=9)) == "stale_seq"


async def test_raising_limits_too_fast_is_refused(rig: Rig) -> None:
    await rig.start()
    await rig.send(7.5)
    assert rig.code(await rig.send(8.0)) == "rate_limited"
    await rig.pass_time(1)
    assert rig.last(await rig.send(8.0)).state is AckState.APPLIED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ttl_s": 0}, "malformed"),
        ({"ttl_s": None}, "malformed"),
        ({"ttl_s": 3601}, "malformed"),
        ({"limit_w": "7.5"}, "malformed"),
        ({"action": "shell"}, "malformed"),
        ({"issued_at": "2026-06-21T20:00:00"}, "malformed"),
        ({"reason": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": 1}}}}}}}}}, "too_deep"),
    ],
)
async def test_a_command_that_cannot_be_read_is_answered_by_its_id(
    rig: Rig, change: dict[str, object], code: str
) -> None:
    await rig.start()
    command = rig.command()
    await rig.send_raw(json.dumps(json.loads(encode(command)) | change).encode())
    assert rig.code(command.id) == code
    assert rig.obedience.counters.refused[code] == 1


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff\xfe", b"[" * 50_000, b'{"id":"command-1"' + b" " * 70_000])
async def test_a_command_without_a_readable_id_is_counted(rig: Rig, payload: bytes) -> None:
    await rig.start()
    await rig.send_raw(payload)
    assert rig.obedience.counters.unreadable == 1
    assert rig.paper.acks == []


async def test_a_flood_is_answered_and_logged_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.start()
    with caplog.at_level(logging.WARNING):
        commands = [rig.command(-1.0) for _ in range(300)]
        for command in commands:
            rig.obedience.command(encode(command), retained=False)
        await rig.quiet()
    codes = {rig.code(command.id) for command in commands}
    assert codes == {"out_of_range", "busy"}
    assert len(caplog.records) == 2
    assert rig.board.writes == []


@pytest.mark.parametrize(("mode", "code"), [(Mode.OBSERVE, "observe"), (Mode.DRY_RUN, "dry_run")])
async def test_only_in_act_mode_anything_is_done(rig: Rig, mode: Mode, code: str) -> None:
    await rig.start(mode=mode)
    name = await rig.send(1.0)
    assert rig.code(name) == code
    await rig.pass_time(20, heartbeats=False)
    assert rig.board.writes == []
    if mode is Mode.DRY_RUN:
        assert rig.last(name).detail == "would set board to 5 W"


async def test_without_a_synchronised_clock_only_a_live_coordinator_is_believed(rig: Rig) -> None:
    rig.synchronised = None
    await rig.start()
    assert rig.code(await rig.send()) == "clock"
    rig.obedience.heartbeat(Heartbeat(epoch=1, count=1))
    assert rig.last(await rig.send()).state is AckState.APPLIED


# --- idempotency ------------------------------------------------------------------------------------------------------


async def test_a_repeated_command_is_answered_and_not_obeyed_again(rig: Rig) -> None:
    await rig.start()
    command = rig.command()
    await rig.send_raw(encode(command))
    await rig.send_raw(encode(command))
    assert rig.states(command.id) == [AckState.RECEIVED, AckState.APPLIED, AckState.APPLIED]
    await rig.pass_time(61)
    await rig.send_raw(encode(command))
    assert rig.states(command.id)[-2:] == [AckState.EXPIRED, AckState.EXPIRED]
    assert rig.board.writes == [Setting(7.5), OWNERS]
    assert rig.obedience.counters.repeated == 2


async def test_a_command_repeated_while_it_waits_gets_one_end(rig: Rig) -> None:
    await rig.start()
    command = rig.command(-1.0)
    for _ in range(3):
        rig.obedience.command(encode(command), retained=False)
    await rig.quiet()
    assert set(rig.states(command.id)) == {AckState.REJECTED}
    assert rig.last(command.id).code == "out_of_range"


async def test_a_broken_copy_of_a_live_command_does_not_end_it(rig: Rig) -> None:
    await rig.start()
    name = await rig.send()
    await rig.send_raw(json.dumps({"id": name}).encode())
    assert rig.states(name) == [AckState.RECEIVED, AckState.APPLIED, AckState.APPLIED]


async def test_results_and_fences_outlive_a_crash(rig: Rig) -> None:
    await rig.start()
    command = rig.command(epoch=5)
    await rig.send_raw(encode(command))
    refused = rig.command(-1.0, epoch=5)
    await rig.send_raw(encode(refused))
    await rig.crash()
    await rig.start()
    assert rig.obedience.highest_epoch == 5
    await rig.send_raw(encode(command))
    await rig.send_raw(encode(refused))
    assert rig.last(command.id).state is AckState.EXPIRED
    assert rig.code(refused.id) == "out_of_range"
    assert rig.code(await rig.send(epoch=4)) == "stale_epoch"
    assert rig.board.setting == OWNERS


# --- the way back -----------------------------------------------------------------------------------------------------


async def test_after_a_crash_the_next_life_restores_and_says_so(rig: Rig) -> None:
    await rig.start()
    name = await rig.send()
    await rig.crash()
    assert rig.board.setting == Setting(7.5)
    await rig.start()
    assert rig.board.setting == OWNERS
    assert rig.last(name).state is AckState.EXPIRED
    assert rig.last(name).code == "restart"
    await rig.crash()
    rig.board.setting = Setting(12.0)
    await rig.start()
    assert rig.board.setting == Setting(12.0), "restored once, not again"


async def test_stop_restores_and_gives_every_command_its_end(rig: Rig) -> None:
    await rig.start()
    name = await rig.send()
    waiting = rig.command(7.0)
    rig.obedience.command(encode(waiting), retained=False)
    await rig.stop()
    assert rig.board.setting == OWNERS
    assert rig.board.closed
    assert rig.last(name).state is AckState.RELEASED
    assert rig.last(name).code == "stopping"
    assert rig.last(waiting.id).state in {AckState.RELEASED, AckState.REJECTED}
    assert rig.paper.limits[-1].state == "unlimited"


async def test_after_stop_no_command_is_obeyed(rig: Rig) -> None:
    await rig.start()
    await rig.obedience.stop()
    await rig.send()
    assert rig.board.writes == []


async def test_a_device_that_is_away_at_expiry_is_restored_as_soon_as_it_answers(rig: Rig) -> None:
    await rig.start()
    name = await rig.send(ttl_s=5.0)
    rig.board.silent = True
    await rig.pass_time(10)
    assert rig.last(name).state is AckState.EXPIRED
    assert rig.last(name).code == "restore_pending"
    assert rig.paper.limits[-1].state == "unavailable"
    rig.board.silent = False
    await rig.pass_time(1)
    assert rig.board.setting == OWNERS
    assert rig.paper.limits[-1].state == "unlimited"


async def test_a_release_that_the_device_refuses_fails_and_is_done_later(rig: Rig) -> None:
    await rig.start()
    limit = await rig.send()
    rig.board.silent = True
    release = await rig.release()
    assert rig.last(release).state is AckState.FAILED
    assert rig.last(limit).state is AckState.RELEASED
    rig.board.silent = False
    await rig.pass_time(1)
    assert rig.board.setting == OWNERS


async def test_a_device_that_is_away_at_start_is_restored_and_announced_when_it_comes(rig: Rig) -> None:
    await rig.start()
    await rig.send()
    await rig.crash()
    rig.board.silent = True
    assert await rig.start() == []
    assert rig.code(await rig.send()) == "device"
    rig.board.silent = False
    await rig.pass_time(6)
    assert rig.board.setting == OWNERS
    assert [info.name for info in rig.paper.births[-1]] == ["board"]
    assert rig.last(await rig.send()).state is AckState.APPLIED


async def test_a_broken_device_costs_only_itself(rig: Rig) -> None:
    rig.board.broken = True
    fan = Limiter("fan", CAPABILITIES)
    assert [info.name for info in await rig.start(also=[fan])] == ["fan"]
    await rig.send(target=Target(node="jetson-1", actuator="fan"))
    assert fan.setting == Setting(7.5)
    assert rig.code(await rig.send()) == "device"


async def test_bounds_that_leave_no_limit_fail_the_device(rig: Rig) -> None:
    assert await rig.start(bounds=Bounds(min_w=30.0)) == []


async def test_a_silent_actuator_does_not_delay_another(rig: Rig) -> None:
    fan = Limiter("fan", CAPABILITIES)
    await rig.start(also=[fan])
    await rig.send(ttl_s=60.0)
    name = await rig.send(target=Target(node="jetson-1", actuator="fan"), ttl_s=5.0)
    rig.board.silent = True
    await rig.pass_time(5.25)
    assert fan.setting == UNLIMITED
    assert rig.last(name).state is AckState.EXPIRED


async def test_restore_all_undoes_what_a_dead_agent_left(rig: Rig, tmp_path: Path) -> None:
    await rig.start()
    await rig.send()
    await rig.crash()
    restored = await restore_all(LeaseStore(tmp_path / "lease.db"), [rig.board])
    assert (restored.done, restored.failed) == (["board"], [])
    assert rig.board.setting == OWNERS
    assert (await restore_all(LeaseStore(tmp_path / "lease.db"), [rig.board])).done == []


async def test_restore_all_names_what_it_could_not_restore(rig: Rig, tmp_path: Path) -> None:
    fan = Limiter("fan", CAPABILITIES)
    await rig.start(also=[fan])
    await rig.send()
    await rig.send(target=Target(node="jetson-1", actuator="fan"))
    await rig.crash()
    rig.board.silent = True
    restored = await restore_all(LeaseStore(tmp_path / "lease.db"), [rig.board])
    assert restored.done == []
    assert dict(restored.failed) == {"board": "silent", "fan": "not in the configuration"}


# --- devices that do not do as told -----------------------------------------------------------------------------------


async def test_a_limit_that_does_not_read_back_fails_and_the_former_one_stands(rig: Rig) -> None:
    await rig.start()
    first = await rig.send(10.0)
    rig.board.deaf = True
    second = await rig.send(7.5)
    assert rig.last(second).state is AckState.FAILED
    assert rig.last(second).code == "device"
    assert "says 10 W" in rig.last(second).detail
    assert rig.last(first).state is AckState.APPLIED
    rig.board.deaf = False
    await rig.pass_time(1)
    assert rig.board.setting == Setting(10.0)


async def test_a_first_limit_that_fails_is_undone(rig: Rig) -> None:
    await rig.start()
    rig.board.deaf = True
    name = await rig.send()
    assert rig.last(name).state is AckState.FAILED
    rig.board.deaf = False
    await rig.pass_time(1)
    assert rig.board.setting == OWNERS
    assert rig.paper.limits[-1].state == "unlimited"


async def test_a_silent_device_fails_the_command(rig: Rig) -> None:
    await rig.start()
    rig.board.silent = True
    name = await rig.send()
    assert rig.states(name) == [AckState.FAILED]
    assert rig.obedience.counters.tally.failed == 1


async def test_a_lost_cap_is_set_again_within_a_second(rig: Rig) -> None:
    await rig.start()
    await rig.send()
    rig.board.setting = UNLIMITED
    await rig.pass_time(1)
    assert rig.board.setting == Setting(7.5)


async def test_three_fights_are_reported_as_contended(rig: Rig) -> None:
    await rig.start()
    name = await rig.send(ttl_s=600.0)
    for _ in range(3):
        assert rig.last(name).code == ""
        rig.board.setting = Setting(15.0)
        await rig.pass_time(1)
    assert rig.last(name).code == "contended"
    assert rig.last(name).state is AckState.APPLIED
    assert rig.paper.limits[-1].state == "contended"
    await rig.pass_time(65)
    assert rig.paper.limits[-1].state == "applied"


async def test_without_a_durable_record_nothing_is_limited(rig: Rig) -> None:
    await rig.start()
    await rig.store.close()
    name = await rig.send()
    assert rig.states(name) == [AckState.FAILED]
    assert rig.last(name).code == "storage"
    assert rig.board.writes == []


async def test_letting_go_needs_no_record(rig: Rig) -> None:
    await rig.start()
    limit = await rig.send()
    await rig.store.close()
    release = await rig.release()
    assert rig.board.setting == OWNERS
    assert rig.last(limit).state is AckState.RELEASED
    assert rig.last(release).state is AckState.RELEASED


# --- the coordinator lives and dies -----------------------------------------------------------------------------------


async def test_hold_within_sixteen_seconds_and_failsafe_within_one_of_the_expiry(rig: Rig) -> None:
    await rig.start()
    rig.obedience.heartbeat(Heartbeat(epoch=1, count=1))
    name = await rig.send(ttl_s=60.0)
    assert rig.obedience.state is LeaseState.CONTROLLED
    await rig.pass_time(16, heartbeats=False)
    assert rig.obedience.state is LeaseState.HOLD
    assert rig.board.setting == Setting(7.5)
    await rig.pass_time(44, heartbeats=False)
    assert rig.obedience.state is LeaseState.FAILSAFE
    assert rig.last(name).state is AckState.EXPIRED
    assert rig.board.setting == OWNERS
    await rig.pass_time(5)
    assert rig.obedience.state is LeaseState.FAILSAFE, "a heartbeat alone does not lead out"
    await rig.send()
    assert rig.obedience.state is LeaseState.CONTROLLED


async def test_a_failsafe_limit_holds_until_heartbeat_and_command(rig: Rig) -> None:
    await rig.start(failsafe=Failsafe(6.0))
    rig.obedience.heartbeat(Heartbeat(epoch=1, count=1))
    await rig.send(ttl_s=20.0)
    await rig.pass_time(21, heartbeats=False)
    assert rig.board.setting == Setting(6.0)
    assert rig.paper.limits[-1].source == "failsafe"
    await rig.send(7.5)
    assert rig.board.setting == Setting(6.0), "no heartbeat yet"
    await rig.pass_time(1)
    assert rig.board.setting == Setting(7.5)
    await rig.release()
    assert rig.board.setting == OWNERS


async def test_a_lease_that_ends_under_a_live_coordinator_is_simply_over(rig: Rig) -> None:
    await rig.start(failsafe=Failsafe(6.0))
    await rig.send(ttl_s=10.0, on_expiry=Expiry.HOLD_LIMIT)
    await rig.pass_time(11)
    assert rig.board.setting == OWNERS
    assert rig.obedience.state is LeaseState.CONTROLLED


async def test_a_command_may_ask_to_be_held_when_its_coordinator_is_gone(rig: Rig) -> None:
    await rig.start()
    rig.obedience.heartbeat(Heartbeat(epoch=1, count=1))
    await rig.send(7.5, ttl_s=10.0, on_expiry=Expiry.HOLD_LIMIT)
    await rig.pass_time(30, heartbeats=False)
    assert rig.board.setting == Setting(7.5)
    await rig.stop()
    assert rig.board.setting == OWNERS


async def test_a_failsafe_limit_needs_no_lease_to_hold_when_the_coordinator_dies(rig: Rig) -> None:
    await rig.start(failsafe=Failsafe(6.0))
    rig.obedience.heartbeat(Heartbeat(epoch=1, count=1))
    await rig.pass_time(17, heartbeats=False)
    assert rig.obedience.state is LeaseState.FAILSAFE
    assert rig.board.setting == Setting(6.0)
    await rig.crash()
    await rig.start(failsafe=Failsafe(6.0))
    assert rig.board.setting == OWNERS


async def test_without_any_coordinator_nothing_is_guessed(rig: Rig) -> None:
    await rig.start(failsafe=Failsafe(6.0))
    await rig.pass_time(121, heartbeats=False)
    assert rig.obedience.state is LeaseState.AUTONOMOUS
    assert rig.board.writes == []


async def test_an_older_coordinators_heartbeat_is_no_sign_of_life(rig: Rig) -> None:
    await rig.start()
    await rig.send(epoch=5)
    rig.obedience.heartbeat(Heartbeat(epoch=4, count=1))
    assert rig.obedience.state is LeaseState.INIT
    assert rig.obedience.counters.stale_heartbeats == 1


async def test_the_connection_is_no_heartbeat(rig: Rig) -> None:
    await rig.start()
    rig.obedience.heartbeat(Heartbeat(epoch=1, count=1))
    await rig.pass_time(16, heartbeats=False)
    rig.obedience.connection(up=True)
    rig.obedience.coordinator_state(CoordinatorState(online=True, instance="a", epoch=1))
    assert rig.obedience.state is LeaseState.HOLD


async def test_a_lease_ends_on_time_when_the_wall_clock_jumps(rig: Rig) -> None:
    await rig.start()
    await rig.send(ttl_s=60.0)
    rig.clock.jump_wall(3600)
    await rig.pass_time(30)
    rig.clock.jump_wall(-7200)
    assert rig.board.setting == Setting(7.5)
    await rig.pass_time(29.75)
    assert rig.board.setting == Setting(7.5)
    await rig.pass_time(0.25)
    assert rig.board.setting == OWNERS


async def test_time_asleep_counts(rig: Rig) -> None:
    await rig.start()
    await rig.send(ttl_s=60.0)
    rig.clock.suspend(60)
    await rig.pass_time(1)
    assert rig.board.setting == OWNERS


# --- the local switch -------------------------------------------------------------------------------------------------


async def test_the_local_lock_lets_go_and_lets_nothing_in(rig: Rig) -> None:
    await rig.start()
    name = await rig.send()
    rig.locked = True
    await rig.pass_time(1.25)
    assert rig.obedience.state is LeaseState.LOCKED
    assert rig.board.setting == OWNERS
    assert rig.last(name).state is AckState.SUPERSEDED
    assert rig.last(name).code == "local_lock"
    assert rig.paper.limits[-1].source == "local lock"
    assert rig.code(await rig.send()) == "local_lock"
    rig.locked = False
    assert rig.last(await rig.send()).state is AckState.APPLIED


async def test_a_lock_set_a_moment_ago_counts(rig: Rig) -> None:
    await rig.start()
    rig.locked = True
    assert rig.code(await rig.send()) == "local_lock"


# --- what the meter says ----------------------------------------------------------------------------------------------


async def test_the_meter_verifies(rig: Rig) -> None:
    await rig.start()
    name = await rig.send(7.5)
    for power_w in (15.0, 7.6, 7.5, 7.4):
        await rig.pass_time(1)
        rig.obedience.observe(power_w, Quality.GOOD)
    ack = rig.last(name)
    assert (ack.state, ack.effect, ack.measured_w) == (AckState.APPLIED, Effect.VERIFIED, pytest.approx(7.5))
    assert rig.paper.limits[-1].state == "verified"
    await rig.release()
    assert rig.last(name).effect is Effect.VERIFIED


async def test_a_limit_without_effect_is_ineffective(rig: Rig) -> None:
    await rig.start()
    name = await rig.send(7.5)
    for _ in range(11):
        await rig.pass_time(1)
        rig.obedience.observe(15.0, Quality.GOOD)
    ack = rig.last(name)
    assert (ack.state, ack.effect, ack.measured_w) == (AckState.APPLIED, Effect.INEFFECTIVE, 15.0)


async def test_fast_renewals_do_not_keep_the_meter_from_deciding(rig: Rig) -> None:
    await rig.start()
    name = await rig.send(7.5, ttl_s=5.0)
    for _ in range(2):
        await rig.pass_time(1.5)
        rig.obedience.observe(7.5, Quality.GOOD)
        name = await rig.send(7.5, ttl_s=5.0)
    rig.obedience.observe(7.5, Quality.GOOD)
    assert rig.last(name).effect is Effect.VERIFIED


async def test_without_a_limit_the_meter_is_not_asked(rig: Rig) -> None:
    await rig.start()
    await rig.send(7.5)
    await rig.release()
    said = len(rig.paper.acks)
    for _ in range(20):
        rig.obedience.observe(1.0, Quality.GOOD)
    assert len(rig.paper.acks) == said


# --- the connection ---------------------------------------------------------------------------------------------------


async def test_what_ended_while_the_broker_was_away_is_told_when_it_is_back(rig: Rig) -> None:
    await rig.start()
    name = await rig.send(ttl_s=5.0)
    rig.obedience.connection(up=False)
    rig.paper.up = False
    await rig.pass_time(6)
    assert rig.board.setting == OWNERS
    assert rig.last(name).state is AckState.APPLIED
    rig.paper.up = True
    rig.obedience.connection(up=True)
    await rig.quiet()
    assert rig.last(name).state is AckState.EXPIRED
    assert rig.paper.limits[-1].state == "unlimited"


async def test_an_end_nobody_heard_is_told_by_the_next_life(rig: Rig) -> None:
    await rig.start()
    name = await rig.send(ttl_s=5.0)
    rig.paper.up = False
    await rig.pass_time(6)
    await rig.crash()
    rig.paper.up = True
    await rig.start()
    rig.obedience.connection(up=True)
    await rig.quiet()
    assert rig.last(name).state is AckState.EXPIRED
    assert rig.last(name).code == "", "it ended before the restart"


async def test_the_limit_in_force_is_published_when_it_changes(rig: Rig) -> None:
    await rig.start()
    assert [state.state for state in rig.paper.limits] == ["unlimited"]
    await rig.send(1.0)
    state = rig.paper.limits[-1]
    assert (state.desired_w, state.effective_w, state.source, state.state) == (1.0, 5.0, "lab", "applied")
    assert state.valid_until is not None
    assert (state.valid_until - utc(rig.clock.wall_us())).total_seconds() == pytest.approx(60)
    published = len(rig.paper.limits)
    await rig.pass_time(10)
    assert len(rig.paper.limits) == published
    rig.obedience.connection(up=True)
    assert len(rig.paper.limits) == published + 1


async def test_log_says_changes_of_state_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await rig.start()
        await rig.pass_time(10)
        await rig.pass_time(30, heartbeats=False)
    assert [record.getMessage() for record in caplog.records if "lease state" in record.getMessage()] == [
        "lease state: init → controlled",
        "lease state: controlled → hold",
    ]
