"""What a scenario's keys must be to each other: names that exist, once; units that fit; times that add up."""

from collections.abc import Iterable
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from coordinator.config import (
    ControllerConfig,
    MicrogridConfig,
    NodeConfig,
    ScenarioConfig,
    TraceConfig,
)
from coordinator.controllers.rules import Rule
from coordinator.signals.table import FIRST_YEAR, LAST_YEAR
from coordinator.signals.unit import CARBON, POWER, PRICE, Unit, unit_of
from hil.yamlfile import Document, Key

SHORTEST_STEP_S: Final = 0.02


def note_faults(document: Document[ScenarioConfig]) -> None:
    """Note in ``document`` everything that does not fit together."""
    _Coherence(document).note()


class _Coherence:
    def __init__(self, document: Document[ScenarioConfig]) -> None:
        self._document = document
        self._config = document.value
        self._add = document.add

    def note(self) -> None:
        self._note_times()
        for name, signal in self._config.signals.items():
            self._unit(("signals", name, "unit"), signal.unit)
        microgrids = self._config.microgrids
        self._note_twice((("microgrids", index, "name"), grid.name) for index, grid in enumerate(microgrids))
        self._note_nodes()
        for index, microgrid in enumerate(microgrids):
            self._note_microgrid(("microgrids", index), microgrid)
        for index, controller in enumerate(self._config.controllers):
            self._note_controller(("controllers", index), controller)

    def _note_times(self) -> None:
        config = self._config
        real_s = config.interval_s / config.speed
        if real_s < SHORTEST_STEP_S:
            told = f"{config.interval_s:g} s at speed {config.speed:g} is a step every {real_s:.3g} s"
            self._add(("interval_s",), told, f"expected at least {SHORTEST_STEP_S:g} s of real time")
        try:
            ZoneInfo(config.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self._add(("timezone",), config.timezone, "expected an IANA time zone, as in America/Los_Angeles")
        for key, instant in (("start", config.start), ("until", config.until)):
            if instant is not None and not FIRST_YEAR <= instant.year <= LAST_YEAR:
                self._add((key,), instant, f"expected a year from {FIRST_YEAR} to {LAST_YEAR}")
        if config.until is not None and config.duration_s is not None:
            self._add(("until",), config.until, "expected either until or duration_s, not both")
            return
        if config.until is not None and (config.start is None or config.until <= config.start):
            self._add(("until",), config.until, "expected an instant after start, which must be given as well")
            return
        steps = (config.run_s or 0.0) / config.interval_s
        if config.run_s is not None and (abs(steps - round(steps)) > 1e-9 * steps or round(steps) < 1):
            key = "until" if config.duration_s is None else "duration_s"
            self._add((key,), f"{config.run_s:g} s", f"expected a multiple of interval_s, {config.interval_s:g} s")

    def _note_nodes(self) -> None:
        nodes, meters = [], []
        for index, microgrid in enumerate(self._config.microgrids):
            for place, actor in enumerate(microgrid.actors):
                if isinstance(actor, NodeConfig):
                    key: Key = ("microgrids", index, "actors", place)
                    nodes.append(((*key, "node"), actor.node))
                    meters += [((*key, "meters", n), meter) for n, meter in enumerate(actor.meters)]
        self._note_twice(nodes)
        self._note_twice(meters)

    def _note_microgrid(self, key: Key, microgrid: MicrogridConfig) -> None:
        actors = enumerate(microgrid.actors)
        self._note_twice(((*key, "actors", place, "name"), actor.actor) for place, actor in actors)
        for place, actor in enumerate(microgrid.actors):
            if isinstance(actor, TraceConfig):
                self._unit((*key, "actors", place, "unit"), actor.unit, POWER)
        if microgrid.storage is None and microgrid.policy.charge_power_w is not None:
            value = microgrid.policy.charge_power_w
            self._add((*key, "policy", "charge_power_w"), value, "needs a storage, expected one beside it")
        for use, quantity in (("carbon", CARBON), ("price", PRICE)):
            self._note_signal_use((*key, use), getattr(microgrid, use), quantity)

    def _note_signal_use(self, key: Key, name: str | None, quantity: str) -> None:
        if name is None:
            return
        if name not in self._config.signals:
            self._add(key, name, self._known("signal", self._config.signals))
            return
        signal = self._config.signals[name]
        unit = self._unit(None, signal.unit)
        if unit is not None and unit.quantity != quantity:
            self._add(key, f"{name}, in {unit.text}", f"expected a signal of {quantity}")

    def _note_controller(self, key: Key, controller: ControllerConfig) -> None:
        names = [microgrid.name for microgrid in self._config.microgrids]
        if controller.microgrid is None and len(names) > 1:
            self._add((*key, "microgrid"), "missing", self._known("microgrid", names))
        elif controller.microgrid is not None and controller.microgrid not in names:
            self._add((*key, "microgrid"), controller.microgrid, self._known("microgrid", names))
        rules = controller.rules
        self._note_twice(((*key, "rules", index, "name"), rule.name) for index, rule in enumerate(rules))
        for index, rule in enumerate(rules):
            self._note_rule((*key, "rules", index), rule)

    def _note_rule(self, key: Key, rule: Rule) -> None:
        nodes = [node.node for node in self._config.nodes()]
        for name in sorted(rule.signals() - set(self._config.signals)):
            self._add(key, name, self._known("signal", self._config.signals))
        for node in sorted(rule.nodes() - set(nodes)):
            self._add(key, node, self._known("node", nodes))

    def _note_twice(self, named: Iterable[tuple[Key, str]]) -> None:
        seen: dict[str, Key] = {}
        for key, name in named:
            if name in seen:
                self._add(key, name, "given twice, expected each once in the scenario")
            seen[name] = key

    def _unit(self, key: Key | None, text: str, quantity: str | None = None) -> Unit | None:
        try:
            unit = unit_of(text)
        except ValueError as error:
            if key is not None:
                self._add(key, text, str(error))
            return None
        if key is not None and quantity is not None and unit.quantity != quantity:
            self._add(key, text, f"expected a unit of {quantity}")
        return unit

    @staticmethod
    def _known(what: str, names: Iterable[str]) -> str:
        known = ", ".join(names)
        return f"no such {what}, expected one of {known}" if known else f"the scenario has no {what}"
