"""Which folder a run is kept in, and when it goes on with one that is there."""

from argparse import Namespace
from pathlib import Path

import msgspec
import pytest

from coordinator.commands.run import run_folder
from coordinator.ledger import Ledger
from coordinator.loop import RunSnapshot
from coordinator.records import StepCommit, StepTime
from coordinator.run import SCENARIO_TEXT
from coordinator.stepper import StepperSnapshot
from coordinator.timeline import Timeline
from hil.clock import SystemClock

TEXT = "name: lab\n"


async def leave(run_dir: Path, *, k: int, text: str = TEXT) -> Path:
    """A run that stopped before step ``k`` of 10."""
    ledger = Ledger(run_dir, SystemClock())
    await ledger.open()
    ledger.set_meta(SCENARIO_TEXT, text)
    timeline = Timeline(start_us=0, real_start_us=0, interval_s=1.0, speed=1.0, steps=10)
    stepper = StepperSnapshot(microgrids={}, controllers=[])
    snapshot = RunSnapshot(k=k, timeline=timeline, stepper=stepper, demands=[], held=[])
    await ledger.commit_step(StepCommit(k - 1, (), StepTime(k - 1, 0, 0.0, 0.0), (), (), msgspec.json.encode(snapshot)))
    await ledger.close()
    return run_dir


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text(TEXT)
    return path


def chosen(runs: Path, scenario: Path) -> Path:
    return run_folder(Namespace(runs=runs, scenario=scenario), "lab")


async def test_the_newest_run_of_the_same_scenario_goes_on(tmp_path: Path, scenario: Path) -> None:
    await leave(tmp_path / "runs" / "20260101-000000-lab", k=3)
    newest = await leave(tmp_path / "runs" / "20260102-000000-lab", k=5)
    assert chosen(tmp_path / "runs", scenario) == newest


async def test_an_edited_scenario_begins_a_new_run(tmp_path: Path, scenario: Path) -> None:
    old = await leave(tmp_path / "runs" / "20260101-000000-lab", k=3, text=f"{TEXT}speed: 2\n")
    assert chosen(tmp_path / "runs", scenario) != old


async def test_a_run_that_is_over_is_not_taken_up(tmp_path: Path, scenario: Path) -> None:
    old = await leave(tmp_path / "runs" / "20260101-000000-lab", k=10)
    assert chosen(tmp_path / "runs", scenario) != old


def test_without_any_run_one_begins_there(tmp_path: Path, scenario: Path) -> None:
    fresh = chosen(tmp_path / "runs", scenario)
    assert fresh.parent == tmp_path / "runs"
    assert fresh.name.endswith("-lab")
