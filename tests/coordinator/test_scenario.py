"""A scenario with its files: traces, forecasts, user code."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.controllers.rules import Rules
from coordinator.microgrid.actors import MeterRef, ModelActor, NodeActor
from coordinator.microgrid.step import ActorInput, Role, Settings
from coordinator.scenario import Overrides, Scenario, load_scenario
from hil.clock import ManualClock
from hil.yamlfile import ConfigError

TEXT = """\
name: lab-day
start: 2026-04-15T00:00:00Z
duration_s: 600
timezone: Europe/Berlin
interval_s: 60
signals:
  carbon: {kind: trace, file: traces.csv, column: carbon, unit: kg/MWh}
  solar: {kind: trace, file: traces.csv, column: solar_kw, unit: kW, forecast: {file: forecast.csv}}
  sun: {kind: forecast, file: forecast.csv, unit: kW}
  price: {kind: external, unit: EUR/MWh, max_age_s: 60}
microgrids:
  - name: lab
    carbon: carbon
    price: price
    actors:
      - {kind: node, node: jetson-1, nameplate_w: 20, meters: [gateway/outlet-1, jetson-1/ina]}
      - {kind: trace, name: solar, role: producer, file: traces.csv, column: solar_kw, unit: kW}
      - {kind: constant, name: lights, role: load, power_w: 5}
    storage: {kind: lossless, capacity_wh: 250, soc: 0.6, min_soc: 0.5, max_charge_w: 30}
    grid: {import_limit_w: 100}
    policy: {charge_power_w: 40}
controllers:
  - {class: "mine:Saving", args: {node: jetson-1}}
  - rules: [{name: night, when: {soc: {at_most: 0.5}}, then: [{do: island}]}]
"""
TRACES = "time,carbon,solar_kw\n2026-04-15T00:00Z,400,0.010\n2026-04-15T00:05Z,50,0.020\n"
FORECAST = "issued,time,value\n2026-04-14T18:00Z,2026-04-15T00:00Z,0.03\n2026-04-15T00:04Z,2026-04-15T00:00Z,0.04\n"
MINE = (
    "class Saving:\n    def __init__(self, node):\n        self.node = node\n    def step(self, seen):\n        pass\n"
)
START_US = round(datetime(2026, 4, 15, tzinfo=UTC).timestamp() * 1e6)
MINUTE_US = 60_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("traces.csv", TRACES), ("forecast.csv", FORECAST), ("mine.py", MINE), ("scenario.yaml", TEXT)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def load(folder: Path, clock: ManualClock | None = None, **how: object) -> Scenario:
    return load_scenario(folder / "scenario.yaml", clock or ManualClock(), **how)  # type: ignore[arg-type]


def change(folder: Path, old: str, new: str, name: str = "scenario.yaml") -> None:
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def faults(folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(folder)
    return [str(fault).removeprefix(f"{folder}/") for fault in raised.value.faults]


def test_a_scenario_comes_alive(folder: Path) -> None:
    scenario = load(folder)
    assert (scenario.start_us, scenario.steps, scenario.site) == (START_US, 10, "lab")
    (lab,) = scenario.microgrids
    node, solar, lights = lab.actors
    assert lab.nodes == (node,)
    assert node == NodeActor(
        "jetson-1", Role.LOAD, "jetson-1", (MeterRef("gateway", "outlet-1"), MeterRef("jetson-1", "ina")), 20.0
    )
    assert isinstance(solar, ModelActor)
    assert isinstance(lights, ModelActor)
    assert lights.input(START_US, START_US + 1) == ActorInput("lights", Role.LOAD, 5.0)
    assert lab.microgrid.settings == Settings(min_soc=0.5, charge_power_w=40.0)
    assert lab.microgrid.storage is not None
    assert lab.microgrid.storage.power_range(60.0, 0.5)[0] == -30.0
    assert lab.microgrid.grid is not None
    assert lab.microgrid.grid.import_limit_w == 100.0
    mine, rules = scenario.controllers
    assert (mine.name, mine.microgrid, mine.nodes) == ("mine:Saving", "lab", frozenset({"jetson-1"}))
    assert isinstance(rules.controller, Rules)


def test_controllers_of_one_kind_are_told_apart(folder: Path) -> None:
    rules = "  - rules: [{name: day, when: {soc: {at_least: 0.9}}, then: [{do: connect}]}]\n"
    change(folder, "controllers:\n", f"controllers:\n{rules}")
    assert [bound.name for bound in load(folder).controllers] == ["rules", "mine:Saving", "rules #2"]


def test_models_and_signals_are_means_over_the_step(folder: Path) -> None:
    (lab,) = load(folder).microgrids
    solar = lab.actors[1]
    assert isinstance(solar, ModelActor)
    across = START_US + 4 * MINUTE_US, START_US + 6 * MINUTE_US
    assert solar.power_w(*across) == pytest.approx(15.0)
    assert lab.carbon_g_per_kwh(*across) == 225.0
    assert lab.price_per_mwh(*across) is None


def test_controllers_see_signals_at_an_instant(folder: Path) -> None:
    scenario = load(folder)
    early, late = scenario.signals_at(START_US), scenario.signals_at(START_US + 5 * MINUTE_US)
    assert [early.value(name) for name in ("carbon", "solar", "sun")] == [400.0, 10.0, 30.0]
    assert [late.value(name) for name in ("carbon", "solar", "sun")] == [50.0, 20.0, 40.0]
    forecast = late.forecast("solar")
    assert forecast is not None
    assert forecast.issued.isoformat() == "2026-04-15T02:04:00+02:00"
    assert forecast.points[0].value == 40.0


def test_signals_from_outside_are_fed_by_name(folder: Path) -> None:
    clock = ManualClock()
    scenario = load(folder, clock)
    (price,) = scenario.externals.values()
    price.receive(json.dumps({"value": 80}).encode(), clock.monotonic())
    price.take_up(price.newest)
    assert scenario.microgrids[0].price_per_mwh(START_US, START_US + 1) == 80.0


def test_without_a_start_a_run_starts_now(folder: Path) -> None:
    change(folder, "start: 2026-04-15T00:00:00Z\n", "")
    change(folder, "solar_kw, unit: kW", "solar_kw, unit: kW, beyond: wrap")
    change(folder, "column: carbon, unit: kg/MWh", "column: carbon, unit: kg/MWh, beyond: hold")
    now = datetime(2026, 6, 21, tzinfo=UTC)
    assert load(folder, ManualClock(now)).start_us == round(now.timestamp() * 1e6)
    assert load(folder, start_us=START_US).start_us == START_US


def test_offsets_in_a_trace_count_from_the_start(folder: Path) -> None:
    (folder / "traces.csv").write_text("time_s,carbon,solar_kw\n0,400,0.01\n300,50,0.02\n", encoding="utf-8")
    scenario = load(folder)
    assert scenario.signals_at(START_US + 5 * MINUTE_US).value("solar") == 20.0


def test_an_actor_whose_trace_is_over_is_gone(folder: Path) -> None:
    change(folder, "solar_kw, unit: kW", "solar_kw, unit: kW, beyond: end")
    change(folder, "column: carbon, unit: kg/MWh", "column: carbon, unit: kg/MWh, beyond: end")
    change(folder, "duration_s: 600", "duration_s: 1200")
    (lab,) = load(folder).microgrids
    solar = lab.actors[1]
    assert isinstance(solar, ModelActor)
    after = START_US + 10 * MINUTE_US, START_US + 11 * MINUTE_US
    assert solar.power_w(*after) == 0.0
    assert lab.carbon_g_per_kwh(*after) is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("duration_s: 600", "duration_s: 660", "the run ends at 2026-04-15T02:11:00+02:00, expected a longer trace"),
        ("duration_s: 600\n", "", "the run has no end, expected a longer trace, or `beyond: wrap|hold|end`"),
        ("start: 2026-04-15T00:00:00Z", "start: 2026-04-14T23:59:00Z", "expected rows from there on"),
    ],
)
def test_a_trace_that_does_not_cover_the_run_is_refused(folder: Path, old: str, new: str, told: str) -> None:
    change(folder, old, new)
    found = faults(folder)
    assert len(found) == 3
    assert all(told in fault for fault in found)
    assert found[0].startswith("scenario.yaml:")
    assert "from 2026-04-15T02:00:00+02:00 to 2026-04-15T02:10:00+02:00" in found[0]


def test_a_longer_run_from_the_command_line_is_checked_against_the_traces(folder: Path) -> None:
    with pytest.raises(ConfigError, match="expected a longer trace"):
        load(folder, overrides=Overrides(duration_s=6000.0))


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        (
            "scenario.yaml",
            "sun: {kind: forecast, file: forecast.csv",
            "sun: {kind: forecast, file: none.csv",
            "none.csv: file:",
        ),
        ("forecast.csv", "0.04", "nan", "forecast.csv:3: column value: nan: expected a number"),
        ("mine.py", "Saving", "Other", "scenario.yaml:23: controllers[0].class: mine:Saving: mine has no class Saving"),
        (
            "scenario.yaml",
            "args: {node: jetson-1}",
            "args: {}",
            "scenario.yaml:23: controllers[0].args: {}: missing a required",
        ),
    ],
)
def test_faults_of_other_files_are_told(folder: Path, name: str, old: str, new: str, told: str) -> None:
    change(folder, old, new, name)
    assert any(fault.startswith(told) for fault in faults(folder))


def test_faults_of_all_files_come_at_once(folder: Path) -> None:
    change(folder, "carbon: carbon", "carbon: co2")
    change(folder, "unit: EUR/MWh", "unit: EUR")
    change(folder, "timezone: Europe/Berlin", "timezone: Berlin")
    change(folder, "50,0.020", ",0.020", "traces.csv")
    change(folder, "mine:Saving", "yours:Saving")
    told = "\n".join(faults(folder))
    for part in ("co2", "EUR:", "Berlin", "traces.csv:3: column carbon: empty", "no installed module yours"):
        assert part in told
