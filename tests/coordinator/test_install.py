"""The scenario that ``wattloop-coordinator install`` puts in place."""

import re
from pathlib import Path

from coordinator.install import SERVICE
from coordinator.scenario import load_scenario
from hil.clock import ManualClock


def test_shipped_scenario_runs_until_it_is_stopped(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(SERVICE.config.text(Path("/opt/wattloop")))
    scenario = load_scenario(file, ManualClock())
    assert scenario.steps is None
    assert [node.node for node in scenario.config.nodes()] == ["my-node"]
    assert scenario.controllers == ()


def test_what_it_offers_in_comments_is_right_too(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(re.sub(r"^#(?! \S)", "", SERVICE.config.text(Path("/opt/wattloop")), flags=re.MULTILINE))
    scenario = load_scenario(file, ManualClock())
    assert len(scenario.controllers) == 1
    assert str(scenario.zone) == "Europe/Berlin"
