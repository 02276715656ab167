from pathlib import Path

import pytest

from agent.cli import main
from agent.statedir import StateDir
from hil.emulated.sysfs import Tree

POLICY = "devices/system/cpu/cpufreq/policy0"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tree = Tree(tmp_path / "sys")
    tree.begin()
    for name, text in {"cpuinfo_min_freq": "1", "cpuinfo_max_freq": "9000", "scaling_max_freq": "8000"}.items():
        tree.write(f"{POLICY}/{name}", text)
    path = tmp_path / "agent.yaml"
    path.write_text(f"""
site: lab
node: jetson-1
state_dir: state
meters: [{{name: host, kind: cpu, idle_w: 5, max_w: 5}}]
actuators: [{{name: cores, kind: cpufreq, modes: {{eco: {{max_mhz: 2}}}}, sysfs_root: {tmp_path / "sys"}}}]
""")
    return path


def calibrate(config: Path, *options: str) -> int:
    return main(["calibrate", *options, "--config", str(config), "--points", "2", "--hold", "0.3"])


def test_a_meter_that_sees_no_difference_is_told_and_the_frequency_put_back(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(config, "cores", "--profile", "half") == 1
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["0.001 MHz: 5.00 W", "9 MHz: 5.00 W"]
    assert said[2].startswith("wattloop-agent calibrate: the meter shows no more power at a higher frequency")
    assert (config.parent / "sys" / POLICY / "scaling_max_freq").read_text() == "8000\n"
    assert main(["restore", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "nothing to restore\n"


def test_an_actuator_that_is_none(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(config, "board") == 1
    expected = "wattloop-agent calibrate: no cpufreq actuator board in the configuration; there: cores\n"
    assert capsys.readouterr().err == expected


def test_beside_a_running_agent_it_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = StateDir(config.parent / "state")
    running.acquire()
    assert calibrate(config, "cores") == 1
    assert "in use by another agent" in capsys.readouterr().err
    running.release()
