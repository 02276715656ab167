"""A scenario come alive: microgrids, signals and controllers, ready for a live run or a simulation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from coordinator.assembly import Assembly
from coordinator.coherence import note_faults
from coordinator.config import ScenarioConfig
from coordinator.controllers.bound import BoundController
from coordinator.microgrid.actors import Actor, NodeActor
from coordinator.microgrid.engine import Microgrid
from coordinator.signals.signal import External, Signal, SignalsAt
from coordinator.signals.table import microseconds
from hil.clock import Clock
from hil.units import MICROSECONDS_PER_SECOND
from hil.yamlfile import ConfigError, Document, Fault, load


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a command line may set in place of the file; None leaves it as it stands there.

    ``duration_s`` is simulated; it is cut to whole steps, but at least one.
    """

    broker_url: str | None = None
    duration_s: float | None = None
    speed: float | None = None

    def apply(self, config: ScenarioConfig) -> ScenarioConfig:
        """The configuration as it is to be run. Raises ValueError for a value that a file could not have either."""
        changes: dict[str, object] = {}
        if self.broker_url is not None:
            changes["broker"] = msgspec.structs.replace(config.broker, url=self.broker_url)
        if self.duration_s is not None:
            steps = max(1, int(_positive("duration", self.duration_s) / config.interval_s + 1e-9))
            changes.update(duration_s=steps * config.interval_s, until=None)
        if self.speed is not None:
            changes["speed"] = _positive("speed", self.speed)
        return msgspec.structs.replace(config, **changes)


AS_WRITTEN = Overrides()


@dataclass(frozen=True, slots=True)
class Composition:
    """A microgrid and what belongs to it: its actors in the order of the balance, its carbon and price signals."""

    microgrid: Microgrid
    actors: tuple[Actor, ...]
    carbon: Signal | None
    price: Signal | None

    @property
    def name(self) -> str:
        """The microgrid's name."""
        return self.microgrid.name

    @property
    def nodes(self) -> tuple[NodeActor, ...]:
        """The actors that are real computers."""
        return tuple(actor for actor in self.actors if isinstance(actor, NodeActor))

    def carbon_g_per_kwh(self, start_us: int, end_us: int) -> float | None:
        """Mean carbon intensity over an interval; None where unknown."""
        return None if self.carbon is None else self.carbon.mean(start_us, end_us)

    def price_per_mwh(self, start_us: int, end_us: int) -> float | None:
        """Mean price over an interval; None where unknown."""
        return None if self.price is None else self.price.mean(start_us, end_us)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything a run needs. ``start_us`` is the simulated instant of the first step; ``steps`` None: no end."""

    config: ScenarioConfig
    path: Path
    start_us: int
    steps: int | None
    zone: ZoneInfo
    microgrids: tuple[Composition, ...]
    signals: Mapping[str, Signal]
    controllers: tuple[BoundController, ...]

    @property
    def site(self) -> str:
        """The site on the wire."""
        return self.config.site

    @property
    def externals(self) -> dict[str, External]:
        """The signals that other systems send, by name."""
        return {name: signal for name, signal in self.signals.items() if isinstance(signal, External)}

    def signals_at(self, t_us: int) -> SignalsAt:
        """All signals as they stand at a simulated instant."""
        return SignalsAt(self.signals, t_us)


def load_config(path: Path, overrides: Overrides = AS_WRITTEN) -> Document[ScenarioConfig]:
    """The scenario's text alone, checked. Raises ConfigError with all faults of the file."""
    document = _read(path, overrides)
    document.check()
    return document


def load_scenario(
    path: Path, clock: Clock, overrides: Overrides = AS_WRITTEN, *, start_us: int | None = None
) -> Scenario:
    """The scenario with its traces and user code. Raises ConfigError with all faults of all its files.

    It starts at ``start_us`` (of a run that is resumed or replayed), else where the file says, else now.
    """
    document = _read(path, overrides)
    config = document.value
    if start_us is None:
        start_us = clock.wall_us() if config.start is None else microseconds(config.start)
    end_us = None if config.run_s is None else start_us + round(config.run_s * MICROSECONDS_PER_SECOND)
    assembly = Assembly(document, start_us, end_us, clock)
    signals = assembly.signals()
    parts = [assembly.actors(index) for index in range(len(config.microgrids))]
    controllers = assembly.controllers()
    document.check()
    return Scenario(
        config=config,
        path=path,
        start_us=start_us,
        steps=config.steps,
        zone=config.zone,
        microgrids=tuple(
            Composition(
                assembly.microgrid(each),
                actors,
                None if each.carbon is None else signals[each.carbon],
                None if each.price is None else signals[each.price],
            )
            for each, actors in zip(config.microgrids, parts, strict=True)
        ),
        signals=signals,
        controllers=controllers,
    )


def _read(path: Path, overrides: Overrides) -> Document[ScenarioConfig]:
    document = load(path, ScenarioConfig)
    try:
        document.value = overrides.apply(document.value)
    except ValueError as error:
        raise ConfigError([Fault("command line", None, "option", "refused", str(error))]) from error
    note_faults(document)
    return document


def _positive(what: str, value: float) -> float:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{what} is {value:g}, expected a number above 0")
    return value
