"""agent.yaml: what this agent is called, whom it talks to, what it measures and what it may limit.

A short one::

    site: lab
    node: jetson-1
    broker: {url: "mqtt://192.0.2.1"}
    meters:
      - {name: outlet-1, kind: modbus, host: 192.0.2.10, profile: wattloop-pdu, outlet: 1}

Relative paths are relative to the file.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from agent.actuators.catalog import AnyActuatorConfig, make_actuator
from agent.gate import Mode
from agent.meters.catalog import AnyMeterConfig, MeterMaker
from agent.spool import SpoolBounds, Sync
from agent.watch import Failsafe
from hil.brokerconfig import BrokerConfig
from hil.clock import Clock
from hil.devices import Actuator, Meter
from hil.wire import Name
from hil.yamlfile import ConfigError, Document, Section, load

STATE_DIR: Final = "/var/lib/wattloop-agent"
SHORTEST_INTERVAL_S: Final = 0.02
SECONDS_PER_DAY: Final = 86_400.0
BYTES_PER_MIB: Final = 1 << 20

Power = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class FailsafeLimit(Section, frozen=True, kw_only=True):
    """A limit in W that holds while the coordinator is silent, for a feeder that must be protected."""

    limit_w: Power


class SpoolConfig(Section, frozen=True, kw_only=True):
    """How much the spool keeps for an absent coordinator, and how hard it presses its commits to the disk."""

    max_mib: Annotated[float, msgspec.Meta(ge=1, le=1_000_000)] = 256
    max_age_days: Annotated[float, msgspec.Meta(gt=0, le=3650)] = 7
    sync: Sync = Sync.TICK

    @property
    def bounds(self) -> SpoolBounds:
        """The bounds in bytes and s."""
        return SpoolBounds(int(self.max_mib * BYTES_PER_MIB), self.max_age_days * SECONDS_PER_DAY)


class AgentConfig(Section, frozen=True, kw_only=True):
    """agent.yaml."""

    site: Name
    node: Name
    broker: BrokerConfig = BrokerConfig()
    state_dir: str | None = None
    mode: Mode = Mode.OBSERVE
    interval_s: Annotated[float, msgspec.Meta(ge=SHORTEST_INTERVAL_S, le=3600)] = 1.0
    nameplate_w: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    failsafe: Literal["release"] | FailsafeLimit = "release"
    meters: Annotated[tuple[AnyMeterConfig, ...], msgspec.Meta(min_length=1)]
    actuators: tuple[AnyActuatorConfig, ...] = ()
    spool: SpoolConfig = SpoolConfig()

    def failsafe_limit(self) -> Failsafe:
        """What holds when a lease has ended and the coordinator is silent."""
        return Failsafe(None if self.failsafe == "release" else self.failsafe.limit_w)

    def interval_of(self, meter: AnyMeterConfig) -> float:
        """A meter's period in s."""
        return meter.interval_s if meter.interval_s is not None else self.interval_s

    def measured_by(self, meter: AnyMeterConfig) -> str:
        """The node whose power a meter reads."""
        return meter.measures if meter.measures is not None else self.node


@dataclass(frozen=True, slots=True)
class Setup:
    """A configuration that holds together, and the devices made from it, in its order and not yet opened."""

    config: AgentConfig
    broker: BrokerConfig
    state_dir: Path
    meters: tuple[Meter, ...]
    actuators: tuple[Actuator, ...]


def load_setup(path: Path, clock: Clock, environment: Mapping[str, str] = os.environ) -> Setup:
    """The setup that a file describes. Raises ConfigError with every fault of it and of the files that it names."""
    document = load(path, AgentConfig)
    config = document.value
    _check_names("meters", [meter.name for meter in config.meters], document)
    _check_names("actuators", [actuator.name for actuator in config.actuators], document)
    _check_intervals(document)
    broker = config.broker.beside(path.parent)
    try:
        broker.access()
    except ConfigError as error:
        document.faults.extend(error.faults)
    maker = MeterMaker(document, clock)
    made = [
        maker.make(meter, ("meters", index), config.interval_of(meter)) for index, meter in enumerate(config.meters)
    ]
    maker.check()
    document.check()
    meters = tuple(meter for meter in made if meter is not None)
    actuators = tuple(make_actuator(actuator, clock) for actuator in config.actuators)
    return Setup(config, broker, _state_dir(document, environment), meters, actuators)


def _check_names(key: str, names: Sequence[str], document: Document[AgentConfig]) -> None:
    counts = Counter(names)
    for index, name in enumerate(names):
        if counts[name] > 1:
            document.add((key, index, "name"), name, f"expected a name that no other of the {key} has")


def _check_intervals(document: Document[AgentConfig]) -> None:
    for index, meter in enumerate(document.value.meters):
        if meter.interval_s is not None and meter.interval_s < SHORTEST_INTERVAL_S:
            expected = f"expected at least {SHORTEST_INTERVAL_S:g} s"
            document.add(("meters", index, "interval_s"), meter.interval_s, expected)


def _state_dir(document: Document[AgentConfig], environment: Mapping[str, str]) -> Path:
    if document.value.state_dir is not None:
        return document.resolve(document.value.state_dir)
    # systemd joins several state directories by colons; the first is the agent's.
    return Path(environment.get("STATE_DIRECTORY", STATE_DIR).partition(":")[0])
