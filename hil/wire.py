"""The wire: topic names, message structs, and a decoder that trusts nobody.

Encoded as JSON. Unknown keys are ignored, so that versions mix; everything else that is off is refused: size first,
then depth, then syntax (NaN, Infinity and duplicate keys included), then types and ranges.
"""

import enum
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, TypeVar

import msgspec

from hil.devices import Quality, WorkloadState

PROTOCOL: Final = 1
MAX_BYTES: Final = 65_536
MAX_DEPTH: Final = 8
MAX_RECORDS: Final = 100
MAX_DATA_BYTES: Final = 60_000
TTL_MIN_S: Final = 5.0
TTL_MAX_S: Final = 3600.0

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,62}\Z"  # \Z: for $ a line break may follow
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # what every JSON reader keeps exact
Seq = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Watts = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]


class WireError(ValueError):
    """A message that must not be acted on; ``code`` is short and stable, the text says what is wrong."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(f"{code}: {what}")
        self.code = code
        self.what = what


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything on the wire."""


# --- measurements -----------------------------------------------------------------------------------------------------


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One sample of one meter: mean power over a tick, with identity and quality."""

    seq: Seq
    t_us: Count
    meter: Name
    w: Watts | None
    e_j: float | None
    e_epoch: Count
    q: Quality


class Lost(msgspec.Struct, frozen=True, array_like=True):
    """A tombstone: samples ``first`` to ``last`` of the stream exist no more, and why."""

    first: Seq
    last: Seq
    why: Text


class Data(Message, frozen=True, kw_only=True):
    """A batch of samples of one stream; ``hist`` marks backlog sent after a silence."""

    stream: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8,32}\Z")]
    r: Annotated[list[Record], msgspec.Meta(max_length=MAX_RECORDS)]
    lost: Annotated[list[Lost], msgspec.Meta(max_length=MAX_RECORDS)] = []
    hist: bool = False


class DataAck(Message, frozen=True, kw_only=True):
    """What the coordinator holds on disk: everything to ``upto``, and the closed intervals of ``have`` above it."""

    stream: str
    upto: Count
    have: list[tuple[int, int]] = []


class Last(Message, frozen=True, kw_only=True):
    """The newest value of one meter, for people and other tools."""

    t_us: Count
    power_w: Watts | None
    quality: Quality


# --- presence ---------------------------------------------------------------------------------------------------------


class MeterInfo(Message, frozen=True, kw_only=True):
    """A meter as its agent announces it; ``measures`` names the node whose power it reads."""

    name: Name
    kind: Text
    measures: Name
    interval_s: float


class ActuatorInfo(Message, frozen=True, kw_only=True):
    """An actuator as its agent announces it; ``note`` says what of it does not work."""

    name: Name
    kind: Text
    actions: list[str]
    min_w: float | None = None
    max_w: float | None = None
    step_w: float = 0.0
    profiles: list[str] = []
    note: Text = ""


class Birth(Message, frozen=True, kw_only=True):
    """Who an agent is and what it has; retained. ``epoch`` is the highest it has obeyed."""

    v: int = PROTOCOL
    node: Name
    version: Text
    boot_id: Text
    stream: str
    epoch: Count
    mode: Text
    nameplate_w: float | None
    failsafe: Text
    sync: Text
    clock_synchronised: bool | None
    mqtt: Text = ""
    meters: list[MeterInfo] = []
    actuators: list[ActuatorInfo] = []


class Presence(enum.StrEnum):
    """Whether an agent is there; ``lost`` is its last will."""

    READY = "ready"
    DISCONNECTED = "disconnected"
    LOST = "lost"


class NodeState(Message, frozen=True, kw_only=True):
    """An agent's presence and its books; retained. An older ``session`` than one seen is ignored."""

    state: Presence
    session: Count
    lease: Text = ""
    stream: str = ""
    generated: Count = 0
    acked: Count = 0
    spooled: Count = 0
    lost: Count = 0


class CoordinatorState(Message, frozen=True, kw_only=True):
    """Whether the coordinator is there; retained, offline is its last will.

    ``draining``: it decides no more, and still takes and acknowledges samples.
    """

    online: bool
    draining: bool = False
    instance: str
    epoch: Count


class Heartbeat(Message, frozen=True, kw_only=True):
    """The coordinator is alive and deciding; sent every 5 s."""

    epoch: Count
    count: Count


# --- commands ---------------------------------------------------------------------------------------------------------


class Action(enum.StrEnum):
    """What a command asks for."""

    LIMIT = "limit"
    PROFILE = "profile"
    WORKLOAD = "workload"
    RELEASE = "release"


class Verb(enum.StrEnum):
    """What a command wants done with a workload; START and RESUME both leave it running."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"


class Expiry(enum.StrEnum):
    """What a command wants done when its lease runs out; it may only tighten the agent's failsafe."""

    RELEASE = "release"
    HOLD_LIMIT = "hold-limit"


class Target(Message, frozen=True, kw_only=True):
    """Where a command goes."""

    node: Name
    actuator: Name


class Command(Message, frozen=True, kw_only=True):
    """An order with a lease. ``id`` makes it idempotent, ``epoch`` and ``seq`` put it in order.

    ``workload`` says what to do with the program that the target is; which program that is, the node alone knows.
    """

    v: int = PROTOCOL
    id: Annotated[str, msgspec.Meta(min_length=8, max_length=64, pattern=r"^[0-9a-zA-Z-]+\Z")]
    issuer: Name
    epoch: Seq
    seq: Seq
    target: Target
    action: Action
    limit_w: float | None = None
    profile: Name | None = None
    workload: Verb | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 100
    issued_at: Annotated[datetime, msgspec.Meta(tz=True)]
    ttl_s: Annotated[float, msgspec.Meta(ge=TTL_MIN_S, le=TTL_MAX_S)]
    on_expiry: Expiry = Expiry.RELEASE
    renews: str | None = None
    reason: Text = ""


class AckState(enum.StrEnum):
    """How far a command has come; a command reaches exactly one of the terminal states."""

    RECEIVED = "received"
    APPLIED = "applied"
    RELEASED = "released"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    FAILED = "failed"


TERMINAL: Final = frozenset(
    {AckState.RELEASED, AckState.EXPIRED, AckState.SUPERSEDED, AckState.REJECTED, AckState.FAILED}
)


class Effect(enum.StrEnum):
    """What the meter says of an applied limit."""

    PENDING = "pending"
    VERIFIED = "verified"
    INEFFECTIVE = "ineffective"


class Ack(Message, frozen=True, kw_only=True):
    """An agent's word on one command. ``code`` says why it was rejected, failed or clamped."""

    id: str
    issuer: str
    epoch: Count
    seq: Count
    actuator: str
    state: AckState
    effect: Effect = Effect.PENDING
    code: Text = ""
    detail: Text = ""
    requested_w: float | None = None
    applied_w: float | None = None
    readback_w: float | None = None
    measured_w: float | None = None
    clamped: bool = False
    t_received_us: Count = 0
    t_us: Count = 0
    boot_id: str = ""


class LimitState(Message, frozen=True, kw_only=True):
    """What limits a node now; retained, for people and other tools. ``note`` is the device's own word."""

    actuator: Name
    desired_w: float | None
    effective_w: float | None
    profile: str | None = None
    workload: WorkloadState | None = None
    source: Text
    state: Text
    valid_until: Annotated[datetime, msgspec.Meta(tz=True)] | None
    note: Text = ""


# --- microgrid --------------------------------------------------------------------------------------------------------


class ActorState(Message, frozen=True, kw_only=True):
    """One actor in a step: site power (production +) and quality."""

    name: str
    p_w: float
    quality: Quality


class MicrogridState(Message, frozen=True, kw_only=True):
    """One step's outcome, for people and other tools; retained. ``t`` is the simulated instant at its end."""

    microgrid: Name
    step: Count
    steps_total: int | None
    t: Annotated[datetime, msgspec.Meta(tz=True)]
    actors: list[ActorState]
    p_delta_w: float
    p_battery_w: float
    p_grid_w: float
    p_unserved_w: float
    p_curtailed_w: float
    soc: float | None
    min_soc: float | None
    charge_power_w: float | None
    islanded: bool
    carbon_g_per_kwh: float | None
    price_per_mwh: float | None
    emissions_g: float
    quality: Quality


# --- topics -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeTopics:
    """The topics of one node."""

    base: str

    @property
    def birth(self) -> str:
        """Who the agent is; retained."""
        return f"{self.base}/birth"

    @property
    def state(self) -> str:
        """Presence and books; retained, and the agent's will."""
        return f"{self.base}/state"

    @property
    def data(self) -> str:
        """Batches of samples."""
        return f"{self.base}/data"

    @property
    def data_ack(self) -> str:
        """What the coordinator holds."""
        return f"{self.base}/data/ack"

    @property
    def cmd(self) -> str:
        """Commands; never retained."""
        return f"{self.base}/cmd"

    @property
    def cmd_ack(self) -> str:
        """The agent's word on commands."""
        return f"{self.base}/cmd/ack"

    @property
    def limit(self) -> str:
        """What limits the node now; retained."""
        return f"{self.base}/limit"

    def last(self, meter: str) -> str:
        """The newest value of one meter."""
        return f"{self.base}/last/{meter}"


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of a site; a site is one coordinator's domain. ``node("+")`` gives subscription filters."""

    site: str

    @property
    def root(self) -> str:
        """The prefix of every topic."""
        return f"wattloop/v{PROTOCOL}/{self.site}"

    def node(self, node: str) -> NodeTopics:
        """The topics of a node."""
        return NodeTopics(f"{self.root}/node/{node}")

    @property
    def coordinator_state(self) -> str:
        """The coordinator's presence; retained, and its will."""
        return f"{self.root}/coordinator/state"

    @property
    def heartbeat(self) -> str:
        """The coordinator's sign of life."""
        return f"{self.root}/coordinator/heartbeat"

    def signal(self, name: str) -> str:
        """A signal from another system."""
        return f"{self.root}/signal/{name}"

    def microgrid(self, name: str) -> str:
        """A microgrid's newest step."""
        return f"{self.root}/microgrid/{name}/state"

    def node_of(self, topic: str) -> tuple[str, str] | None:
        """Node and the rest of a node topic: ``…/node/jetson-1/cmd/ack`` gives ``("jetson-1", "cmd/ack")``."""
        prefix = f"{self.root}/node/"
        if not topic.startswith(prefix):
            return None
        node, slash, rest = topic[len(prefix) :].partition("/")
        return (node, rest) if slash else None


# --- encode and decode ------------------------------------------------------------------------------------------------

M = TypeVar("M", bound=Message)

_encoder = msgspec.json.Encoder()
_decoders: dict[type[Message], msgspec.json.Decoder[Message]] = {}
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NO_STRUCTURE = bytes(set(_NO_BRACKETS) - set(b'"'))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def encode(message: Message) -> bytes:
    """The message as JSON bytes."""
    return _encoder.encode(message)


def decode(payload: bytes, kind: type[M]) -> M:
    """The message in ``payload``. Raises WireError with code ``too_large``, ``too_deep`` or ``malformed``."""
    if len(payload) > MAX_BYTES:
        raise WireError("too_large", f"{len(payload)} bytes, at most {MAX_BYTES} are taken")
    _refuse_depth(payload)
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        message = decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("malformed", f"not a {kind.__name__}: {error}") from error
    _refuse_duplicate_keys(payload)
    assert isinstance(message, kind)  # noqa: S101  # the decoder was made for this type
    return message


def _refuse_depth(payload: bytes) -> None:
    # Each pass peels one level of brackets off; it is C code, so that a batch of 100 records costs microseconds. The
    # expression that takes strings out costs as much as the decoder: only for strings that hold brackets or escapes.
    brackets = payload.translate(_ONE_KIND, _NO_STRUCTURE).replace(b'""', b"")
    if b'"' in brackets or b"\\" in payload:
        brackets = _STRING.sub(b"", payload).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if b"[]" in brackets or brackets.count(b"[") > MAX_DEPTH:  # else a few that do not match: the decoder says where
        raise WireError("too_deep", f"nested deeper than {MAX_DEPTH}")


def _refuse_duplicate_keys(payload: bytes) -> None:
    # Looks back from each colon, not forward from each string: a batch has hundreds of strings and four keys. What is
    # no key after all, or the end of one with a colon in it, can only make a full parse needed, not spare one.
    keys = [before.rstrip() for before in payload.split(b":")[:-1]]
    keys = [before[before.rfind(b'"', 0, -1) :] for before in keys if before.endswith(b'"')]
    if len(keys) == len(set(keys)) and b"\\" not in payload:
        return
    # The same name may stand in two objects of a list, and an escape may hide one: only a full parse tells.
    try:
        json.loads(payload, object_pairs_hook=_unique)
    except ValueError as error:  # in a key that nobody asked for: bad UTF-8, or thousands of digits
        if isinstance(error, WireError):
            raise
        raise WireError("malformed", f"not JSON: {error}") from error


def _unique(pairs: list[tuple[str, object]]) -> None:
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise WireError("malformed", f"key {name!r} appears more than once in one object")
        seen.add(name)
