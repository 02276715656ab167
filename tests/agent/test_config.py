from pathlib import Path

import pytest

from agent.config import Setup, load_setup
from agent.gate import Mode
from agent.meters.cpu import CpuMeter
from agent.meters.modbus import ModbusMeter
from agent.meters.replay import ReplayMeter
from agent.spool import Sync
from hil.clock import ManualClock
from hil.yamlfile import ConfigError

SHORT = """
site: lab
node: jetson-1
meters:
  - {name: host, kind: cpu, idle_w: 5, max_w: 20}
"""


def load(folder: Path, text: str, **environment: str) -> Setup:
    path = folder / "agent.yaml"
    path.write_text(text)
    return load_setup(path, ManualClock(), environment)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return [str(fault).replace(f"{folder}/", "") for fault in caught.value.faults]


def test_a_short_configuration_has_careful_defaults(tmp_path: Path) -> None:
    setup = load(tmp_path, SHORT)
    config = setup.config
    assert config.mode is Mode.OBSERVE
    assert config.interval_s == 1.0
    assert config.failsafe_limit().limit_w is None
    assert (config.spool.sync, config.spool.bounds.max_bytes, config.spool.bounds.max_age_s) == (
        Sync.TICK,
        256 << 20,
        7 * 86400,
    )
    assert config.measured_by(config.meters[0]) == "jetson-1"
    assert config.interval_of(config.meters[0]) == 1.0
    assert setup.broker.url == "mqtt://127.0.0.1:1883"
    assert setup.actuators == ()


def test_everything_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("t_s,power_w\n0,1\n")
    setup = load(
        tmp_path,
        """
site: lab
node: gateway
broker: {url: "mqtt://192.0.2.1:1884"}
state_dir: state
mode: act
interval_s: 0.05
nameplate_w: 30
failsafe: {limit_w: 7.5}
meters:
  - {name: outlet-1, kind: modbus, host: 192.0.2.9, profile: wattloop-pdu, outlet: 1, measures: jetson-1}
  - {name: trace, kind: replay, file: trace.csv, interval_s: 2}
  - {name: host, kind: cpu, curve_w: [44, 55, 61, 67, 73, 79, 86, 93, 101, 110, 119], trust: good}
actuators:
  - {name: board, kind: emulated, node: jetson-1, port: 5021, min_w: 5, max_w: 20}
spool: {max_mib: 10, max_age_days: 0.5, sync: 10s}
""",
    )
    config = setup.config
    assert setup.state_dir == tmp_path / "state"
    assert [type(meter) for meter in setup.meters] == [ModbusMeter, ReplayMeter, CpuMeter]
    assert [meter.name for meter in setup.meters] == ["outlet-1", "trace", "host"]
    assert [config.interval_of(meter) for meter in config.meters] == [0.05, 2.0, 0.05]
    assert [config.measured_by(meter) for meter in config.meters] == ["jetson-1", "gateway", "gateway"]
    assert [actuator.name for actuator in setup.actuators] == ["board"]
    assert config.failsafe_limit().limit_w == 7.5
    assert config.spool.sync is Sync.TEN_SECONDS
    assert config.spool.bounds.max_age_s == 43200


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, "/var/lib/wattloop-agent"),
        ({"STATE_DIRECTORY": "/var/lib/x"}, "/var/lib/x"),
        ({"STATE_DIRECTORY": "/a:/b"}, "/a"),
    ],
)
def test_state_lies_where_systemd_says_unless_the_file_does(
    tmp_path: Path, environment: dict[str, str], folder: str
) -> None:
    assert load(tmp_path, SHORT, **environment).state_dir == Path(folder)
    assert load(tmp_path, "state_dir: here" + SHORT, **environment).state_dir == tmp_path / "here"


def test_all_faults_are_told_at_once_with_line_key_value_and_remedy(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """
site: Lab
nodes: jetson-1
interval_s: 0.001
mode: on
meters:
  - {name: a, kind: cpu, idle_w: 5}
  - {name: a, kind: modbos}
  - {name: b, kind: cpu, idle_w: five, max_w: 20}
spool: {sync: never}
""",
    )
    # YAML reads a bare "on" as true.
    assert [fault.split(": ")[:2] for fault in found] == [
        ["agent.yaml:2", "site"],
        ["agent.yaml:2", "node"],
        ["agent.yaml:3", "nodes"],
        ["agent.yaml:4", "interval_s"],
        ["agent.yaml:5", "mode"],
        ["agent.yaml:7", "meters[0]"],
        ["agent.yaml:8", "meters[1].kind"],
        ["agent.yaml:9", "meters[2].idle_w"],
        ["agent.yaml:10", "spool.sync"],
    ]
    assert found[2].endswith("nodes: jetson-1: unknown key, did you mean node?")
    assert found[5].endswith("expected either idle_w and max_w, or curve_w with 11 values")
    assert found[6].endswith("modbos: expected one of modbus, rapl, cpu, replay")


def test_faults_across_keys_and_files_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("t_s,power_w\n0,x\n")
    found = faults(
        tmp_path,
        """
site: lab
node: n
broker: {username: u, password_file: nowhere}
meters:
  - {name: a, kind: replay, file: trace.csv}
  - {name: a, kind: modbus, host: 127.0.0.1, profile: no-such-profile}
  - {name: c, kind: cpu, idle_w: 1, max_w: 2, interval_s: 0.01}
actuators:
  - {name: board, kind: emulated, node: n, port: 5021, min_w: 5, max_w: 20}
  - {name: board, kind: emulated, node: n, port: 5022, min_w: 5, max_w: 20}
""",
    )
    places = [fault.split(": ")[0] + " " + fault.split(": ")[1] for fault in found]
    assert sorted(places) == sorted(
        [
            "nowhere password_file",
            "agent.yaml:6 meters[0].name",
            "agent.yaml:7 meters[1].name",
            "trace.csv:2 power_w",
            "agent.yaml:7 meters[1].profile",
            "agent.yaml:8 meters[2].interval_s",
            "agent.yaml:10 actuators[0].name",
            "agent.yaml:11 actuators[1].name",
        ]
    )


@pytest.mark.parametrize("meters", ["", "meters: []", "meters: {}"])
def test_an_agent_without_meters_is_refused(tmp_path: Path, meters: str) -> None:
    found = faults(tmp_path, f"site: lab\nnode: n\n{meters}\n")
    assert len(found) == 1
    assert "meters" in found[0]


@pytest.mark.parametrize("failsafe", ["open", "{limit_w: -1}", "{limit: 5}", "7.5", "{limit_w: .nan}"])
def test_a_failsafe_is_release_or_a_limit(tmp_path: Path, failsafe: str) -> None:
    found = faults(tmp_path, f"failsafe: {failsafe}{SHORT}")
    assert found
    assert all(": failsafe" in fault for fault in found)
