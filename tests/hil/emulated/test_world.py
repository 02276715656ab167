import asyncio
import contextlib
from pathlib import Path

import pytest

from hil.clock import ManualClock
from hil.emulated.journal import Journal, JournalError, read_journal
from hil.emulated.load import ConstantLoad
from hil.emulated.node import EmulatedNode
from hil.emulated.world import JOURNAL_EVERY_S, World


def make(journal: Journal | None = None) -> tuple[World, ManualClock, EmulatedNode]:
    clock = ManualClock()
    node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand())
    return World([node], clock, {"jetson-1": journal} if journal else {}), clock, node


async def test_time_begins_at_the_first_look_and_then_follows_the_clock():
    world, clock, node = make()
    await clock.advance(100.0)
    world.advance()
    assert node.energy_j == 0.0
    await clock.advance(2.0)
    world.advance()
    world.advance()
    assert node.energy_j == pytest.approx(30.0)


async def test_the_journal_tells_the_energy_and_the_cap(tmp_path: Path):
    journal = Journal(tmp_path / "n.csv")
    journal.open()
    world, clock, node = make(journal)
    start_us = clock.wall_us()
    running = asyncio.create_task(world.run())
    for _ in range(20):
        await clock.advance(JOURNAL_EVERY_S)
    world.advance()  # the task may be writing just now
    node.cap_w = 7.5
    await clock.advance(2.0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    rows = read_journal(journal.path)
    assert (rows[0].t_us, rows[0].energy_j) == (start_us, 0.0)
    assert (rows[0].cap_w, rows[-1].cap_w) == (None, 7.5)
    assert rows[-1].t_us == start_us + 3_000_000
    assert rows[-1].energy_j == pytest.approx(15.0 + 2 * 7.5, abs=1e-6)
    assert len(rows) >= 3


async def test_a_journal_that_cannot_be_kept_stops_the_world(tmp_path: Path):
    journal = Journal(tmp_path / "gone" / "n.csv")  # never opened, so its folder is missing
    world, clock, _ = make(journal)
    running = asyncio.create_task(world.run())
    while not running.done():
        await clock.advance(JOURNAL_EVERY_S)
    with pytest.raises(JournalError):
        await running
