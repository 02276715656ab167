"""The rows of the ledger: what a run leaves behind, as typed values.

``t_us`` is always simulated time, ``real_t_us`` real time; both UTC microseconds since 1970.
"""

import enum
from dataclasses import dataclass

from coordinator.microgrid.step import StepResult
from hil.devices import Quality
from hil.wire import Ack, Command, Effect


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One sample as committed. ``node`` is the agent that sent it; identity is (node, stream, seq)."""

    node: str
    stream: str
    seq: int
    meter: str
    t_us: int
    power_w: float | None
    energy_j: float | None
    energy_epoch: int
    quality: Quality
    hist: bool
    arrived_us: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Samples that an agent declared lost, ends included."""

    node: str
    stream: str
    first: int
    last: int
    why: str


@dataclass(frozen=True, slots=True)
class SampleRange:
    """Which samples an input was made of: ``count`` usable ones of one meter, ``first`` to ``last`` in seq."""

    node: str
    meter: str
    stream: str
    first: int
    last: int
    count: int


class InputSource(enum.StrEnum):
    """Where an actor's power in a step came from."""

    MEASURED = "measured"  # mean of the samples in ``samples``
    HELD = "held"  # newest earlier value
    ESTIMATED = "estimated"  # max(newest, 5-minute 95th percentile)
    NAMEPLATE = "nameplate"  # nothing heard: nameplate power
    MODEL = "model"  # a trace or model of the scenario


@dataclass(frozen=True, slots=True)
class InputRow:
    """The exact input of one actor in one step, instrument value."""

    actor: str
    power_w: float
    quality: Quality
    source: InputSource
    age_s: float | None = None
    samples: SampleRange | None = None


class StepKind(enum.StrEnum):
    """How a step came about."""

    NORMAL = "normal"
    CATCH_UP = "catch-up"  # a missed step, run late with held inputs and no actuation
    GAP = "gap"  # one row for more missed steps than are caught up


@dataclass(frozen=True, slots=True)
class StepRow:
    """One microgrid's step: exact inputs, outcome, and the signals it saw."""

    microgrid: str
    kind: StepKind
    inputs: tuple[InputRow, ...]
    carbon_g_per_kwh: float | None
    price_per_mwh: float | None
    result: StepResult


@dataclass(frozen=True, slots=True)
class SignalRow:
    """What a signal of another system was in a step, in the project's own unit; None: unknown."""

    name: str
    value: float | None


@dataclass(frozen=True, slots=True)
class StepTime:
    """When a step really ran; kept apart from the step table, which must replay byte for byte."""

    k: int
    real_t_us: int
    lateness_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something worth telling a person. ``microgrid`` is None for events of the run as a whole."""

    t_us: int
    real_t_us: int
    k: int | None
    microgrid: str | None
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A command as it was decided, before it is published."""

    command: Command
    microgrid: str | None
    k: int | None
    t_us: int
    real_t_us: int


@dataclass(frozen=True, slots=True)
class AckRow:
    """An agent's word on a command. ``latency_ms`` is publish to receipt, on ``applied`` alone."""

    ack: Ack
    node: str
    real_t_us: int
    latency_ms: float | None


@dataclass(frozen=True, slots=True)
class EffectRow:
    """What the meter showed of a command's limit."""

    command_id: str
    effect: Effect
    measured_w: float | None
    real_t_us: int


@dataclass(frozen=True, slots=True)
class StepCommit:
    """One step of the whole run, for one transaction: rows, timing, decisions, and the snapshot to resume from."""

    k: int
    rows: tuple[StepRow, ...]
    time: StepTime
    commands: tuple[CommandRow, ...]
    events: tuple[EventRow, ...]
    snapshot: bytes
    signals: tuple[SignalRow, ...] = ()
