from pathlib import Path

import pytest

from agent.cli import main
from agent.statedir import StateDir


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "agent.yaml"
    meters = "[{name: host, kind: cpu, idle_w: 5, max_w: 20}]"
    path.write_text(f"{{site: lab, node: jetson-1, state_dir: state, meters: {meters}}}\n")
    return path


def test_locking_and_unlocking_may_be_repeated(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    switch = StateDir(config.parent / "state").switch
    switch.parent.mkdir()
    for _ in range(2):
        assert main(["lock", "--config", str(config)]) == 0
        assert switch.exists()
    assert main(["status", "--config", str(config)]) == 1
    assert "locked: `wattloop-agent unlock`" in capsys.readouterr().out
    for _ in range(2):
        assert main(["unlock", "--config", str(config)]) == 0
        assert not switch.exists()


def test_before_any_agent_ran_it_is_refused_plainly(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "--config", str(config)]) == 1
    missing = config.parent / "state"
    expected = f"wattloop-agent lock: {missing} does not exist: no agent has run with this configuration yet\n"
    assert capsys.readouterr().err == expected
