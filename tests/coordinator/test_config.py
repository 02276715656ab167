"""The scenario file: what it may say, and how every fault of it is told."""

import math
from pathlib import Path

import pytest

from coordinator.config import NodeConfig, ScenarioConfig
from coordinator.scenario import Overrides, load_config
from hil.yamlfile import ConfigError

MINIMAL = """\
name: lab-day
microgrids:
  - name: lab
    actors: [{kind: node, node: jetson-1, nameplate_w: 20}]
"""

WHOLE = """\
name: lab-day
site: lab
broker: {url: "mqtt://broker.lab:1883"}
start: 2026-03-08T00:00:00-08:00
until: 2026-03-09T00:00:00-07:00
timezone: America/Los_Angeles
interval_s: 60
speed: 60
state_dir: /var/lib/wattloop
signals:
  carbon: {kind: constant, value: 412, unit: g/kWh}
  price: {kind: external, unit: EUR/kWh, max_age_s: 600}
microgrids:
  - name: lab
    carbon: carbon
    price: price
    actors:
      - {kind: node, node: jetson-1, nameplate_w: 20, meters: [gateway/outlet-1, jetson-1/ina]}
      - {kind: node, name: inverter, node: roof-gateway, nameplate_w: 300, role: producer}
      - {kind: constant, name: lights, role: load, power_w: 5}
    storage: {kind: lossless, capacity_wh: 250, soc: 0.6, min_soc: 0.5, max_charge_w: 100}
    grid: {import_limit_w: 100}
    policy: {charge_power_w: 40, islanded: true}
controllers:
  - rules:
      - {name: night, when: {signals: {carbon: {at_least: 400}}}, then: [{do: limit, node: jetson-1, limit_w: 7.5}]}
commands: {ttl_s: 30, priority: 200}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scenario.yaml"


def read(path: Path, text: str) -> ScenarioConfig:
    path.write_text(text, encoding="utf-8")
    return load_config(path).value


def faults(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    return [str(fault).removeprefix(str(path)) for fault in raised.value.faults]


def test_little_is_needed(path: Path) -> None:
    config = read(path, MINIMAL)
    assert (config.site, config.interval_s, config.speed, config.steps) == ("lab", 1.0, 1.0, None)
    assert config.broker.url == "mqtt://127.0.0.1:1883"
    assert (config.commands.ttl_s, config.commands.priority) == (60.0, 100)
    (node,) = config.nodes()
    assert (node.actor, node.role, node.meters) == ("jetson-1", "load", [])


def test_everything_may_be_said(path: Path) -> None:
    config = read(path, WHOLE)
    (microgrid,) = config.microgrids
    inverter = microgrid.actors[1]
    assert isinstance(inverter, NodeConfig)
    assert (inverter.actor, inverter.node, inverter.role) == ("inverter", "roof-gateway", "producer")
    assert microgrid.storage is not None
    assert (microgrid.storage.max_charge_w, microgrid.storage.max_discharge_w) == (100.0, None)


def test_a_day_on_which_the_clocks_change_has_its_own_length(path: Path) -> None:
    assert read(path, WHOLE).run_s == 23 * 3600.0
    assert read(path, WHOLE).steps == 23 * 60


def test_a_command_line_may_overrule_the_file(path: Path) -> None:
    path.write_text(WHOLE, encoding="utf-8")
    config = load_config(path, Overrides("mqtt://127.0.0.1:9", duration_s=120.0, speed=750.0)).value
    assert (config.broker.url, config.steps, config.speed) == ("mqtt://127.0.0.1:9", 2, 750.0)
    assert load_config(path).value.speed == 60.0


def test_what_a_command_line_says_is_checked_too(path: Path) -> None:
    path.write_text(WHOLE, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"speed 1e\+06 is a step every 6e-05 s: expected at least 0.02 s"):
        load_config(path, Overrides(speed=1e6))
    with pytest.raises(ConfigError, match="speed is 0, expected a number above 0"):
        load_config(path, Overrides(speed=0.0))
    with pytest.raises(ConfigError, match="duration is nan, expected a number above 0"):
        load_config(path, Overrides(duration_s=math.nan))
    with pytest.raises(ConfigError, match="expected mqtt://host"):
        load_config(path, Overrides(broker_url="http://broker.lab"))


def test_a_duration_from_the_command_line_is_cut_to_whole_steps(path: Path) -> None:
    path.write_text(WHOLE, encoding="utf-8")
    steps = [load_config(path, Overrides(duration_s=seconds)).value.steps for seconds in (1.0, 60.0, 119.0, 180.0)]
    assert steps == [1, 1, 1, 3]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("start: 2026-03-08T00:00:00-08:00", "start: 2026-03-08T00:00:00", ":4: start: "),
        (
            "start: 2026-03-08T00:00:00-08:00",
            "",
            ":5: until: 2026-03-09 00:00:00-07:00: expected an instant after start",
        ),
        ("until: 2026-03-09T", "until: 2026-03-07T", ":5: until: 2026-03-07 00:00:00-07:00: expected an instant after"),
        (
            "until: 2026-03-09T00:00:00-07:00",
            "until: 2026-03-09T00:00:30-07:00",
            ":5: until: 82830 s: expected a multiple",
        ),
        ("speed: 60", "duration_s: 60", ":5: until: 2026-03-09 00:00:00-07:00: expected either until or duration_s"),
        ("start: 2026", "start: 1926", ":4: start: 1926-03-08 00:00:00-08:00: expected a year from 1970 to 2200"),
        ("speed: 60", "speed: 0", ":8: speed: 0: expected float > 0.0"),
        (
            "speed: 60",
            "speed: 6000",
            ":7: interval_s: 60 s at speed 6000 is a step every 0.01 s: expected at least 0.02",
        ),
        ("speed: 60", "sped: 60", ":8: sped: 60: unknown key, did you mean speed?"),
        ("speed: 60", "speed: .nan", ":8: speed: nan: expected a finite number"),
        ("America/Los_Angeles", "America", ":6: timezone: America: expected an IANA time zone"),
        ("America/Los_Angeles", "../../etc/passwd", ":6: timezone: ../../etc/passwd: expected an IANA time zone"),
        ("America/Los_Angeles", "Mars/Base", ":6: timezone: Mars/Base: expected an IANA time zone"),
        ("mqtt://broker.lab:1883", "http://broker.lab", ":3: broker: "),
        ("unit: g/kWh", "unit: g/kwh", ":11: signals.carbon.unit: g/kwh: expected one of W, mW"),
        ("unit: g/kWh", "unit: W", ":15: microgrids[0].carbon: carbon, in W: expected a signal of carbon intensity"),
        (
            "carbon: carbon",
            "carbon: co2",
            ":15: microgrids[0].carbon: co2: no such signal, expected one of carbon, price",
        ),
        ("price: price", "price: carbon", ":16: microgrids[0].price: carbon, in g/kWh: expected a signal of price"),
        (", max_age_s: 600", "", ":12: signals.price.max_age_s: missing: expected a number"),
        ("kind: external", "kind: live", ":12: signals.price.kind: live: expected one of"),
        ("nameplate_w: 20,", "", ":18: microgrids[0].actors[0].nameplate_w: missing: expected a number"),
        ("nameplate_w: 20", "nameplate_w: -20", ":18: microgrids[0].actors[0].nameplate_w: -20: expected float > 0.0"),
        ("gateway/outlet-1", "outlet-1", ":18: microgrids[0].actors[0].meters[0]: outlet-1: expected str matching"),
        ("jetson-1/ina", "gateway/outlet-1", ":18: microgrids[0].actors[0].meters[1]: gateway/outlet-1: given twice"),
        ("node: roof-gateway", "node: jetson-1", ":19: microgrids[0].actors[1].node: jetson-1: given twice"),
        ("name: lights", "name: jetson-1", ":20: microgrids[0].actors[2].name: jetson-1: given twice"),
        ("role: load, ", "", ":20: microgrids[0].actors[2].role: missing"),
        ("role: load", "role: consumer", ":20: microgrids[0].actors[2].role: consumer: expected one of load, producer"),
        ("soc: 0.6", "soc: -0.1", ":21: microgrids[0].storage.soc: -0.1: expected float >= 0.0"),
        ("min_soc: 0.5", "min_soc: 50", ":21: microgrids[0].storage.min_soc: 50: expected float <= 1.0"),
        ("capacity_wh: 250", "capacity_wh: 0", ":21: microgrids[0].storage.capacity_wh: 0: expected float > 0.0"),
        ("kind: lossless", "kind: flywheel", ":21: microgrids[0].storage: "),
        (
            "import_limit_w: 100",
            "import_limit_w: -1",
            ":22: microgrids[0].grid.import_limit_w: -1: expected float >= 0.0",
        ),
        ("  - rules:", "  - microgrid: other\n    rules:", ":25: controllers[0].microgrid: other: no such microgrid"),
        ("signals: {carbon: {", "signals: {co2: {", ":26: controllers[0].rules[0]: co2: no such signal"),
        ("node: jetson-1, limit_w", "node: jetson-9, limit_w", ":26: controllers[0].rules[0]: jetson-9: no such node"),
        ("  - rules:", "  - class: a:B\n    rules:", ":25: controllers[0]: "),
        ("ttl_s: 30", "ttl_s: 1", ":27: commands.ttl_s: 1: expected float >= 5.0"),
        ("priority: 200", "priority: 2000", ":27: commands.priority: 2000: expected int <= 1000"),
    ],
)
def test_a_fault_names_line_key_value_and_what_was_expected(path: Path, old: str, new: str, told: str) -> None:
    assert WHOLE.count(old) >= 1
    (fault,) = faults(path, WHOLE.replace(old, new, 1))
    assert fault.startswith(told)


def test_a_charge_power_needs_a_storage(path: Path) -> None:
    storage = "    storage: {kind: lossless, capacity_wh: 250, soc: 0.6, min_soc: 0.5, max_charge_w: 100}\n"
    (fault,) = faults(path, WHOLE.replace(storage, ""))
    assert fault == ":22: microgrids[0].policy.charge_power_w: 40.0: needs a storage, expected one beside it"


def test_with_several_microgrids_a_controller_names_its_own(path: Path) -> None:
    second = "  - {name: lab, actors: [{kind: constant, name: a, role: load, power_w: 1}]}\ncontrollers:"
    found = faults(path, WHOLE.replace("controllers:", second))
    assert found == [
        ":24: microgrids[1].name: lab: given twice, expected each once in the scenario",
        ":26: controllers[0].microgrid: missing: no such microgrid, expected one of lab, lab",
    ]


def test_the_only_kind_of_storage_need_not_be_named(path: Path) -> None:
    assert read(path, WHOLE.replace("kind: lossless, ", "")).microgrids[0].storage is not None


def test_all_faults_come_at_once(path: Path) -> None:
    text = WHOLE.replace("timezone: America/Los_Angeles", "timezone: x").replace("carbon: carbon", "carbon: y")
    text = text.replace("node: roof-gateway", "node: jetson-1").replace("unit: EUR/kWh", "unit: EUR")
    assert [fault.split(":")[1] for fault in faults(path, text)] == ["6", "12", "15", "19"]


def test_no_microgrid_or_no_actor_is_a_fault(path: Path) -> None:
    assert "length >= 1" in faults(path, "name: a\nmicrogrids: []\n")[0]
    assert "length >= 1" in faults(path, "name: a\nmicrogrids: [{name: b, actors: []}]\n")[0]
    assert len(faults(path, "")) == 2
