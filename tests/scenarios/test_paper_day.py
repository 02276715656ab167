"""The paper's day without hardware: engine and controllers, a node that draws 15 W and obeys its limit."""

import importlib.util
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path

import pytest

from coordinator.controllers.api import Action, ChargePower, Island, Limit, MinSoc
from coordinator.controllers.decision import observe, settings_after
from coordinator.microgrid.actors import NodeActor
from coordinator.microgrid.engine import Microgrid
from coordinator.microgrid.step import ActorInput, StepInput, StepResult
from coordinator.scenario import Composition, Scenario, load_scenario
from hil.clock import ManualClock, utc

SCENARIOS = Path(__file__).parents[2] / "scenarios"
DRAWS_W = {"jetson-1": 15.0, "this-machine": 60.0}


@dataclass
class Day:
    """A scenario driven offline: all results and actions of its microgrids, and the limits that stand."""

    scenario: Scenario
    results: dict[str, list[StepResult]] = field(default_factory=dict)
    actions: dict[str, list[tuple[time, Action]]] = field(default_factory=dict)
    limits_w: dict[str, float] = field(default_factory=dict)

    def run(self) -> "Day":
        step_us = round(self.scenario.config.interval_s * 1e6)
        for k in range(self.scenario.steps or 0):
            for each in self.scenario.microgrids:
                self._step(each, k, self.scenario.start_us + k * step_us, step_us)
        return self

    def microgrid(self, name: str) -> Microgrid:
        return next(each.microgrid for each in self.scenario.microgrids if each.name == name)

    def _step(self, each: Composition, k: int, start_us: int, step_us: int) -> None:
        end_us = start_us + step_us
        inputs = tuple(
            ActorInput(actor.name, actor.role, min(DRAWS_W[actor.node], self.limits_w.get(actor.node, 1e9)))
            if isinstance(actor, NodeActor)
            else actor.input(start_us, end_us)
            for actor in each.actors
        )
        carbon, price = each.carbon_g_per_kwh(start_us, end_us), each.price_per_mwh(start_us, end_us)
        result = each.microgrid.step(StepInput(k, start_us, step_us / 1e6, inputs, carbon, price))
        self.results.setdefault(each.name, []).append(result)
        zone = self.scenario.zone
        for bound in self.scenario.controllers:
            if bound.microgrid == each.name:
                seen = observe(each.microgrid, inputs, result, self.scenario.signals_at(end_us), zone, end_us)
                self._take(each, seen.time.time(), bound.decide(seen))

    def _take(self, each: Composition, now: time, actions: list[Action]) -> None:
        each.microgrid.change(settings_after(each.microgrid.settings, actions))
        for action in actions:
            if isinstance(action, Limit):
                if self.limits_w.get(action.node) == action.limit_w:
                    continue
                self.limits_w[action.node] = action.limit_w
            self.actions.setdefault(each.name, []).append((now, action))


@pytest.fixture(scope="module")
def day() -> Day:
    return Day(load_scenario(SCENARIOS / "paper-day.yaml", ManualClock())).run()


def near(actual: time, hour: int, minute: int, within_min: int) -> bool:
    return abs((actual.hour - hour) * 60 + actual.minute - minute) <= within_min


def test_the_story(day: Day) -> None:
    lowered, joined, raised, charged, held, islanded, saving = day.actions["paper"]
    assert near(lowered[0], 1, 40, within_min=5)
    assert isinstance(lowered[1], MinSoc)
    assert lowered[1].soc == 0.3
    assert near(joined[0], 5, 0, within_min=5)
    assert isinstance(joined[1], Island)
    assert not joined[1].islanded
    assert time(10) < raised[0] < time(14)
    assert isinstance(raised[1], MinSoc)
    assert raised[1].soc == 0.5
    assert near(charged[0], 16, 0, within_min=20)
    assert isinstance(charged[1], ChargePower)
    assert charged[1].power_w == 40.0
    assert (held[0], islanded[0]) == (time(18), time(18))
    assert isinstance(held[1], ChargePower)
    assert held[1].power_w is None
    assert isinstance(islanded[1], Island)
    assert islanded[1].islanded
    assert saving[0] == time(20)
    assert isinstance(saving[1], Limit)
    assert (saving[1].node, saving[1].limit_w) == ("jetson-1", 7.5)


def test_every_action_says_why(day: Day) -> None:
    assert all(action.reason for actions in day.actions.values() for _, action in actions)  # type: ignore[union-attr]


def test_the_battery_keeps_its_bounds_and_every_load_is_served(day: Day) -> None:
    for results in day.results.values():
        assert all(0.0 <= result.soc <= 1.0 for result in results if result.soc is not None)
    paper = day.microgrid("paper")
    assert paper.energy.unserved == 0.0
    assert paper.energy.curtailed == 0.0
    assert 0.5 < day.results["paper"][-1].soc < 0.9
    assert min(result.soc for result in day.results["paper"]) == 0.3


def test_the_grid_is_used_when_it_is_clean_and_never_on_the_island(day: Day) -> None:
    imports = [result for result in day.results["paper"] if result.p_grid_w < 0.0]
    zone = day.scenario.zone
    assert all(time(4, 50) < utc(result.t_us).astimezone(zone).time() < time(18) for result in imports)
    in_the_morning = [result for result in imports if utc(result.t_us).astimezone(zone).hour < 12]
    assert max(result.emissions_g / -result.p_grid_w for result in in_the_morning) * 60 * 1000 < 60.0
    assert day.microgrid("paper").emissions_g < 30.0


def test_this_machine_runs_beside_it(day: Day) -> None:
    kinds = [type(action) for _, action in day.actions["this-machine"]]
    assert kinds == [ChargePower, ChargePower]
    assert day.microgrid("this-machine").energy.unserved == 0.0


def test_without_power_saving_the_battery_would_not_last_the_night(day: Day) -> None:
    midnight_soc = day.results["paper"][-1].soc
    until_sunrise_h = 6.6
    assert midnight_soc - 7.5 * until_sunrise_h / 250 > 0.5
    assert midnight_soc - 7.5 * 4 / 250 - 15.0 * until_sunrise_h / 250 < 0.5


def test_the_traces_are_what_their_script_makes(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_paper_day", SCENARIOS / "make_paper_day.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.write(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in SCENARIOS.glob("paper-day-*.csv")}
    assert len(made) == 3
