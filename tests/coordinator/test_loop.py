"""The live loop on a manual clock: pacing, recording, deciding, resuming, and the replay of what it left."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from coordinator.fleet import Fleet, Journal
from coordinator.inputs import Look, NodeInput
from coordinator.ledger import Ledger
from coordinator.ledgerreader import LedgerReader
from coordinator.ledgerschema import ledger_file
from coordinator.loop import CATCH_UP_STEPS, LiveLoop, RunSnapshot
from coordinator.records import EventRow, InputSource, SampleRange, StepKind
from coordinator.replay import replay, timeline_of
from coordinator.scenario import Scenario, load_scenario
from coordinator.stepper import Stepper
from coordinator.stream import SampleBatch, Stream
from coordinator.timeline import Timeline
from hil.bus import MemoryBroker, MemoryBus
from hil.clock import ManualClock
from hil.devices import Quality
from hil.wire import ActuatorInfo, Birth, Command, MicrogridState, Record, Topics, decode

SCENARIO = """\
name: bench
start: 2026-04-15T00:00:00Z
duration_s: {duration_s}
interval_s: 60
speed: 60
signals:
  carbon: {{kind: external, unit: g/kWh, max_age_s: 3.5}}
microgrids:
  - name: lab
    carbon: carbon
    actors:
      - {{kind: node, node: jetson-1, nameplate_w: 20}}
      - {{kind: constant, name: sun, role: producer, power_w: 10}}
    storage: {{kind: lossless, capacity_wh: 10, soc: 0.5, min_soc: 0.2}}
    grid: {{}}
controllers:
  - class: mine:Mine
    args: {{node: jetson-1}}
"""
MINE = """\
from coordinator.controllers.api import Island, Limit, MinSoc, Note

class Mine:
    def __init__(self, node):
        self.node = node
        self.steps = 0

    def step(self, seen):
        self.steps += 1
        if seen.time.minute == 3:
            yield Limit(self.node, 7.5, reason="test")
            yield MinSoc(0.4, reason="spare")
        if seen.time.minute == 5:
            raise RuntimeError("a bug of the user's")
        if seen.time.minute == 7:
            yield Note("seven")

    def snapshot(self):
        return {"steps": self.steps}

    def restore(self, state):
        self.steps = state["steps"]
"""


class Meter:
    """A meter window fed by hand, which also puts its samples into the ledger as the ingest does."""

    def __init__(self, ledger: Ledger, clock: ManualClock) -> None:
        self.power_w = 15.0
        self.silent = False
        self._ledger = ledger
        self._clock = clock
        self._stream = Stream.begin("jetson-1", "00000000")
        self._seq = 0

    @property
    def heard(self) -> bool:
        return True

    def look(self) -> Look:
        if self.silent:
            return Look(None, Quality.MISSING, None, None, None, None, None, 1.0)
        self._seq += 1
        record = Record(self._seq, self._clock.wall_us(), "outlet", self.power_w, None, 0, Quality.GOOD)
        self._stream.admit([record])
        batch = SampleBatch("jetson-1", "00000000", False, self._clock.wall_us(), [record])
        self._ledger.record_samples([batch], [], [self._stream.books()])
        samples = SampleRange("jetson-1", "outlet", "00000000", self._seq, self._seq, 1)
        return Look(self.power_w, Quality.GOOD, samples, self.power_w, samples, 0.0, None, 1.0)


class Bench:
    """A live loop with everything around it in memory but the ledger."""

    def __init__(self, run_dir: Path, scenario: Scenario, clock: ManualClock, steps: int | None) -> None:
        self.run_dir = run_dir
        self.scenario = scenario
        self.clock = clock
        self.broker = MemoryBroker()
        self.bus = MemoryBus(self.broker, clock.monotonic)
        self.agent = MemoryBus(self.broker, clock.monotonic)
        self.agent.subscribe(Topics("lab").node("+").cmd)
        self.ledger = Ledger(run_dir, clock)
        self.meter = Meter(self.ledger, clock)
        self.events: list[EventRow] = []
        self.stale: list[str] = []
        journal = Journal(self.ledger.record_ack, self.ledger.record_effect, lambda _: None, self.stale.append)
        self.fleet = Fleet(Topics("lab"), "lab", 1, 60.0, 100, clock, self.bus, journal)
        self.fleet.on_birth("jetson-1", BIRTH)
        config = scenario.config
        self.timeline = Timeline(
            start_us=scenario.start_us,
            real_start_us=clock.wall_us(),
            interval_s=config.interval_s,
            speed=config.speed,
            steps=steps,
        )
        self.loop = self.make(self.timeline)

    def make(self, timeline: Timeline) -> LiveLoop:
        inputs = {("lab", "jetson-1"): NodeInput("jetson-1", 20.0, lambda: [self.meter])}
        stepper = Stepper(self.scenario, timeline)
        loop = LiveLoop(self.scenario, stepper, timeline, inputs, self.fleet, self.ledger, self.bus, self.clock)
        loop.on_event(self.events.append)
        return loop

    async def start(self) -> None:
        await self.ledger.open()
        await self.bus.start()
        await self.agent.start()

    async def steps(self, count: int) -> "asyncio.Task[None]":
        """Run ``count`` steps' worth of time, exactly on time."""
        task = asyncio.create_task(self.loop.run())
        for _ in range(count):
            await self.clock.advance(1.0)
        return task

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


BIRTH = Birth(
    node="jetson-1",
    version="0",
    boot_id="b",
    stream="00000000",
    epoch=0,
    mode="act",
    nameplate_w=20.0,
    failsafe="release",
    sync="tick",
    clock_synchronised=None,
    actuators=[ActuatorInfo(name="board", kind="emulated", actions=["limit", "release"], min_w=5.0, max_w=20.0)],
)


def scenario_in(folder: Path, clock: ManualClock, duration_s: float = 600.0) -> Scenario:
    folder.mkdir(exist_ok=True)
    (folder / "scenario.yaml").write_text(SCENARIO.format(duration_s=duration_s))
    (folder / "mine.py").write_text(MINE)
    return load_scenario(folder / "scenario.yaml", clock)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = ManualClock()
    bench = Bench(tmp_path / "run", scenario_in(tmp_path / "scenario", clock), clock, steps=10)
    await bench.start()
    yield bench
    await bench.ledger.close()


async def committed(bench: Bench) -> LedgerReader:
    await bench.ledger.flush()
    reader = LedgerReader(bench.run_dir)
    reader.open()
    return reader


async def test_steps_come_at_their_deadlines_and_balance(bench: Bench) -> None:
    await (await bench.steps(10))
    with await committed(bench) as reader:
        rows = list(reader.steps("lab"))
    assert [row.result.k for row in rows] == list(range(10))
    assert all(row.result.dt_s == pytest.approx(60.0) for row in rows)
    assert all(row.result.p_delta_w == pytest.approx(-5.0) for row in rows)
    assert all(abs(row.result.residual_w) < 1e-9 for row in rows)
    assert rows[-1].result.soc == pytest.approx(0.5 - 5.0 * (600 / 3600) / 10)


async def test_every_step_is_published(bench: Bench) -> None:
    await (await bench.steps(10))
    state = decode(bench.broker.retained[Topics("lab").microgrid("lab")], MicrogridState)
    assert (state.step, state.steps_total, state.p_delta_w) == (9, 10, pytest.approx(-5.0))
    assert state.t.isoformat() == "2026-04-15T00:10:00+00:00"


async def test_a_decision_becomes_a_command_once_it_is_on_disk(bench: Bench) -> None:
    task = await bench.steps(3)
    with await committed(bench) as reader:
        trails = list(reader.commands())
    (message,) = await bench.agent.receive()
    command = decode(message.payload, Command)
    assert [trail.row.command.id for trail in trails] == [command.id]
    assert (command.limit_w, trails[0].row.k) == (7.5, 2)
    assert bench.kinds() == ["min-soc", "limit"]
    task.cancel()


async def test_settings_hold_from_the_next_step_on(bench: Bench) -> None:
    await (await bench.steps(10))
    with await committed(bench) as reader:
        minima = [row.result.settings.min_soc for row in reader.steps("lab")]
    assert minima == [0.2] * 3 + [0.4] * 7


async def test_user_code_that_fails_costs_its_own_decision_alone(bench: Bench) -> None:
    await (await bench.steps(10))
    assert bench.kinds() == ["min-soc", "limit", "controller-failed", "controller-recovered", "note"]
    assert "a bug of the user's" in bench.events[2].detail


async def test_a_few_missed_steps_are_made_up_one_by_one_without_decisions(bench: Bench) -> None:
    task = await bench.steps(1)
    bench.clock.stall(4.0)
    await bench.clock.advance(0.0)
    await bench.clock.advance(1.0)
    task.cancel()
    with await committed(bench) as reader:
        rows = list(reader.steps("lab"))
    kinds = [row.kind for row in rows]
    assert kinds[:5] == [StepKind.NORMAL, *[StepKind.CATCH_UP] * 3, StepKind.NORMAL]
    assert all(row.inputs[0].source is InputSource.HELD for row in rows if row.kind is StepKind.CATCH_UP)
    assert "limit" not in bench.kinds()  # minute 3 fell into the stall
    assert sum(row.result.dt_s for row in rows) == pytest.approx(len(rows) * 60.0)


async def test_more_missed_steps_are_one_gap(tmp_path: Path) -> None:
    clock = ManualClock()
    bench = Bench(tmp_path / "run", scenario_in(tmp_path / "scenario", clock, 6000.0), clock, steps=100)
    await bench.start()
    task = await bench.steps(1)
    missed = CATCH_UP_STEPS + 5
    clock.stall(missed + 1.0)
    await clock.advance(0.0)
    task.cancel()
    with await committed(bench) as reader:
        rows = list(reader.steps("lab"))
    assert [(row.kind, row.result.k) for row in rows] == [
        (StepKind.NORMAL, 0),
        (StepKind.GAP, 1),
        (StepKind.NORMAL, 1 + missed),
    ]
    assert rows[1].result.dt_s == pytest.approx(missed * 60.0)
    assert "gap" in bench.kinds()
    await bench.ledger.close()


async def test_a_killed_run_resumes_with_its_energy_and_its_demands(bench: Bench) -> None:
    task = await bench.steps(4)
    task.cancel()
    with await committed(bench) as reader:
        found = reader.snapshot()
    assert found is not None
    snapshot = msgspec.json.decode(found[1], type=RunSnapshot)
    assert snapshot.k == 4
    fresh = scenario_in(bench.run_dir.parent / "scenario", bench.clock)
    bench.scenario = fresh
    bench.loop = bench.make(snapshot.timeline)
    bench.loop.resume(snapshot)
    assert fresh.controllers[0].controller.steps == 4  # type: ignore[attr-defined]
    assert [demand.limit_w for demand in bench.fleet.demands()] == [7.5]
    await (await bench.steps(6))
    with await committed(bench) as reader:
        rows = list(reader.steps("lab"))
    assert [row.result.k for row in rows] == list(range(10))
    assert rows[-1].result.soc == pytest.approx(0.5 - 5.0 * (600 / 3600) / 10)


async def test_a_silent_node_counts_with_its_nameplate(bench: Bench) -> None:
    bench.meter.silent = True
    (await bench.steps(2)).cancel()
    with await committed(bench) as reader:
        rows = list(reader.steps("lab"))
    assert rows[0].inputs[0].quality is Quality.MISSING
    assert rows[0].result.p_actors_w[0] == -20.0


async def replayed(bench: Bench) -> list[bool]:
    scenario = scenario_in(bench.run_dir.parent / "scenario", bench.clock)
    with await committed(bench) as reader:
        return [step.identical for step in replay(reader, scenario, timeline_of(reader, bench.run_dir))]


async def test_a_replay_gives_the_same_bytes(bench: Bench) -> None:
    await (await bench.steps(10))
    assert await replayed(bench) == [True] * 10


async def test_a_replay_sees_the_signals_of_other_systems_as_they_were(bench: Bench) -> None:
    carbon = bench.scenario.externals["carbon"]
    task = await bench.steps(2)
    carbon.receive(b'{"value": 412.5}', bench.clock.monotonic())
    for _ in range(8):
        await bench.clock.advance(1.0)
    await task
    with await committed(bench) as reader:
        seen = [row.carbon_g_per_kwh for row in reader.steps("lab")]
    assert seen == [None] * 2 + [412.5] * 3 + [None] * 5
    assert await replayed(bench) == [True] * 10


async def test_a_replay_shows_one_sample_changed_by_a_hundredth_of_a_watt(bench: Bench) -> None:
    await (await bench.steps(10))
    await bench.ledger.flush()
    alter(ledger_file(bench.run_dir), "UPDATE sample SET power_w = power_w + 0.01 WHERE seq = 6")
    assert (await replayed(bench))[:6] == [True] * 5 + [False]


async def test_a_replay_shows_a_changed_decision(bench: Bench) -> None:
    await (await bench.steps(10))
    scenario = bench.run_dir.parent / "scenario"
    changed = MINE.replace("MinSoc(0.4", "MinSoc(0.3")
    fresh = scenario_in(scenario, bench.clock)
    (scenario / "mine.py").write_text(changed)
    fresh = load_scenario(scenario / "scenario.yaml", bench.clock)
    with await committed(bench) as reader:
        same = [step.identical for step in replay(reader, fresh, timeline_of(reader, bench.run_dir))]
    assert same == [True] * 3 + [False] * 7


def alter(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(sql).rowcount == 1
    connection.close()
