"""Controllers written in YAML.

::

    rules:
      - name: night saving
        when: {time: {from: "20:00", to: "06:00"}, soc: {at_most: 0.8}}
        then: [{do: limit, node: jetson-1, limit_w: 7.5}]
        until: {time: {from: "06:00", to: "20:00"}}
        afterwards: [{do: release, node: jetson-1}]

A rule takes effect when all its conditions hold (and ``until`` does not): its ``then`` is asked for once and stands
until something else is asked for. It ends when ``until`` holds, or without one as soon as ``when`` no longer does; its
``afterwards`` is asked for then. Rules are looked at in order, so that of two that contradict each other in one step
the later one wins. A condition on something unknown does not hold.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated

import msgspec

from coordinator.controllers.api import (
    Action,
    ChargePower,
    Island,
    Limit,
    MinSoc,
    Note,
    Observation,
    Profile,
    Release,
)
from hil.wire import Name
from hil.yamlfile import Section

Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
PowerW = Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]
TimeOfDay = Annotated[str, msgspec.Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z")]


class Band(Section, frozen=True, kw_only=True):
    """A span of values, ends included."""

    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError("expected at_least, at_most, or both")

    def holds(self, value: float | None) -> bool:
        """Whether the value is known and within."""
        if value is None or (self.at_least is not None and value < self.at_least):
            return False
        return self.at_most is None or value <= self.at_most


class Window(Section, frozen=True, kw_only=True):
    """A span of the day in the scenario's zone, through midnight where ``to`` is the earlier; ``to`` is outside."""

    from_: TimeOfDay | int = msgspec.field(name="from")
    to: TimeOfDay | int

    def __post_init__(self) -> None:
        if isinstance(self.from_, int) or isinstance(self.to, int):
            raise ValueError('expected times of day in quotes, as in "18:00": YAML reads 18:00 as the number 1080')

    def holds(self, time: datetime) -> bool:
        """Whether it is now."""
        now, start, end = f"{time:%H:%M}", str(self.from_), str(self.to)
        return start <= now < end if start < end else now >= start or now < end


class Condition(Section, frozen=True, kw_only=True):
    """Bands and a span of the day that must all hold. Powers are site values: import −, export +, deficit −."""

    soc: Band | None = None
    p_delta_w: Band | None = None
    p_grid_w: Band | None = None
    signals: dict[Name, Band] = msgspec.field(default_factory=dict)
    time: Window | None = None

    def __post_init__(self) -> None:
        if not self.signals and not any((self.soc, self.p_delta_w, self.p_grid_w, self.time)):
            raise ValueError("expected at least one of soc, p_delta_w, p_grid_w, signals, time")

    def holds(self, seen: Observation) -> bool:
        """Whether everything asked for is so."""
        soc = None if seen.storage is None else seen.storage.soc
        pairs = [(self.soc, soc), (self.p_delta_w, seen.p_delta_w), (self.p_grid_w, seen.p_grid_w)]
        pairs += [(band, seen.signals.value(name)) for name, band in self.signals.items()]
        in_time = self.time is None or self.time.holds(seen.time)
        return in_time and all(band.holds(value) for band, value in pairs if band is not None)


class Do(Section, frozen=True, kw_only=True, tag_field="do"):
    """Base of what a rule asks for."""

    def action(self, reason: str) -> Action:
        """The same as user code would ask for it."""
        raise NotImplementedError


class DoMinSoc(Do, frozen=True, kw_only=True, tag="min_soc"):
    """Change the minimum soc."""

    soc: Fraction

    def action(self, reason: str) -> Action:
        """The action."""
        return MinSoc(self.soc, reason)


class DoCharge(Do, frozen=True, kw_only=True, tag="charge"):
    """Charge at a power; without one, leave it to the policy again."""

    power_w: PowerW | None = None

    def action(self, reason: str) -> Action:
        """The action."""
        return ChargePower(self.power_w, reason)


class DoIsland(Do, frozen=True, kw_only=True, tag="island"):
    """Leave the grid."""

    def action(self, reason: str) -> Action:
        """The action."""
        return Island(True, reason)


class DoConnect(Do, frozen=True, kw_only=True, tag="connect"):
    """Join the grid."""

    def action(self, reason: str) -> Action:
        """The action."""
        return Island(False, reason)


class DoLimit(Do, frozen=True, kw_only=True, tag="limit"):
    """Limit a node's power."""

    node: Name
    limit_w: PowerW

    def action(self, reason: str) -> Action:
        """The action."""
        return Limit(self.node, self.limit_w, reason)


class DoProfile(Do, frozen=True, kw_only=True, tag="profile"):
    """Put a node into a named mode."""

    node: Name
    profile: Name

    def action(self, reason: str) -> Action:
        """The action."""
        return Profile(self.node, self.profile, reason)


class DoRelease(Do, frozen=True, kw_only=True, tag="release"):
    """End what was asked of a node."""

    node: Name

    def action(self, reason: str) -> Action:
        """The action."""
        return Release(self.node, reason)


class DoNote(Do, frozen=True, kw_only=True, tag="note"):
    """Put a line among the events."""

    text: str

    def action(self, reason: str) -> Action:
        """The action."""
        return Note(f"{reason}: {self.text}")


AnyDo = DoMinSoc | DoCharge | DoIsland | DoConnect | DoLimit | DoProfile | DoRelease | DoNote


class Rule(Section, frozen=True, kw_only=True):
    """When something is so, ask for something."""

    name: str
    when: Condition
    then: Annotated[list[AnyDo], msgspec.Meta(min_length=1)]
    until: Condition | None = None
    afterwards: list[AnyDo] = msgspec.field(default_factory=list)

    def signals(self) -> set[str]:
        """The signals it looks at."""
        return {*self.when.signals, *(self.until.signals if self.until else ())}

    def nodes(self) -> set[str]:
        """The nodes it asks something of."""
        return {do.node for do in (*self.then, *self.afterwards) if isinstance(do, DoLimit | DoProfile | DoRelease)}


class Rules:
    """A controller that follows rules; which of them are in effect survives a crash."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self._active: set[str] = set()

    def step(self, seen: Observation) -> Iterator[Action]:
        """What the rules that begin or end now ask for, in their order."""
        for rule in self._rules:
            if rule.name in self._active:
                if self._ends(rule, seen):
                    self._active.remove(rule.name)
                    yield from (do.action(f"{rule.name} ends") for do in rule.afterwards)
            elif rule.when.holds(seen) and not (rule.until and rule.until.holds(seen)):
                self._active.add(rule.name)
                yield from (do.action(rule.name) for do in rule.then)

    def snapshot(self) -> object:
        """The names of the rules in effect."""
        return sorted(self._active)

    def restore(self, state: object) -> None:
        """Take up a state that ``snapshot`` gave."""
        self._active = {str(name) for name in state} if isinstance(state, list) else set()

    @staticmethod
    def _ends(rule: Rule, seen: Observation) -> bool:
        return rule.until.holds(seen) if rule.until else not rule.when.holds(seen)
