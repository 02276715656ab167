"""scenario.yaml as structs; docs/reference/scenario.md explains every key.

Rules that span keys stand in ``coordinator.coherence``; what a scenario names in other files (traces, user code) is
read by ``coordinator.assembly``.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec

from coordinator.controllers.rules import Fraction, PowerW, Rule
from coordinator.microgrid.step import Role
from coordinator.signals.series import Beyond
from hil.brokerconfig import BrokerConfig
from hil.wire import TTL_MAX_S, TTL_MIN_S, Name, Watts
from hil.yamlfile import Section

Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e12)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=4e9)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
MeterPath = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}/[a-z0-9][a-z0-9-]{0,62}\Z")]


# --- signals ----------------------------------------------------------------------------------------------------------


class ForecastFile(Section, frozen=True, kw_only=True):
    """A forecast trace that belongs to a signal; in the signal's unit."""

    file: str
    column: str | None = None
    issued_column: str = "issued"
    time_column: str = "time"


class TraceSignal(Section, frozen=True, kw_only=True, tag_field="kind", tag="trace"):
    """A signal from a CSV trace."""

    file: str
    unit: str
    column: str | None = None
    time_column: str | None = None
    beyond: Beyond | None = None
    forecast: ForecastFile | None = None


class ForecastSignal(Section, frozen=True, kw_only=True, tag_field="kind", tag="forecast"):
    """A signal of which only forecasts are known."""

    file: str
    unit: str
    column: str | None = None
    issued_column: str = "issued"
    time_column: str = "time"


class ConstantSignal(Section, frozen=True, kw_only=True, tag_field="kind", tag="constant"):
    """A signal that never changes."""

    value: Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
    unit: str


class ExternalSignal(Section, frozen=True, kw_only=True, tag_field="kind", tag="external"):
    """A signal that another system sends over MQTT."""

    unit: str
    max_age_s: Seconds


SignalConfig = TraceSignal | ForecastSignal | ConstantSignal | ExternalSignal


# --- microgrids -------------------------------------------------------------------------------------------------------


class NodeConfig(Section, frozen=True, kw_only=True, tag_field="kind", tag="node"):
    """An actor that is a real computer."""

    name: Name | None = None
    node: Name
    nameplate_w: Positive
    role: Role = Role.LOAD
    meters: list[MeterPath] = msgspec.field(default_factory=list)

    @property
    def actor(self) -> str:
        """The actor's name: the node's, unless another is given."""
        return self.name or self.node


class TraceConfig(Section, frozen=True, kw_only=True, tag_field="kind", tag="trace"):
    """An actor whose power stands in a CSV trace."""

    name: Name
    role: Role
    file: str
    column: str | None = None
    time_column: str | None = None
    unit: str = "W"
    beyond: Beyond | None = None

    @property
    def actor(self) -> str:
        """The actor's name."""
        return self.name


class ConstantConfig(Section, frozen=True, kw_only=True, tag_field="kind", tag="constant"):
    """An actor whose power never changes."""

    name: Name
    role: Role
    power_w: Watts

    @property
    def actor(self) -> str:
        """The actor's name."""
        return self.name


ActorConfig = NodeConfig | TraceConfig | ConstantConfig


class LosslessConfig(Section, frozen=True, kw_only=True, tag_field="kind", tag="lossless"):
    """A battery that gives back all it took."""

    capacity_wh: Positive
    soc: Fraction
    min_soc: Fraction = 0.0
    max_charge_w: PowerW | None = None
    max_discharge_w: PowerW | None = None


class GridConfig(Section, frozen=True, kw_only=True):
    """A connection to the public grid; no limit where none is given."""

    import_limit_w: PowerW | None = None
    export_limit_w: PowerW | None = None


class PolicyConfig(Section, frozen=True, kw_only=True):
    """What holds at the start; controllers change it."""

    charge_power_w: PowerW | None = None
    islanded: bool = False


class MicrogridConfig(Section, frozen=True, kw_only=True):
    """One microgrid."""

    name: Name
    actors: Annotated[list[ActorConfig], msgspec.Meta(min_length=1)]
    storage: LosslessConfig | None = None
    grid: GridConfig | None = None
    policy: PolicyConfig = PolicyConfig()
    carbon: Name | None = None
    price: Name | None = None


# --- controllers ------------------------------------------------------------------------------------------------------


class ControllerConfig(Section, frozen=True, kw_only=True):
    """User code or rules, bound to a microgrid."""

    microgrid: Name | None = None
    class_: str | None = msgspec.field(name="class", default=None)
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    rules: list[Rule] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.class_ is None) == (not self.rules):
            raise ValueError("expected either class or rules")
        if self.rules and self.args:
            raise ValueError("args go with class, rules take none")


class CommandsConfig(Section, frozen=True, kw_only=True):
    """How commands go to nodes. ``ttl_s`` is real time."""

    ttl_s: Annotated[float, msgspec.Meta(ge=TTL_MIN_S, le=TTL_MAX_S)] = 60.0
    priority: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 100


class ScenarioConfig(Section, frozen=True, kw_only=True):
    """A whole scenario.yaml."""

    name: Name
    site: Name = "lab"
    broker: BrokerConfig = BrokerConfig()
    start: Instant | None = None
    until: Instant | None = None
    duration_s: Seconds | None = None
    timezone: str = "UTC"
    interval_s: Seconds = 1.0
    speed: Positive = 1.0
    state_dir: str | None = None
    signals: dict[Name, SignalConfig] = msgspec.field(default_factory=dict)
    microgrids: Annotated[list[MicrogridConfig], msgspec.Meta(min_length=1)]
    controllers: list[ControllerConfig] = msgspec.field(default_factory=list)
    commands: CommandsConfig = CommandsConfig()

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which controllers see the time."""
        return ZoneInfo(self.timezone)

    @property
    def run_s(self) -> float | None:
        """Simulated seconds that the run lasts; None until it is stopped."""
        if self.until is not None and self.start is not None:
            return (self.until - self.start).total_seconds()
        return self.duration_s

    @property
    def steps(self) -> int | None:
        """How many steps the run has; None until it is stopped."""
        return None if self.run_s is None else round(self.run_s / self.interval_s)

    def nodes(self) -> Iterator[NodeConfig]:
        """The real computers of all microgrids."""
        for microgrid in self.microgrids:
            yield from (actor for actor in microgrid.actors if isinstance(actor, NodeConfig))
