from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

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
from coordinator.controllers.rules import Rule, Rules, Window
from hil.yamlfile import ConfigError, Section, load

See = Callable[..., Observation]


class RulesFile(Section, frozen=True, kw_only=True):
    rules: list[Rule]


def rules_from(path: Path, text: str) -> Rules:
    path.write_text(f"rules:\n{text}", encoding="utf-8")
    return Rules(load(path, RulesFile).value.rules)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rules.yaml"


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 4, 15, hour, minute, tzinfo=UTC)


def test_a_rule_asks_once_and_ends_when_it_no_longer_holds(path: Path, see: See) -> None:
    rules = rules_from(
        path,
        """
  - name: empty
    when: {soc: {at_most: 0.5}}
    then: [{do: limit, node: jetson-1, limit_w: 7.5}]
    afterwards: [{do: release, node: jetson-1}]
""",
    )
    assert list(rules.step(see(soc=0.6))) == []
    assert list(rules.step(see(soc=0.5))) == [Limit("jetson-1", 7.5, "empty")]
    assert list(rules.step(see(soc=0.4))) == []
    assert list(rules.step(see(soc=0.51))) == [Release("jetson-1", "empty ends")]
    assert list(rules.step(see(soc=0.5))) == [Limit("jetson-1", 7.5, "empty")]


def test_until_gives_hysteresis(path: Path, see: See) -> None:
    rules = rules_from(
        path,
        """
  - name: refill
    when: {soc: {at_most: 0.5}, signals: {carbon: {at_most: 60}}}
    then: [{do: charge, power_w: 40}]
    until: {soc: {at_least: 0.8}}
    afterwards: [{do: charge}]
""",
    )
    assert list(rules.step(see(soc=0.5, carbon=61.0))) == []
    assert list(rules.step(see(soc=0.5, carbon=60.0))) == [ChargePower(40.0, "refill")]
    assert list(rules.step(see(soc=0.7, carbon=400.0))) == []
    assert list(rules.step(see(soc=0.8, carbon=400.0))) == [ChargePower(None, "refill ends")]


def test_while_until_holds_a_rule_does_not_begin(path: Path, see: See) -> None:
    rules = rules_from(
        path,
        """
  - name: night
    when: {time: {from: "20:00", to: "08:00"}}
    then: [{do: island}]
    until: {time: {from: "06:00", to: "20:00"}}
    afterwards: [{do: connect}]
""",
    )
    assert [list(rules.step(see(time=at(hour)))) for hour in (19, 20, 5)] == [[], [Island(True, "night")], []]
    assert list(rules.step(see(time=at(6)))) == [Island(False, "night ends")]
    assert list(rules.step(see(time=at(7)))) == []


def test_what_is_unknown_does_not_hold(path: Path, see: See) -> None:
    rules = rules_from(
        path,
        """
  - {name: soc, when: {soc: {at_least: 0}}, then: [{do: note, text: a}]}
  - {name: carbon, when: {signals: {carbon: {at_least: 0}}}, then: [{do: note, text: b}]}
""",
    )
    assert list(rules.step(see(soc=None, carbon=None))) == []


def test_every_kind_of_action_and_condition(path: Path, see: See) -> None:
    rules = rules_from(
        path,
        """
  - name: all
    when: {p_delta_w: {at_least: -20, at_most: -10}, p_grid_w: {at_most: -1}}
    then:
      - {do: min_soc, soc: 0.3}
      - {do: charge, power_w: 0}
      - {do: island}
      - {do: connect}
      - {do: profile, node: a, profile: eco}
      - {do: note, text: now}
""",
    )
    expected: list[Action] = [
        MinSoc(0.3, "all"),
        ChargePower(0.0, "all"),
        Island(True, "all"),
        Island(False, "all"),
        Profile("a", "eco", "all"),
        Note("all: now"),
    ]
    assert list(rules.step(see(p_delta_w=-21.0, p_grid_w=-5.0))) == []
    assert list(rules.step(see(p_delta_w=-15.0, p_grid_w=-5.0))) == expected


@pytest.mark.parametrize(
    ("start", "end", "inside", "outside"),
    [("18:00", "20:00", [(18, 0), (19, 59)], [(17, 59), (20, 0)]), ("20:00", "06:00", [(20, 0), (5, 59)], [(6, 0)])],
)
def test_a_window_has_its_start_and_not_its_end(
    start: str, end: str, inside: list[tuple[int, int]], outside: list[tuple[int, int]]
) -> None:
    window = Window(from_=start, to=end)
    assert all(window.holds(at(*time)) for time in inside)
    assert not any(window.holds(at(*time)) for time in outside)


def test_rules_in_effect_survive_a_crash(path: Path, see: See) -> None:
    text = "  - {name: low, when: {soc: {at_most: 0.5}}, then: [{do: island}], afterwards: [{do: connect}]}\n"
    before, after = rules_from(path, text), rules_from(path, text)
    assert list(before.step(see(soc=0.5))) == [Island(True, "low")]
    after.restore(before.snapshot())
    assert list(after.step(see(soc=0.5))) == []
    assert list(after.step(see(soc=0.6))) == [Island(False, "low ends")]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{name: a, when: {time: {from: 18:00, to: 20:00}}, then: [{do: island}]}", "times of day in quotes"),
        (
            '{name: a, when: {time: {from: "24:00", to: "06:00"}}, then: [{do: island}]}',
            "rules[0].when.time.from: 24:00",
        ),
        ("{name: a, when: {}, then: [{do: island}]}", "expected at least one of soc"),
        ("{name: a, when: {soc: {}}, then: [{do: island}]}", "expected at_least, at_most, or both"),
        ("{name: a, when: {soc: {below: 1}}, then: [{do: island}]}", "rules[0].when.soc.below: 1: unknown key"),
        ("{name: a, when: {soc: {at_most: 1}}, then: [{do: sell}]}", "rules[0].then[0].do: sell: expected one of"),
        ("{name: a, when: {soc: {at_most: 1}}, then: [{do: min_soc, soc: 30}]}", "rules[0].then[0].soc: 30"),
        ("{name: a, when: {soc: {at_most: 1}}, then: []}", "length >= 1"),
        ("{name: a, when: {soc: {at_most: 1}}}", "rules[0].then: missing"),
    ],
)
def test_faults_name_their_key(path: Path, rule: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        rules_from(path, f"  - {rule}\n")
    assert told in str(raised.value)
    assert len(raised.value.faults) == 1
