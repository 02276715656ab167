"""Leases on one actuator: which limits hold now, until when, and what follows when they end.

Pure: no clock, no device, no disk. Every call gets its instant (seconds on CLOCK_BOOTTIME) and says what ended; the
desk (``agent.desk``) does what follows. Leases stack, one per issuer and action: of the limits the most restrictive
holds, of the profiles and of what a workload should do the one with the lowest ``priority`` number.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hil.devices import Capabilities, Setting, WorkloadState
from hil.wire import Action, Command, Expiry, Verb

CHANGE_INTERVAL_S: Final = 1.0
UNLIMITED: Final = Setting()
LEAVES: Final = {
    Verb.START: WorkloadState.RUNNING,
    Verb.RESUME: WorkloadState.RUNNING,
    Verb.PAUSE: WorkloadState.PAUSED,
    Verb.STOP: WorkloadState.STOPPED,
}

Slot = tuple[str, Action]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a command is not obeyed: a stable code, and a sentence for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits in W that this machine's own configuration allows; None: no bound on that side."""

    min_w: float | None = None
    max_w: float | None = None

    def within(self, capabilities: Capabilities) -> "Bounds":
        """These bounds, narrowed to what the device can do; ``min_w`` > ``max_w`` where they do not meet."""
        lows = [low for low in (self.min_w, capabilities.min_w) if low is not None]
        highs = [high for high in (self.max_w, capabilities.max_w) if high is not None]
        return Bounds(max(lows, default=None), min(highs, default=None))

    def __str__(self) -> str:
        low, high = ("any" if bound is None else f"{bound:g} W" for bound in (self.min_w, self.max_w))
        return f"{low} to {high}"

    @property
    def empty(self) -> bool:
        """Whether no limit fits."""
        return self.min_w is not None and self.max_w is not None and self.min_w > self.max_w

    def clamp(self, limit_w: float) -> float:
        """The nearest allowed limit in W."""
        if self.max_w is not None:
            limit_w = min(limit_w, self.max_w)
        return limit_w if self.min_w is None else max(limit_w, self.min_w)


@dataclass(frozen=True, slots=True)
class Lease:
    """A command as this actuator may obey it: ``limit_w`` lies within the bounds, ``until`` is on CLOCK_BOOTTIME."""

    command: Command
    limit_w: float | None
    until: float
    received_us: int

    @property
    def slot(self) -> Slot:
        """The place on the stack; a newer lease of the same slot supersedes."""
        return self.command.issuer, self.command.action

    @property
    def clamped(self) -> bool:
        """Whether the command asked for a limit outside the bounds."""
        return self.limit_w != self.command.limit_w

    def same_as(self, other: "Lease | None") -> bool:
        """Whether this lease asks for what ``other`` does, so that it is a renewal."""
        return other is not None and self._asks == other._asks

    @property
    def workload(self) -> WorkloadState | None:
        """What the command leaves its program doing."""
        return LEAVES[self.command.workload] if self.command.workload is not None else None

    @property
    def _asks(self) -> Setting:
        return Setting(self.limit_w, self.command.profile, self.workload)


class Stack:
    """The live leases of one actuator and the setting that follows from them."""

    def __init__(self, capabilities: Capabilities, bounds: Bounds) -> None:
        self.bounds = bounds.within(capabilities)
        self.hold_w: float | None = None
        self._profiles = capabilities.profiles
        self._workload = capabilities.workload
        self._limits = capabilities.min_w is not None or capabilities.max_w is not None
        self._live: dict[Slot, Lease] = {}
        self._changed_at = -math.inf

    @property
    def actions(self) -> list[str]:
        """What a command may ask of this actuator."""
        actions = [Action.LIMIT] * self._limits + [Action.PROFILE] * bool(self._profiles)
        actions += [Action.WORKLOAD] * self._workload
        return [action.value for action in (*actions, Action.RELEASE)] if actions else []

    @property
    def leases(self) -> list[Lease]:
        """The live leases, oldest first."""
        return list(self._live.values())

    @property
    def setting(self) -> Setting:
        """What the actuator ought to be set to now."""
        return self._setting(self._live.values())

    @property
    def deadline(self) -> float:
        """When the next lease ends, on CLOCK_BOOTTIME; infinite without one."""
        return min((lease.until for lease in self._live.values()), default=math.inf)

    def weigh(self, command: Command, received: float, received_us: int, now: float) -> Lease | Refusal:
        """The lease that this command amounts to, or why it is refused; changes nothing."""
        refusal = self._unfit(command)
        if refusal is not None:
            return refusal
        limit_w = self.bounds.clamp(command.limit_w) if command.limit_w is not None else None
        lease = Lease(command, limit_w, received + command.ttl_s, received_us)
        if lease.until <= now:
            return Refusal("expired_on_arrival", f"waited longer than its {command.ttl_s:g} s")
        after = self.setting_with(lease)
        too_soon = now - self._changed_at < CHANGE_INTERVAL_S
        if too_soon and command.action is not Action.RELEASE and not _restricts(self.setting, after):
            return Refusal("rate_limited", f"at most one change in {CHANGE_INTERVAL_S:g} s that is no lower limit")
        return lease

    def setting_with(self, lease: Lease) -> Setting:
        """What the actuator would be set to with this lease placed."""
        if lease.command.action is Action.RELEASE:
            return self._setting(held for held in self._live.values() if held.command.issuer != lease.command.issuer)
        return self._setting({**self._live, lease.slot: lease}.values())

    def renewed_by(self, lease: Lease) -> bool:
        """Whether the lease extends a live one and asks for nothing new."""
        return lease.same_as(self._live.get(lease.slot))

    def place(self, lease: Lease, now: float) -> list[Lease]:
        """Put the lease into force and return those it ends: its issuer's all (release) or the one of its slot."""
        if self.setting_with(lease) != self.setting:
            self._changed_at = now
        if lease.command.action is Action.RELEASE:
            return self._take(slot for slot in self._live if slot[0] == lease.command.issuer)
        ended = self._take([lease.slot] if lease.slot in self._live else [])
        self._live[lease.slot] = lease
        return ended

    def expire(self, now: float) -> list[Lease]:
        """Remove and return the leases whose time is over."""
        return self._take(slot for slot, lease in self._live.items() if lease.until <= now)

    def hold(self, failsafe_w: float | None, expired: Iterable[Lease] = ()) -> None:
        """Hold what the failsafe asks for; a command's ``on_expiry`` may tighten that, never loosen it."""
        limits = [lease.limit_w for lease in expired if lease.command.on_expiry is Expiry.HOLD_LIMIT]
        if failsafe_w is not None and self._limits:
            limits.append(self.bounds.clamp(failsafe_w))
        self.hold_w = min((limit for limit in (self.hold_w, *limits) if limit is not None), default=None)

    def clear(self) -> list[Lease]:
        """Remove and return every lease, and hold nothing."""
        self.hold_w = None
        return self._take(self._live)

    def _take(self, slots: Iterable[Slot]) -> list[Lease]:
        return [self._live.pop(slot) for slot in list(slots)]

    def _setting(self, leases: Iterable[Lease]) -> Setting:
        limit_w, profile, workload = self.hold_w, None, None
        # Of equal priority the newest decides, so it comes last.
        for lease in sorted(leases, key=lambda lease: -lease.command.priority):
            if lease.limit_w is not None:
                limit_w = lease.limit_w if limit_w is None else min(limit_w, lease.limit_w)
            profile = lease.command.profile or profile
            workload = lease.workload or workload
        return Setting(limit_w, profile, workload)

    def _unfit(self, command: Command) -> Refusal | None:
        if command.action.value not in self.actions:
            allowed = ", ".join(self.actions) or "nothing"
            return Refusal("action_not_allowed", f"{command.action.value}: this actuator takes {allowed}")
        if command.action is Action.PROFILE and command.profile not in self._profiles:
            return Refusal("action_not_allowed", f"profile {command.profile}: known are {', '.join(self._profiles)}")
        if (command.limit_w is not None) != (command.action is Action.LIMIT):
            return Refusal("malformed", f"limit_w {command.limit_w} with action {command.action.value}")
        if (command.profile is not None) != (command.action is Action.PROFILE):
            return Refusal("malformed", f"profile {command.profile} with action {command.action.value}")
        if (command.workload is not None) != (command.action is Action.WORKLOAD):
            return Refusal("malformed", f"workload {command.workload} with action {command.action.value}")
        if command.limit_w is not None and not math.isfinite(command.limit_w):
            return Refusal("malformed", "limit_w is not finite")
        if command.limit_w is not None and command.limit_w < 0:
            return Refusal("out_of_range", f"limit_w {command.limit_w:g} is negative")
        return None


def _restricts(before: Setting, after: Setting) -> bool:
    """Whether nothing changes, or only a limit goes down or a program is held back."""
    if before == after:
        return True
    lower = after.limit_w is not None and (before.limit_w is None or after.limit_w < before.limit_w)
    held_back = after.workload in {WorkloadState.PAUSED, WorkloadState.STOPPED}
    return (lower or held_back) and before.profile == after.profile


def show(setting: Setting) -> str:
    """A setting for people: ``7.5 W``, ``eco``, ``paused``, ``no limit``."""
    limit = f"{setting.limit_w:g} W" if setting.limit_w is not None else ""
    parts = [limit, setting.profile or "", setting.workload or ""]
    return " ".join(part for part in parts if part) or "no limit"
