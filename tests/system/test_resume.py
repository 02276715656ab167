"""A coordinator that dies, comes back, or meets another one."""

import asyncio
import itertools
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Lab

pytestmark = pytest.mark.system

CAPACITY_WH = 10.0


async def test_a_killed_coordinator_goes_on_where_it_was(
    lab: "Lab", command: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    lab.write_scenario(limit_after_s=1.0)
    coordinator = await lab.start("--duration", "10", "--drain", "30")
    await lab.until(lab.run.effects)
    for epoch, pause_s in ((2, 0.0), (3, 1.5)):  # a few steps to make up for, and more than are made up for
        await lab.kill(coordinator)
        before = lab.run.steps()
        assert await lab.cap_w() == 7.5
        await asyncio.sleep(pause_s)
        coordinator = await lab.coordinate("--duration", "10", "--drain", "30")
        await lab.until(lambda epoch=epoch: lab.run.epochs()[-1] == epoch)
        assert await lab.cap_w() == 7.5  # the lease outlived its coordinator, and was taken over
        steps = lab.run.steps()
        assert steps[: len(before)] == before
        assert steps[len(before)].k == before[-1].k + 1
        assert steps[len(before)].kind in ({"gap"} if pause_s else {"catch-up", "gap"})
    summary = await lab.finish(coordinator, 100)

    steps = lab.run.steps()
    assert sum(step.dt_s for step in steps) == pytest.approx(100.0, abs=1.0)
    for last, step in itertools.pairwise(steps):
        assert step.soc == pytest.approx(last.soc - step.p_battery_w * step.dt_s / 3600 / CAPACITY_WH, abs=1e-9)
    assert lab.run.epochs() == [1, 2, 3]
    assert [len(set(words)) for words in lab.run.last_words().values()] == [1] * 4
    assert lab.run.kinds().count("resumed") == 2
    samples = summary["microgrids"][0]["samples"]
    assert samples["committed"] == samples["generated"] > 70
    assert samples["lost"] == 0
    stored, different = lab.run.samples()
    assert stored == different == samples["committed"]
    replayed = command("wattloop-coordinator", "replay", lab.run.run_dir)
    assert (replayed.returncode, replayed.stderr) == (0, "")
    assert replayed.stdout == f"{len(steps)} steps computed again: identical, byte for byte\n"


async def test_a_second_coordinator_is_turned_away_unless_it_takes_over(lab: "Lab") -> None:
    lab.write_scenario(limit_after_s=1.0)
    first = await lab.start()
    await lab.until(lab.run.effects)

    here, elsewhere = await lab.coordinate(name="-here"), await lab.coordinate(name="-elsewhere", state="elsewhere")
    for second, why in ((here, "another coordinator of this site runs here"), (elsewhere, "epoch 1); stop it, or")):
        assert await asyncio.wait_for(second.process.wait(), 30.0) == 1
        [told] = [line for line in second.log.read_text().splitlines() if "wattloop-coordinator run:" in line]
        assert why in told
    assert first.running

    third = await lab.coordinate("--take-over", name="-third", state="elsewhere")
    assert await asyncio.wait_for(first.process.wait(), 30.0) == 1
    [told] = [line for line in first.log.read_text().splitlines() if "wattloop-coordinator run:" in line]
    assert told.endswith("; this one ends, and leaves the nodes to it")
    await lab.until(lambda: third.log.read_text().count("limit-verified"))
    assert third.running
    assert await lab.cap_w() == 7.5
