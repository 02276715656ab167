"""The whole loop on real processes, and the controls that show that it is one: broken anywhere, the result shows it."""

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Lab, Recorded

pytestmark = pytest.mark.system

LIMIT_K = 29  # the rule's 20:00 is the end of this step
SHOWN_W = 3.25  # what the altered register shows


@dataclass(frozen=True, slots=True)
class Experiment:
    """A run of three nodes under the same limit, and what it left."""

    summary: dict[str, Any]
    run: "Recorded"
    caps_w: dict[str, float | None]
    logs: str


@pytest.fixture(scope="module")
def experiment(
    tmp_path_factory: pytest.TempPathFactory, new_lab: Callable[..., AbstractAsyncContextManager["Lab"]]
) -> Experiment:
    """Nodes works, unplugged (its cap has no effect) and altered (its power register lies) for 15 s."""

    async def conduct(folder: Path) -> Experiment:
        async with new_lab(folder, "works", "unplugged", "altered") as lab:
            coordinator = await lab.start("--duration", "15", "--drain", "30")
            await lab.until(lambda: len(lab.run.steps("works")) > 10)
            await lab.say(op="unplug", node="unplugged")
            await lab.say(op="override", pdu="pdu-1", outlet=3, quantity="power_w", value=SHOWN_W)
            await lab.until(lambda: lab.run.effects("works"))
            caps_w = {node: await lab.cap_w(node) for node in lab.nodes}
            summary = await lab.finish(coordinator, 150)
            return Experiment(summary, lab.run, caps_w, lab.logs())

    return asyncio.run(conduct(tmp_path_factory.mktemp("experiment")))


def powers_w(run: "Recorded", node: str, first: int, last: int) -> list[float]:
    return [step.power_w for step in run.steps(node) if first <= step.k <= last and step.source == "measured"]


def test_a_limit_goes_through_the_whole_loop_and_the_measured_power_falls(experiment: Experiment) -> None:
    run = experiment.run
    before, after = powers_w(run, "works", 5, LIMIT_K), powers_w(run, "works", LIMIT_K + 20, 149)
    assert len(before) > 15
    assert len(after) > 50
    assert all(abs(power_w - 15.0) <= 1.0 for power_w in before)
    assert all(abs(power_w - 7.5) <= 0.5 for power_w in after)
    assert experiment.caps_w["works"] == 7.5
    [(effect, measured_w)] = run.effects("works")
    assert effect == "verified"
    assert measured_w == pytest.approx(7.5, abs=0.4)
    first = run.commands("works")[0]
    assert first[1:] == ("limit", 7.5)
    assert [ack.state for ack in run.acks() if ack.command_id == first[0]][:2] == ["received", "applied"]
    decided = [k for (k,) in run.rows("SELECT k FROM event WHERE kind = 'limit'")]
    assert len(decided) == 3
    assert all(LIMIT_K <= k <= LIMIT_K + 10 for k in decided)  # a step that is made up for decides nothing


def test_an_unplugged_actuator_leaves_the_power_high_and_its_command_is_ineffective(experiment: Experiment) -> None:
    run = experiment.run
    assert all(abs(power_w - 15.0) <= 1.0 for power_w in powers_w(run, "unplugged", 5, 149))
    assert experiment.caps_w["unplugged"] == 7.5  # written and read back, in vain
    [(effect, measured_w)] = run.effects("unplugged")
    assert effect == "ineffective"
    assert measured_w == pytest.approx(15.0, abs=1.0)
    assert "limit-ineffective" in run.kinds("unplugged")


def test_the_step_follows_the_registers_not_the_node(experiment: Experiment) -> None:
    after = powers_w(experiment.run, "altered", 40, 149)
    assert len(after) > 50
    assert after == [SHOWN_W] * len(after)


def test_the_end_of_the_run_releases_every_node_and_every_command_has_one_last_word(experiment: Experiment) -> None:
    words = experiment.run.last_words()
    assert len(words) == 6  # a limit and a release for each
    assert list(words.values()) == [["released"]] * 6


def test_nothing_is_lost_and_every_step_balances(experiment: Experiment) -> None:
    for part in experiment.summary["microgrids"]:
        samples = part["samples"]
        assert samples["committed"] == samples["generated"] > 100
        assert samples["lost"] == 0
        assert part["balance_residual"] <= 1e-9
    stored, different = experiment.run.samples()
    assert stored == different
    assert "Traceback" not in experiment.logs


def replay(command: Callable[..., "subprocess.CompletedProcess[str]"], run_dir: Path) -> tuple[int, str]:
    result = command("wattloop-coordinator", "replay", run_dir)
    assert result.stderr == ""
    return result.returncode, result.stdout


def test_a_replay_is_identical_until_one_sample_differs_by_a_hundredth_of_a_watt(
    experiment: Experiment, tmp_path: Path, command: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    steps = len(experiment.run.steps("works"))
    assert replay(command, experiment.run.run_dir) == (0, f"{steps} steps computed again: identical, byte for byte\n")
    copy = tmp_path / "copy"
    shutil.copytree(experiment.run.run_dir, copy)
    [(k, seq)] = experiment.run.rows(
        "SELECT k, seq_first FROM inputs WHERE actor = 'works' AND source = 'measured' AND k > 100 LIMIT 1"
    )
    with sqlite3.connect(copy / "ledger.db") as connection:
        changed = connection.execute(
            "UPDATE sample SET power_w = power_w + 0.01 WHERE seq = ? AND stream IN (SELECT stream.id FROM stream "
            "JOIN node ON node.id = stream.node WHERE node.name = 'works')",
            (seq,),
        )
        assert changed.rowcount == 1
    connection.close()
    status, told = replay(command, copy)
    assert status == 1
    assert f"microgrid works, step {k} " in told.splitlines()[0]
    assert "input works" in told


async def test_a_silent_pdu_counts_as_stale_then_estimated_then_nameplate_never_as_zero(lab: "Lab") -> None:
    lab.write_scenario(limit_after_s=None)
    emulated = await lab.emulate()
    await lab.agent()
    coordinator = await lab.coordinate()
    await lab.until(lambda: len(lab.run.measured_w(10)) == 10)
    known = len(lab.run.steps())
    await lab.kill(emulated)
    await lab.until(lambda: lab.run.steps()[-1].source == "nameplate")
    steps = lab.run.steps()
    heard = max(place for place, step in enumerate(steps) if step.quality == "good")
    silence = [("stale", "estimated", "missing").index(step.quality) for step in steps[heard + 1 :]]
    assert silence == sorted(silence)
    assert {1, 2} <= set(silence)
    assert all(step.power_w == pytest.approx(15.0, abs=1.0) for step in steps if step.quality != "missing")
    assert all(step.power_w == 20.0 for step in steps[known:] if step.quality == "missing")
    await lab.emulate()
    known = len(lab.run.steps())
    await lab.until(lambda: [step.quality for step in lab.run.steps()[known:][-5:]] == ["good"] * 5)
    assert coordinator.running
    assert lab.run.measured_w(1)[0] == pytest.approx(15.0, abs=1.0)


async def test_a_broker_that_dies_and_returns_costs_no_sample_and_no_step(lab: "Lab") -> None:
    lab.write_scenario(limit_after_s=1.0)
    coordinator = await lab.start("--duration", "8", "--drain", "30")
    await lab.until(lab.run.effects)
    lab.broker.kill()
    known = len(lab.run.steps())
    await lab.until(lambda: len(lab.run.steps()) > known + 15)
    assert "nameplate" in {step.source for step in lab.run.steps()[known:]}
    assert await lab.cap_w() == 7.5  # the lease stands
    await asyncio.to_thread(lab.broker.start)
    await lab.until(lambda: lab.run.steps()[-1].source == "measured")
    summary = await lab.finish(coordinator, 80)
    samples = summary["microgrids"][0]["samples"]
    assert samples["committed"] == samples["generated"] > 60
    assert samples["lost"] == 0
    stored, different = lab.run.samples()
    assert stored == different == samples["committed"]
    assert sum(step.dt_s for step in lab.run.steps()) == pytest.approx(80.0, abs=1.0)
    assert list(lab.run.last_words().values()) == [["released"]] * 2


async def test_an_agent_killed_under_a_limit_undoes_it_and_is_commanded_anew(lab: "Lab") -> None:
    lab.write_scenario(limit_after_s=1.0)
    coordinator = await lab.start("--duration", "8", "--drain", "30")
    await lab.until(lab.run.effects)
    await lab.kill(lab.agents["jetson-1"])
    assert await lab.cap_w() == 7.5  # nobody is there to lift it
    [(first, *_)] = lab.run.commands()
    await lab.agent()
    await lab.until(lambda: lab.run.last_words()[first])
    await lab.until(lambda: len(lab.run.effects()) == 2)
    [_, (_, action, limit_w)] = lab.run.commands()
    assert (action, limit_w) == ("limit", 7.5)
    assert await lab.cap_w() == 7.5
    summary = await lab.finish(coordinator, 80)
    assert [len(set(words)) for words in lab.run.last_words().values()] == [1, 1, 1]
    samples = summary["microgrids"][0]["samples"]
    assert samples["committed"] == samples["generated"] > 50
    assert samples["lost"] == 0
    assert await lab.cap_w() is None
