"""The notice at the desk: what limits an actuator now, for people and other tools."""

from datetime import datetime

from agent.grip import Grip
from agent.lease import UNLIMITED, Lease, Stack
from hil.clock import utc
from hil.devices import Setting
from hil.units import MICROSECONDS_PER_SECOND
from hil.wire import Effect, LimitState


def notice(grip: Grip, stack: Stack, effect: Effect, locked: bool) -> LimitState:
    """What is wanted and what the device confirmed, who wants it, until when, and how it went."""
    wanted = stack.setting
    deciding = [lease for lease in stack.leases if lease.limit_w == wanted.limit_w]
    asked_w = [lease.command.limit_w for lease in deciding if lease.command.limit_w is not None]
    return LimitState(
        actuator=grip.name,
        desired_w=min(asked_w, default=wanted.limit_w),
        effective_w=grip.held.limit_w if grip.held is not None else None,
        profile=wanted.profile,
        workload=wanted.workload,
        source="local lock" if locked else _source(deciding, wanted),
        state=_state(grip, wanted, effect),
        valid_until=max(map(_end, deciding), default=None),
        note=grip.note,
    )


def _source(deciding: list[Lease], wanted: Setting) -> str:
    if deciding:
        return ", ".join(sorted({lease.command.issuer for lease in deciding}))
    return "none" if wanted == UNLIMITED else "failsafe"


def _state(grip: Grip, wanted: Setting, effect: Effect) -> str:
    if grip.faulty:
        return "unavailable"
    if wanted == UNLIMITED:
        return "unlimited" if grip.undo is None else "restoring"
    if grip.contended:
        return "contended"
    return "applied" if effect is Effect.PENDING else effect.value


def _end(lease: Lease) -> datetime:
    return utc(lease.received_us + round(lease.command.ttl_s * MICROSECONDS_PER_SECOND))
