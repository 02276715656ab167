"""How the agent stands, for whoever asks on this machine: what is measured, what is limited, by whom, for how long."""

from collections.abc import Iterable
from typing import Final

import msgspec

from agent.lease import Lease
from agent.sample import Sample
from hil.clock import Clock
from hil.devices import Quality, WorkloadState
from hil.wire import Ack, Action, Effect, LimitState, Verb

UNAVAILABLE: Final = "unavailable"


class MeterReport(msgspec.Struct, frozen=True):
    """A meter's newest sample: mean power in W over its tick in the meter's own direction, ``age_s`` ago."""

    name: str
    power_w: float | None
    quality: Quality
    age_s: float


class LeaseReport(msgspec.Struct, frozen=True):
    """One command in force, and what became of it; ``remaining_s`` is the rest of its lease."""

    issuer: str
    action: Action
    requested_w: float | None
    applied_w: float | None
    measured_w: float | None
    profile: str | None
    workload: Verb | None
    effect: Effect
    remaining_s: float
    reason: str


class ActuatorReport(msgspec.Struct, frozen=True):
    """One actuator: ``requested_w`` is asked for, ``applied_w`` what the device confirmed; None: no limit.

    ``note`` is the device's own word.
    """

    name: str
    kind: str
    state: str = UNAVAILABLE
    requested_w: float | None = None
    applied_w: float | None = None
    profile: str | None = None
    workload: WorkloadState | None = None
    note: str = ""
    source: str = ""
    remaining_s: float | None = None
    leases: tuple[LeaseReport, ...] = ()


class NodeReport(msgspec.Struct, frozen=True):
    """Everything about one agent."""

    site: str
    node: str
    mode: str
    pid: int
    version: str
    lease_state: str
    broker: str
    connected: bool
    own_meter: str
    meters: tuple[MeterReport, ...]
    actuators: tuple[ActuatorReport, ...]
    books: str

    @property
    def measured_w(self) -> float | None:
        """The newest power of this node's own meter in W; None without one."""
        return next((meter.power_w for meter in self.meters if meter.name == self.own_meter), None)


class NewestSamples:
    """The newest sample of each meter, with its age."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._newest: dict[str, tuple[Sample, float]] = {}

    def take(self, sample: Sample) -> None:
        """Note a sample that was taken just now."""
        self._newest[sample.meter] = sample, self._clock.monotonic()

    def report(self) -> tuple[MeterReport, ...]:
        """Each meter that has spoken, in the order of their first samples."""
        now = self._clock.monotonic()
        return tuple(
            MeterReport(sample.meter, sample.power_w, sample.quality, now - taken)
            for sample, taken in self._newest.values()
        )


def report_lease(lease: Lease, ack: Ack | None, now: float) -> LeaseReport:
    """A lease and the newest answer to its command; ``now`` is on CLOCK_BOOTTIME."""
    command = lease.command
    return LeaseReport(
        issuer=command.issuer,
        action=command.action,
        requested_w=command.limit_w,
        applied_w=lease.limit_w,
        measured_w=ack.measured_w if ack is not None else None,
        profile=command.profile,
        workload=command.workload,
        effect=ack.effect if ack is not None else Effect.PENDING,
        remaining_s=max(0.0, lease.until - now),
        reason=command.reason,
    )


def report_actuator(kind: str, state: LimitState, leases: Iterable[LeaseReport]) -> ActuatorReport:
    """An actuator whose device is there."""
    reported = tuple(leases)
    return ActuatorReport(
        name=state.actuator,
        kind=kind,
        state=state.state,
        requested_w=state.desired_w,
        applied_w=state.effective_w,
        profile=state.profile,
        workload=state.workload,
        note=state.note,
        source=state.source,
        remaining_s=max((lease.remaining_s for lease in reported), default=None),
        leases=reported,
    )
