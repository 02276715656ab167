"""From the text of a scenario to its objects: reads traces and user code, noting every fault in the document."""

import math
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Final, TypeVar

from coordinator.config import (
    ActorConfig,
    ConstantConfig,
    ConstantSignal,
    ControllerConfig,
    ExternalSignal,
    ForecastFile,
    ForecastSignal,
    MicrogridConfig,
    NodeConfig,
    ScenarioConfig,
    SignalConfig,
    TraceConfig,
    TraceSignal,
)
from coordinator.controllers.api import Controller
from coordinator.controllers.bound import BoundController
from coordinator.controllers.rules import Rules
from coordinator.controllers.usercode import UserCodeError, construct, load_class
from coordinator.microgrid.actors import Actor, MeterRef, ModelActor, NodeActor
from coordinator.microgrid.engine import Microgrid
from coordinator.microgrid.grid import Grid
from coordinator.microgrid.step import Settings
from coordinator.microgrid.storage import LosslessBattery
from coordinator.signals.forecast import ForecastTrace, read_forecast
from coordinator.signals.series import Beyond, Series
from coordinator.signals.signal import Constant, External, Forecasted, Signal, Traced
from coordinator.signals.trace import read_trace
from coordinator.signals.unit import NUMBER, Unit, unit_of
from hil.clock import Clock, utc
from hil.yamlfile import ConfigError, Document, Key

T = TypeVar("T")

# What stands for a trace that could not be read, until the document's faults are raised: nobody ever sees its values.
_UNREAD: Final = Series(array("q", [0]), array("d", [0.0]), Beyond.HOLD)


@dataclass(frozen=True, slots=True)
class Assembly:
    """Makes the objects of a scenario that runs from ``start_us`` to ``end_us`` (None: until it is stopped).

    Faults go to ``document``; its ``check`` must follow before any of the objects is used.
    """

    document: Document[ScenarioConfig]
    start_us: int
    end_us: int | None
    clock: Clock

    def signals(self) -> dict[str, Signal]:
        """The named signals."""
        return {name: self._signal(("signals", name), signal) for name, signal in self.document.value.signals.items()}

    def actors(self, microgrid: int) -> tuple[Actor, ...]:
        """The actors of the microgrid that stands at this place in the file."""
        key: Key = ("microgrids", microgrid, "actors")
        actors = self.document.value.microgrids[microgrid].actors
        return tuple(self._actor((*key, place), actor) for place, actor in enumerate(actors))

    def microgrid(self, config: MicrogridConfig) -> Microgrid:
        """The engine of a microgrid."""
        storage, grid, policy = config.storage, config.grid, config.policy
        battery = None
        if storage is not None:
            battery = LosslessBattery(
                storage.capacity_wh,
                storage.soc,
                max_charge_w=_or_unlimited(storage.max_charge_w),
                max_discharge_w=_or_unlimited(storage.max_discharge_w),
            )
        return Microgrid(
            config.name,
            storage=battery,
            grid=None if grid is None else Grid(_or_unlimited(grid.import_limit_w), _or_unlimited(grid.export_limit_w)),
            settings=Settings(
                min_soc=0.0 if storage is None else storage.min_soc,
                charge_power_w=policy.charge_power_w,
                islanded=policy.islanded,
            ),
        )

    def controllers(self) -> tuple[BoundController, ...]:
        """The controllers in the order of the file."""
        config = self.document.value
        nodes = frozenset(node.node for node in config.nodes())
        names: Counter[str] = Counter()
        bound = []
        for index, each in enumerate(config.controllers):
            controller = self._controller(("controllers", index), each)
            name = each.class_ or "rules"
            names[name] += 1
            if names[name] > 1:
                name = f"{name} #{names[name]}"
            if controller is not None:
                bound.append(BoundController(name, each.microgrid or config.microgrids[0].name, controller, nodes))
        return tuple(bound)

    def _signal(self, key: Key, config: SignalConfig) -> Signal:
        unit = _unit(config.unit)
        match config:
            case TraceSignal(forecast=forecast):
                series = self._series(key, config, unit)
                return Traced(series, None if forecast is None else self._forecast(forecast, unit))
            case ForecastSignal():
                return Forecasted(self._forecast(config, unit))
            case ConstantSignal(value=value):
                return Constant(value * unit.factor)
            case ExternalSignal(max_age_s=max_age_s):
                return External(unit, max_age_s, self.clock.monotonic)

    def _actor(self, key: Key, config: ActorConfig) -> Actor:
        match config:
            case NodeConfig(role=role, node=node, nameplate_w=nameplate_w):
                meters = tuple(MeterRef(*path.split("/")) for path in config.meters)
                return NodeActor(config.actor, role, node, meters, nameplate_w)
            case TraceConfig(name=name, role=role):
                return ModelActor(name, role, self._series(key, config, _unit(config.unit)))
            case ConstantConfig(name=name, role=role, power_w=power_w):
                return ModelActor(name, role, Constant(power_w))

    def _controller(self, key: Key, config: ControllerConfig) -> Controller | None:
        if config.class_ is None:
            return Rules(config.rules)
        try:
            kind = load_class(config.class_, self.document.path.parent.resolve())
        except UserCodeError as error:
            self.document.add((*key, "class"), error.value, error.expected)
            return None
        try:
            return construct(kind, config.args)
        except UserCodeError as error:
            self.document.add((*key, "args"), error.value, error.expected)
            return None

    def _series(self, key: Key, config: TraceSignal | TraceConfig, unit: Unit) -> Series:
        path = self.document.resolve(config.file)
        series = self._noting(
            lambda: read_trace(
                path,
                unit=unit,
                start_us=self.start_us,
                column=config.column,
                time_column=config.time_column,
                beyond=config.beyond or Beyond.END,
            ),
            _UNREAD,
        )
        if series is not _UNREAD and config.beyond is not Beyond.END:
            self._note_uncovered(key, series)
        return series

    def _forecast(self, config: ForecastFile | ForecastSignal, unit: Unit) -> ForecastTrace:
        path = self.document.resolve(config.file)
        zone = self._zone()
        return self._noting(
            lambda: read_forecast(
                path,
                unit=unit,
                zone=zone,
                column=config.column,
                issued_column=config.issued_column,
                time_column=config.time_column,
            ),
            ForecastTrace({}, zone),
        )

    def _noting(self, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except ConfigError as error:
            self.document.faults.extend(error.faults)
            return otherwise

    def _note_uncovered(self, key: Key, series: Series) -> None:
        if series.covers(self.start_us, self.end_us):
            return
        told = f"from {self._told(series.start_us)} to {self._told(series.end_us)}"
        start = f"the run starts at {self._told(self.start_us)}"
        if self.start_us < series.start_us:
            self.document.add((*key, "file"), told, f"{start}, expected rows from there on, or `beyond: wrap`")
            return
        end = "has no end" if self.end_us is None else f"ends at {self._told(self.end_us)}"
        self.document.add((*key, "file"), told, f"the run {end}, expected a longer trace, or `beyond: wrap|hold|end`")

    def _told(self, t_us: int) -> str:
        return utc(t_us).astimezone(self._zone()).isoformat(timespec="seconds")

    def _zone(self) -> tzinfo:
        try:
            return self.document.value.zone
        except (LookupError, ValueError, OSError):  # noted already
            return UTC


def _unit(text: str) -> Unit:
    try:
        return unit_of(text)
    except ValueError:  # noted already
        return Unit(text, NUMBER, 1.0)


def _or_unlimited(limit_w: float | None) -> float:
    return math.inf if limit_w is None else limit_w
