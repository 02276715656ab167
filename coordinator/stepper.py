"""One step of a whole scenario: inputs to balances to decisions. Pure: no clock, no bus, no disk.

The live loop and the replay run this same code; given the same inputs it gives the same rows, bit for bit.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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
from coordinator.controllers.bound import BoundController
from coordinator.controllers.decision import ActionError, observe, settings_after
from coordinator.microgrid.actors import ModelActor, NodeActor
from coordinator.microgrid.engine import MicrogridSnapshot
from coordinator.microgrid.step import ActorInput, Settings, StepInput, StepResult
from coordinator.records import InputRow, InputSource, SignalRow, StepKind, StepRow
from coordinator.scenario import Composition, Scenario
from coordinator.timeline import Timeline
from hil.units import MICROSECONDS_PER_SECOND

log = logging.getLogger(__name__)

BALANCE_TOLERANCE = 1e-9

ActorKey = tuple[str, str]
"""Microgrid and actor."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something worth an event, before it is stamped."""

    microgrid: str | None
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What a controller wants of a node."""

    source: str
    microgrid: str
    action: Limit | Profile | Release

    def happening(self) -> Happening:
        """The wish as something to tell."""
        why = f": {self.action.reason}" if self.action.reason else ""
        match self.action:
            case Limit(node=node, limit_w=limit_w):
                return Happening(self.microgrid, "limit", f"{node} to {limit_w:g} W{why}")
            case Profile(node=node, profile=profile):
                return Happening(self.microgrid, "profile", f"{node} to {profile}{why}")
            case Release(node=node):
                return Happening(self.microgrid, "release", f"{node}{why}")


@dataclass(slots=True)
class Outcome:
    """A step's rows, what the controllers want of nodes, and what is worth telling."""

    rows: list[StepRow] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)


class StepperSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that the scenario's objects need to go on after a crash; controllers in the scenario's order."""

    microgrids: dict[str, MicrogridSnapshot]
    controllers: list[object]


class Stepper:
    """A scenario's microgrids and controllers, stepped together."""

    def __init__(self, scenario: Scenario, timeline: Timeline) -> None:
        self._scenario = scenario
        self._timeline = timeline
        self._failing: dict[str, int] = {}
        self._stateless: set[str] = set()

    def step(
        self,
        k: int,
        kind: StepKind,
        dt_s: float,
        measured: Mapping[ActorKey, InputRow],
        signals: Iterable[SignalRow] = (),
        *,
        decide: bool,
    ) -> Outcome:
        """Step every microgrid over ``dt_s`` simulated seconds from step ``k``'s start.

        ``measured`` has the input of each node actor, ``signals`` what other systems sent. With ``decide`` the
        controllers run after it; what they change holds from the next step on.
        """
        for signal in signals:
            self._scenario.externals[signal.name].take_up(signal.value)
        outcome = Outcome()
        for part in self._scenario.microgrids:
            result, inputs, row = self._balance(part, k, kind, dt_s, measured)
            outcome.rows.append(row)
            self._check_balance(part, result, outcome)
            if decide:
                self._decide(part, k, result, inputs, outcome)
        return outcome

    def snapshot(self) -> StepperSnapshot:
        """The state after the last step."""
        return StepperSnapshot(
            microgrids={part.name: part.microgrid.snapshot() for part in self._scenario.microgrids},
            controllers=[self._state_of(bound) for bound in self._scenario.controllers],
        )

    def restore(self, snapshot: StepperSnapshot) -> None:
        """Take up where ``snapshot`` was taken. Raises what user code raises: a run must not resume half restored."""
        for part in self._scenario.microgrids:
            if part.name in snapshot.microgrids:
                part.microgrid.restore(snapshot.microgrids[part.name])
        for bound, state in zip(self._scenario.controllers, snapshot.controllers, strict=False):
            if state is not None:
                bound.restore(state)

    def _state_of(self, bound: BoundController) -> object:
        try:
            return msgspec.to_builtins(bound.snapshot())
        except Exception as error:  # user code is supervised here
            if bound.name not in self._stateless:
                self._stateless.add(bound.name)
                log.warning(
                    "controller %s keeps no state over a restart: its snapshot failed", bound.name, exc_info=error
                )
            return None

    def _balance(
        self, part: Composition, k: int, kind: StepKind, dt_s: float, measured: Mapping[ActorKey, InputRow]
    ) -> tuple[StepResult, list[ActorInput], StepRow]:
        name = part.name
        start_us = self._timeline.simulated_us(k)
        end_us = start_us + round(dt_s * MICROSECONDS_PER_SECOND)
        rows = [
            measured[name, actor.name] if isinstance(actor, NodeActor) else _modelled(actor, start_us, end_us)
            for actor in part.actors
        ]
        inputs = [
            ActorInput(actor.name, actor.role, row.power_w, row.quality, row.age_s)
            for actor, row in zip(part.actors, rows, strict=True)
        ]
        carbon = part.carbon_g_per_kwh(start_us, end_us)
        price = part.price_per_mwh(start_us, end_us)
        given = StepInput(k, start_us, dt_s, tuple(inputs), carbon, price)
        result = part.microgrid.step(given)
        return result, inputs, StepRow(name, kind, tuple(rows), carbon, price, result)

    def _check_balance(self, part: Composition, result: StepResult, outcome: Outcome) -> None:
        largest = max([1.0, abs(result.p_grid_w), abs(result.p_battery_w), *map(abs, result.p_actors_w)])
        if abs(result.residual_w) > BALANCE_TOLERANCE * largest:
            outcome.happenings.append(
                Happening(part.name, "imbalance", f"step {result.k} leaves {result.residual_w} W")
            )

    def _decide(
        self, part: Composition, k: int, result: StepResult, inputs: list[ActorInput], outcome: Outcome
    ) -> None:
        end_us = self._timeline.simulated_us(k + 1)
        for bound in self._scenario.controllers:
            if bound.microgrid != part.name:
                continue
            # Controllers live on the grid of steps: by a clock a millisecond early, 20:00 would come a step late.
            signals = self._scenario.signals_at(end_us)
            seen = observe(part.microgrid, inputs, result, signals, self._scenario.zone, end_us)
            actions = self._call(bound, seen, outcome)
            self._take(part, bound, actions, outcome)

    def _call(self, bound: BoundController, seen: Observation, outcome: Outcome) -> list[Action]:
        """The controller's actions; one that fails asks for nothing, and the run goes on without it."""
        try:
            actions = bound.decide(seen)
        except Exception as error:  # user code is supervised here
            self._failing[bound.name] = self._failing.get(bound.name, 0) + 1
            if self._failing[bound.name] == 1:
                if not isinstance(error, ActionError):
                    log.warning("controller %s failed", bound.name, exc_info=error)
                detail = f"{bound.name}: {type(error).__name__}: {error}"
                outcome.happenings.append(Happening(bound.microgrid, "controller-failed", detail))
            return []
        failures = self._failing.pop(bound.name, 0)
        if failures:
            detail = f"{bound.name} works again after {failures} failed steps"
            outcome.happenings.append(Happening(bound.microgrid, "controller-recovered", detail))
        return actions

    def _take(self, part: Composition, bound: BoundController, actions: Iterable[Action], outcome: Outcome) -> None:
        for action in actions:
            match action:
                case Note(text=text):
                    outcome.happenings.append(Happening(bound.microgrid, "note", text))
                case Limit() | Profile() | Release():
                    outcome.asks.append(Ask(bound.name, bound.microgrid, action))
                case _:
                    before = part.microgrid.settings
                    after = settings_after(before, [action])
                    if after != before:
                        part.microgrid.change(after)
                        outcome.happenings.append(_change(bound.microgrid, action, before))


def _modelled(actor: ModelActor, start_us: int, end_us: int) -> InputRow:
    given = actor.input(start_us, end_us)
    return InputRow(actor.name, given.power_w, given.quality, InputSource.MODEL)


def _change(microgrid: str, action: MinSoc | ChargePower | Island, before: Settings) -> Happening:
    why = f": {action.reason}" if action.reason else ""
    match action:
        case MinSoc(soc=soc):
            return Happening(microgrid, "min-soc", f"{before.min_soc:.0%} → {soc:.0%}{why}")
        case ChargePower(power_w=None):
            return Happening(microgrid, "charge-power", f"off{why}")
        case ChargePower(power_w=power_w):
            return Happening(microgrid, "charge-power", f"{power_w:g} W{why}")
        case Island(islanded=islanded):
            return Happening(microgrid, "island", f"{'cut off from' if islanded else 'connected to'} the grid{why}")
