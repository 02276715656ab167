import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lease import UNLIMITED, Bounds, Lease, Refusal, Stack, show
from hil.devices import Capabilities, Setting, WorkloadState
from hil.wire import Action, Command, Expiry, Target, Verb

CAPABILITIES = Capabilities(min_w=5.0, max_w=20.0, profiles=("eco", "full"))


def command(limit_w: float | None = 7.5, **changes: Any) -> Command:
    fields: dict[str, Any] = {
        "id": "command-1",
        "issuer": "lab",
        "epoch": 1,
        "seq": 1,
        "target": Target(node="jetson-1", actuator="board"),
        "action": Action.LIMIT,
        "limit_w": limit_w,
        "issued_at": datetime(2026, 6, 21, tzinfo=UTC),
        "ttl_s": 60.0,
    }
    return Command(**{**fields, **changes})


def release(**changes: Any) -> Command:
    return command(None, action=Action.RELEASE, **changes)


def profile(name: str | None, **changes: Any) -> Command:
    return command(None, action=Action.PROFILE, profile=name, **changes)


@pytest.fixture
def stack() -> Stack:
    return Stack(CAPABILITIES, Bounds())


def weigh(stack: Stack, order: Command, now: float = 100.0) -> Lease | Refusal:
    return stack.weigh(order, now, round(now * 1e6), now)


def place(stack: Stack, order: Command, now: float = 100.0) -> list[Lease]:
    lease = weigh(stack, order, now)
    assert isinstance(lease, Lease), lease
    return stack.place(lease, now)


def refused(stack: Stack, order: Command, now: float = 100.0) -> str:
    verdict = weigh(stack, order, now)
    assert isinstance(verdict, Refusal), verdict
    return verdict.code


# --- what is taken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (command(None), "malformed"),
        (command(math.nan), "malformed"),
        (command(math.inf), "malformed"),
        (command(-0.01), "out_of_range"),
        (command(7.5, profile="eco"), "malformed"),
        (profile("turbo"), "action_not_allowed"),
        (profile(None), "action_not_allowed"),
        (command(None, action=Action.WORKLOAD), "action_not_allowed"),
        (command(7.5, action=Action.RELEASE), "malformed"),
    ],
)
def test_unfit_commands_are_refused(stack: Stack, order: Command, code: str) -> None:
    assert refused(stack, order) == code
    assert stack.setting == UNLIMITED


def test_an_actuator_takes_only_what_it_can_do() -> None:
    assert refused(Stack(Capabilities(profiles=("eco",)), Bounds()), command()) == "action_not_allowed"
    assert refused(Stack(Capabilities(max_w=20.0), Bounds()), profile("eco")) == "action_not_allowed"
    assert refused(Stack(Capabilities(), Bounds()), release()) == "action_not_allowed"
    assert Stack(Capabilities(max_w=20.0), Bounds()).actions == ["limit", "release"]
    assert Stack(CAPABILITIES, Bounds()).actions == ["limit", "profile", "release"]


@pytest.mark.parametrize(
    ("asked", "given_w", "clamped"), [(0.0, 6.0, True), (6.0, 6.0, False), (1e12, 18.0, True), (12.5, 12.5, False)]
)
def test_limits_are_clamped_to_local_bounds(asked: float, given_w: float, clamped: bool) -> None:
    stack = Stack(CAPABILITIES, Bounds(6.0, 18.0))
    place(stack, command(asked))
    (lease,) = stack.leases
    assert (lease.limit_w, lease.clamped) == (given_w, clamped)


def test_the_narrower_bound_wins() -> None:
    assert Bounds(1.0, 18.0).within(CAPABILITIES) == Bounds(5.0, 18.0)
    assert Bounds().within(Capabilities()) == Bounds()
    assert Bounds(25.0, None).within(CAPABILITIES).empty
    assert str(Bounds(None, 18.0)) == "any to 18 W"


@given(st.floats(0, 1e12), st.floats(0, 1e3), st.floats(0, 1e3))
def test_no_limit_leaves_the_bounds(asked: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    stack = Stack(Capabilities(min_w=low, max_w=high), Bounds())
    place(stack, command(asked))
    assert stack.setting.limit_w is not None
    assert low <= stack.setting.limit_w <= high


def test_a_command_that_waited_longer_than_its_lease_is_refused(stack: Stack) -> None:
    verdict = stack.weigh(command(ttl_s=5.0), 100.0, 0, 105.0)
    assert isinstance(verdict, Refusal)
    assert verdict.code == "expired_on_arrival"


# --- rate limit -------------------------------------------------------------------------------------------------------


def test_raising_a_limit_waits_a_second(stack: Stack) -> None:
    place(stack, command(7.5), 100.0)
    assert refused(stack, command(8.0), 100.9) == "rate_limited"
    place(stack, command(8.0), 101.0)
    assert stack.setting == Setting(8.0)


def test_lower_limits_renewals_and_releases_never_wait(stack: Stack) -> None:
    place(stack, command(10.0), 100.0)
    place(stack, command(9.0), 100.0)
    place(stack, command(9.0), 100.0)
    place(stack, release(), 100.0)
    place(stack, command(12.0), 100.0)
    assert stack.setting == Setting(12.0)


def test_a_renewal_is_no_change_for_the_rate_limit(stack: Stack) -> None:
    place(stack, command(7.5), 100.0)
    place(stack, command(7.5), 100.9)
    place(stack, command(8.0), 101.0)


def test_changing_profiles_waits_a_second(stack: Stack) -> None:
    place(stack, profile("eco"), 100.0)
    assert refused(stack, profile("full"), 100.5) == "rate_limited"
    place(stack, profile("full"), 101.0)


# --- leases -----------------------------------------------------------------------------------------------------------


def test_a_lease_counts_from_receipt(stack: Stack) -> None:
    lease = stack.weigh(command(ttl_s=60.0), 100.0, 0, 103.0)
    assert isinstance(lease, Lease)
    assert lease.until == 160.0


def test_a_renewal_extends_without_a_gap(stack: Stack) -> None:
    place(stack, command(ttl_s=60.0), 100.0)
    renewal = weigh(stack, command(id="command-2", ttl_s=60.0), 120.0)
    assert isinstance(renewal, Lease)
    assert stack.renewed_by(renewal)
    assert stack.setting_with(renewal) == stack.setting
    (ended,) = stack.place(renewal, 120.0)
    assert ended.command.id == "command-1"
    assert stack.expire(160.0) == []
    assert stack.deadline == 180.0
    assert stack.expire(180.0) == [renewal]
    assert stack.setting == UNLIMITED
    assert stack.deadline == math.inf


def test_a_new_limit_is_no_renewal(stack: Stack) -> None:
    place(stack, command(7.5))
    lease = weigh(stack, command(7.0))
    assert isinstance(lease, Lease)
    assert not stack.renewed_by(lease)


def test_a_release_ends_all_leases_of_its_issuer_and_no_others(stack: Stack) -> None:
    place(stack, command(7.5, issuer="lab"), 100.0)
    place(stack, profile("eco", issuer="lab"), 102.0)
    place(stack, command(10.0, issuer="roof"), 104.0)
    ended = place(stack, release(issuer="lab"), 106.0)
    assert {lease.command.action for lease in ended} == {Action.LIMIT, Action.PROFILE}
    assert stack.setting == Setting(10.0)


def test_a_release_without_leases_ends_nothing(stack: Stack) -> None:
    assert place(stack, release()) == []


# --- stacking ---------------------------------------------------------------------------------------------------------


def test_the_most_restrictive_limit_holds(stack: Stack) -> None:
    place(stack, command(7.5, issuer="lab", priority=500), 100.0)
    place(stack, command(10.0, issuer="roof", priority=1), 102.0)
    assert stack.setting == Setting(7.5)
    place(stack, command(6.0, issuer="roof"), 104.0)
    assert stack.setting == Setting(6.0)
    place(stack, release(issuer="roof"), 106.0)
    assert stack.setting == Setting(7.5)


def test_the_profile_with_the_lowest_priority_number_holds(stack: Stack) -> None:
    place(stack, profile("full", issuer="lab", priority=50), 100.0)
    place(stack, profile("eco", issuer="roof", priority=100), 102.0)
    assert stack.setting == Setting(profile="full")
    place(stack, profile("eco", issuer="roof", priority=50), 104.0)
    assert stack.setting == Setting(profile="eco"), "the newer of equals"


def test_limits_and_profiles_stand_side_by_side(stack: Stack) -> None:
    place(stack, command(7.5), 100.0)
    assert place(stack, profile("eco"), 102.0) == []
    assert stack.setting == Setting(7.5, "eco")


# --- failsafe ---------------------------------------------------------------------------------------------------------


def expired(stack: Stack, *orders: Command) -> list[Lease]:
    for order in orders:
        place(stack, order)
    return stack.expire(1e9)


def test_a_failsafe_limit_holds_within_the_bounds(stack: Stack) -> None:
    stack.hold(1.0, expired(stack, command(7.5)))
    assert stack.setting == Setting(5.0)


def test_a_command_may_tighten_the_failsafe(stack: Stack) -> None:
    stack.hold(None, expired(stack, command(7.5, on_expiry=Expiry.HOLD_LIMIT)))
    assert stack.setting == Setting(7.5)
    stack.hold(6.0)
    assert stack.setting == Setting(6.0)


def test_a_command_may_not_loosen_the_failsafe(stack: Stack) -> None:
    stack.hold(6.0, expired(stack, command(7.5, on_expiry=Expiry.HOLD_LIMIT)))
    assert stack.setting == Setting(6.0)
    stack.hold(8.0)
    assert stack.setting == Setting(6.0)


def test_the_hold_restricts_leases_and_clear_ends_both(stack: Stack) -> None:
    stack.hold(6.0)
    place(stack, command(7.5))
    assert stack.setting == Setting(6.0)
    assert len(stack.clear()) == 1
    assert stack.setting == UNLIMITED


def test_without_limits_there_is_nothing_to_hold() -> None:
    stack = Stack(Capabilities(profiles=("eco",)), Bounds())
    stack.hold(6.0)
    assert stack.setting == UNLIMITED


def test_settings_in_words() -> None:
    assert show(UNLIMITED) == "no limit"
    assert show(Setting(7.5)) == "7.5 W"
    assert show(Setting(7.5, "eco")) == "7.5 W eco"


# --- workloads --------------------------------------------------------------------------------------------------------


def workload(verb: Verb | None, **changes: Any) -> Command:
    return command(None, action=Action.WORKLOAD, workload=verb, **changes)


@pytest.fixture
def program() -> Stack:
    return Stack(Capabilities(workload=True), Bounds())


def test_a_workload_takes_what_workloads_take(program: Stack, stack: Stack) -> None:
    assert program.actions == ["workload", "release"]
    assert refused(program, command(7.5)) == "action_not_allowed"
    assert refused(stack, workload(Verb.PAUSE)) == "action_not_allowed"
    assert refused(program, workload(None)) == "malformed"
    assert refused(program, release(workload=Verb.STOP)) == "malformed"


@pytest.mark.parametrize(
    ("verb", "left"),
    [
        (Verb.START, WorkloadState.RUNNING),
        (Verb.RESUME, WorkloadState.RUNNING),
        (Verb.PAUSE, WorkloadState.PAUSED),
        (Verb.STOP, WorkloadState.STOPPED),
    ],
)
def test_a_verb_leaves_a_program_in_its_state_until_the_lease_ends(
    program: Stack, verb: Verb, left: WorkloadState
) -> None:
    place(program, workload(verb))
    assert program.setting == Setting(workload=left)
    assert show(program.setting) == left
    program.expire(161.0)
    assert program.setting == UNLIMITED


def test_holding_a_program_back_is_never_too_soon(program: Stack) -> None:
    place(program, workload(Verb.START))
    place(program, workload(Verb.PAUSE, seq=2), now=100.1)
    assert refused(program, workload(Verb.RESUME, seq=3), now=100.2) == "rate_limited"
    place(program, workload(Verb.STOP, seq=4), now=100.3)


def test_the_same_verb_again_is_a_renewal(program: Stack) -> None:
    place(program, workload(Verb.START))
    lease = weigh(program, workload(Verb.START, seq=2))
    assert isinstance(lease, Lease)
    assert program.renewed_by(lease)


def test_of_several_sources_the_lowest_number_decides_what_a_program_does(program: Stack) -> None:
    place(program, workload(Verb.PAUSE, priority=10))
    place(program, workload(Verb.START, issuer="other", priority=100), now=102.0)
    assert program.setting == Setting(workload=WorkloadState.PAUSED)
