"""The ledger and its reader: what went in comes out, in groups, whole or not at all, whatever the disk does."""

import asyncio
import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.ledger import GROUP_S, RETRY_MAX_S, Ledger, LedgerFull
from coordinator.ledgerreader import CommandTrail, LedgerReader, SampleCount
from coordinator.ledgerschema import APPLICATION_ID, LedgerError, ledger_file
from coordinator.microgrid.step import Settings, StepResult
from coordinator.records import (
    AckRow,
    CommandRow,
    EffectRow,
    EventRow,
    InputRow,
    InputSource,
    SampleRange,
    SignalRow,
    StepCommit,
    StepKind,
    StepRow,
    StepTime,
    Tombstone,
)
from coordinator.steptable import table_bytes
from coordinator.stream import SampleBatch, StreamBooks
from hil.clock import ManualClock, SystemClock, settle
from hil.devices import Quality
from hil.wire import Ack, AckState, Action, Command, Effect, NodeState, Presence, Record, Target

STREAM = "0123abcd"
NODE = "jetson-1"


def record(seq, power_w=15.0, meter="outlet-1", quality=Quality.GOOD):
    return Record(seq, 1_000_000 * seq, meter, power_w, 100.0 + seq, 0, quality)


def batch(*seqs, hist=False):
    return SampleBatch(NODE, STREAM, hist, 1_000_000 * seqs[-1], [record(seq) for seq in seqs])


def books(*ranges, duplicates=0, lost=0, node=NODE):
    return StreamBooks(node, STREAM, ranges, sum(b - a + 1 for a, b in ranges) - lost, duplicates, lost)


def step_row(k, microgrid="paper", power_w=15.0, samples=None, kind=StepKind.NORMAL):
    inputs = (
        InputRow("jetson", power_w, Quality.GOOD, InputSource.MEASURED, 0.125, samples),
        InputRow("sun", 20.0, Quality.GOOD, InputSource.MODEL),
    )
    result = StepResult(
        k=k,
        t_us=60_000_000 * k,
        dt_s=60.0,
        p_actors_w=(-power_w, 20.0),
        p_delta_w=20.0 - power_w,
        p_battery_w=power_w - 20.0,
        p_grid_w=0.0,
        p_unserved_w=0.0,
        p_curtailed_w=-0.0,
        soc=0.1 + 0.2,
        settings=Settings(min_soc=0.3, charge_power_w=None, islanded=k % 2 == 1),
        emissions_g=None,
        residual_w=5e-324,
    )
    return StepRow(microgrid, kind, inputs, 55.5, None, result)


def command(name="cmd-0001", renews=None):
    return Command(
        id=name,
        issuer="lab",
        epoch=1,
        seq=1,
        target=Target(node=NODE, actuator="board"),
        action=Action.LIMIT,
        limit_w=7.5,
        issued_at=datetime(2026, 6, 21, tzinfo=UTC),
        ttl_s=60.0,
        renews=renews,
        reason="night",
    )


def step(k, *rows, commands=(), events=()):
    return StepCommit(
        k=k,
        rows=rows or (step_row(k),),
        time=StepTime(k, 80_000 * k, 0.001, 0.0005),
        commands=tuple(commands),
        events=tuple(events),
        snapshot=f"after {k}".encode(),
    )


@pytest.fixture
def clock():
    return SystemClock()


@pytest.fixture
async def ledger(tmp_path, clock):
    ledger = Ledger(tmp_path, clock)
    await ledger.open()
    yield ledger
    await ledger.close()


@pytest.fixture
def reader(tmp_path, ledger):
    with LedgerReader(tmp_path) as reader:
        yield reader


@contextlib.contextmanager
def full_disk(path):
    """The ledger's log cannot grow: the operating system refuses every write beyond its end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name(f"{path.name}-wal").stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def until(condition, seconds=10.0):
    """Wait for what another thread brings about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # it has no event to wait for
            await asyncio.sleep(0.001)


# --- what went in comes out -------------------------------------------------------------------------------------------


async def test_samples_come_back_as_they_were(ledger, reader):
    odd = SampleBatch(
        NODE,
        STREAM,
        True,
        77,
        [record(4, None, quality=Quality.MISSING), record(5, 0.1 + 0.2, "rapl", Quality.SUSPECT)],
    )
    ledger.record_samples([batch(1, 2, 3), odd], [], [books((1, 5))])
    await ledger.flush()
    rows = list(reader.samples())
    assert [(row.seq, row.meter, row.power_w, row.quality, row.hist) for row in rows] == [
        (1, "outlet-1", 15.0, Quality.GOOD, False),
        (2, "outlet-1", 15.0, Quality.GOOD, False),
        (3, "outlet-1", 15.0, Quality.GOOD, False),
        (4, "outlet-1", None, Quality.MISSING, True),
        (5, "rapl", 0.30000000000000004, Quality.SUSPECT, True),
    ]
    assert {(row.node, row.stream) for row in rows} == {(NODE, STREAM)}
    assert (rows[0].t_us, rows[0].energy_j, rows[0].energy_epoch, rows[0].arrived_us) == (
        1_000_000,
        101.0,
        0,
        3_000_000,
    )
    assert [row.seq for row in reader.samples(NODE, "outlet-1", STREAM, 2, 3)] == [2, 3]
    assert list(reader.samples("jetson-2")) == []
    assert reader.sample_counts() == [SampleCount(NODE, "outlet-1", 4, 3), SampleCount(NODE, "rapl", 1, 1)]


async def test_books_come_back_to_the_reader_and_to_the_next_life(ledger, reader, tmp_path, clock):
    ledger.record_samples([batch(1, 2)], [Tombstone(NODE, STREAM, 5, 6, "spool full")], [books((1, 2), (5, 6), lost=2)])
    ledger.record_samples([], [], [books((1, 2), (5, 6), duplicates=9, lost=2)])
    ledger.record_samples([], [], [books(node="jetson-2")])
    await ledger.flush()
    expected = [books((1, 2), (5, 6), duplicates=9, lost=2), books(node="jetson-2")]
    assert sorted(reader.stream_books(), key=lambda b: b.node) == expected
    await ledger.close()
    later = Ledger(tmp_path, clock)
    await later.open()
    assert sorted(later.stream_books, key=lambda b: b.node) == expected
    await later.close()


async def test_steps_come_back_to_the_last_bit(ledger, reader):
    used = SampleRange(NODE, "outlet-1", STREAM, 1, 3, 3)
    rows = [step_row(k, samples=used if k == 1 else None, power_w=15.0 + k / 10) for k in range(3)]
    others = [step_row(k, "this-machine", kind=StepKind.CATCH_UP) for k in range(3)]
    for k in range(3):
        await ledger.commit_step(step(k, rows[k], others[k]))
    assert list(reader.steps("paper")) == rows
    assert list(reader.steps("this-machine")) == others
    assert reader.microgrids() == ["paper", "this-machine"]
    assert list(reader.step_times()) == [StepTime(k, 80_000 * k, 0.001, 0.0005) for k in range(3)]
    assert reader.step_table_bytes("paper") == table_bytes(rows)
    assert reader.snapshot() == (2, b"after 2")
    assert list(reader.steps("nowhere")) == []


async def test_commands_come_back_with_what_became_of_them(ledger, reader):
    decided = CommandRow(command(), "paper", 3, 4, 5)
    renewal = CommandRow(command("cmd-0002", renews="cmd-0001"), None, None, 6, 7)
    ack = Ack(id="cmd-0001", issuer="lab", epoch=1, seq=1, actuator="board", state=AckState.APPLIED, applied_w=7.5)
    ended = Ack(id="cmd-0001", issuer="lab", epoch=1, seq=1, actuator="board", state=AckState.SUPERSEDED)
    await ledger.commit_step(step(3, commands=[decided]))
    await ledger.record_command(renewal)
    await ledger.record_command(renewal)  # said twice, there once
    ledger.record_ack(AckRow(ack, NODE, 8, 1.25))
    ledger.record_ack(AckRow(ended, NODE, 9, None))
    ledger.record_effect(EffectRow("cmd-0001", Effect.VERIFIED, 7.4, 10))
    await ledger.flush()
    assert list(reader.commands()) == [
        CommandTrail(
            decided,
            (AckRow(ack, NODE, 8, 1.25), AckRow(ended, NODE, 9, None)),
            (EffectRow("cmd-0001", Effect.VERIFIED, 7.4, 10),),
        ),
        CommandTrail(renewal, (), ()),
    ]
    assert reader.open_commands() == [renewal]


async def test_signals_come_back_by_step(ledger, reader):
    signals = (SignalRow("carbon", 55.5), SignalRow("price", None))
    await ledger.commit_step(replace(step(0), signals=signals))
    await ledger.commit_step(step(1))
    assert (reader.signals(0), reader.signals(1)) == ([*signals], [])


async def test_events_meta_and_node_books_come_back(ledger, reader):
    everywhere = EventRow(1, 2, None, None, "started", "epoch 1")
    here = EventRow(3, 4, 0, "paper", "note", "sunny")
    there = EventRow(5, 6, 0, "this-machine", "note", "dark")
    ledger.record_event(everywhere)
    await ledger.commit_step(step(0, events=[here, there]))
    ledger.set_meta("scenario", "a")
    ledger.set_meta("scenario", "b")
    ledger.record_node_books(NODE, NodeState(state=Presence.READY, session=1, generated=3))
    last = NodeState(
        state=Presence.LOST, session=2, lease="HOLD", stream=STREAM, generated=9, acked=5, spooled=3, lost=1
    )
    ledger.record_node_books(NODE, last)
    await ledger.flush()
    assert set(reader.events()) == {everywhere, here, there}
    assert set(reader.events("paper")) == {everywhere, here}
    assert (reader.meta("scenario"), reader.meta("nothing")) == ("b", None)
    assert reader.node_books() == [(NODE, last)]


async def test_people_can_read_it_with_sqlite(ledger, reader, tmp_path):
    ledger.record_samples([batch(1)], [], [books((1, 1))])
    await ledger.commit_step(step(1, step_row(1, samples=SampleRange(NODE, "outlet-1", STREAM, 1, 1, 1))))
    with contextlib.closing(sqlite3.connect(ledger_file(tmp_path))) as connection:
        sample = connection.execute("SELECT node, stream, meter, time, power_w, quality FROM samples").fetchone()
        taken = connection.execute("SELECT k, microgrid, time, kind, soc, islanded FROM steps").fetchone()
        inputs = connection.execute("SELECT actor, power_w, p_w, quality, source, node, meter FROM inputs").fetchall()
    assert sample == (NODE, STREAM, "outlet-1", "1970-01-01T00:00:01.000Z", 15.0, "good")
    assert taken == (1, "paper", "1970-01-01T00:01:00.000Z", "normal", 0.30000000000000004, 1)
    assert inputs == [
        ("jetson", 15.0, -15.0, "good", "measured", NODE, "outlet-1"),
        ("sun", 20.0, 20.0, "good", "model", None, None),
    ]


async def test_a_replay_finds_the_samples_of_each_input(ledger, reader):
    def used(first, last, count):
        return SampleRange(NODE, "outlet-1", STREAM, first, last, count)

    early = SampleBatch(NODE, STREAM, False, 1_000_000, [record(20), record(21)])  # stamped far in the future
    ledger.record_samples([batch(1, 2, 3)], [], [])
    ledger.record_samples([batch(4, 5, hist=True)], [], [])
    await ledger.commit_step(step(0, step_row(0, samples=used(1, 3, 3))))
    ledger.record_samples([batch(6)], [], [])
    held = step(1, step_row(1, samples=used(3, 3, 1)))  # held: 6 came after the step had looked
    await ledger.commit_step(held)
    missing = SampleBatch(NODE, STREAM, False, 8_000_000, [record(7, None, quality=Quality.MISSING), record(8, 30.0)])
    ledger.record_samples([early, missing], [], [books((1, 8), (20, 21))])
    await ledger.commit_step(step(2, step_row(2, samples=used(6, 8, 2))))
    found = [
        (row.result.k, [[sample.seq for sample in samples] for samples in inputs])
        for row, inputs in reader.steps_with_samples("paper")
    ]
    assert found == [(0, [[1, 2, 3], []]), (1, [[3], []]), (2, [[6, 8], []])]


# --- groups -----------------------------------------------------------------------------------------------------------


async def test_samples_wait_for_company_and_a_step_takes_them_along(tmp_path):
    clock = ManualClock()
    ledger = Ledger(tmp_path, clock)
    await ledger.open()
    ledger.record_samples([batch(1)], [], [books((1, 1))])
    await settle()
    ledger.record_samples([batch(2)], [], [books((1, 2))])
    await clock.advance(0.9 * GROUP_S)
    assert ledger.counters.commits == 0
    assert ledger.waiting_samples == 2
    await ledger.commit_step(step(0))  # no time passes
    assert (ledger.counters.commits, ledger.counters.samples, ledger.waiting_samples) == (1, 2, 0)
    ledger.record_samples([batch(3)], [], [books((1, 3))])
    await clock.advance(1.1 * GROUP_S)
    await until(lambda: ledger.counters.commits == 2)
    await ledger.close()


async def test_a_commit_tells_the_newest_books_of_each_stream_once(ledger):
    told = []
    ledger.on_commit(lambda committed: told.append(list(committed)))
    ledger.record_samples([batch(1)], [], [books((1, 1))])
    ledger.record_samples([batch(2)], [], [books((1, 2))])
    ledger.record_samples([], [], [books(node="jetson-2")])
    assert told == []
    await ledger.flush()
    assert told == [[books((1, 2)), books(node="jetson-2")]]


async def test_nobody_hears_before_it_is_on_disk(ledger, reader):
    seen = []
    ledger.on_commit(lambda committed: seen.append(sum(1 for _ in reader.samples())))
    for seq in range(1, 50):
        ledger.record_samples([batch(seq)], [], [books((1, seq))])
        if seq % 7 == 0:
            await ledger.commit_step(step(seq))
            assert sum(1 for _ in reader.samples()) == seq
    await ledger.flush()
    assert seen[-1] == 49
    assert seen == sorted(seen)


async def test_a_cancelled_waiter_takes_nobody_along(ledger):
    first = ledger.commit_step(step(0))
    second = ledger.commit_step(step(1))
    first.cancel()
    await second


async def test_close_commits_what_waits_and_folds_the_log(tmp_path, clock):
    ledger = Ledger(tmp_path, clock)
    await ledger.open()
    ledger.record_samples([batch(1)], [], [books((1, 1))])
    await ledger.close()
    await ledger.close()
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]
    with LedgerReader(tmp_path) as reader:
        assert [row.seq for row in reader.samples()] == [1]
    with pytest.raises(LedgerError, match="closed"):
        ledger.commit_step(step(0))


async def test_goes_on_in_the_same_file(tmp_path, clock):
    for k in range(3):
        ledger = Ledger(tmp_path, clock)
        await ledger.open()
        ledger.record_samples([batch(k + 1)], [], [books((1, k + 1))])
        await ledger.commit_step(step(k, step_row(k, samples=SampleRange(NODE, "outlet-1", STREAM, k + 1, k + 1, 1))))
        await ledger.close()
    with LedgerReader(tmp_path) as reader:
        assert [[s.seq for s in inputs[0]] for _, inputs in reader.steps_with_samples("paper")] == [[1], [2], [3]]


async def test_another_process_reads_while_this_one_writes(ledger, tmp_path):
    await ledger.commit_step(step(0))
    script = (
        "import sys, pathlib; from coordinator.ledgerreader import LedgerReader\n"
        "with LedgerReader(pathlib.Path(sys.argv[1])) as reader: print(reader.snapshot())"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(0, b'after 0')"


# --- files that are none of ours --------------------------------------------------------------------------------------


def foreign(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name)")


def newer(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE meta (key)")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 999")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b"no database at all, but long enough to be looked at" * 50), "not a ledger"),
        (foreign, "another program"),
        (newer, "schema 999"),
        (lambda path: path.mkdir(), "unable to open"),
    ],
    ids=["garbage", "foreign", "newer", "folder"],
)
async def test_a_file_of_something_else_is_refused_in_one_line_and_left_alone(tmp_path, clock, make, said):
    path = ledger_file(tmp_path)
    make(path)
    before = path.read_bytes() if path.is_file() else None
    ledger = Ledger(tmp_path, clock)
    with pytest.raises(LedgerError, match=said) as refusal:
        await ledger.open()
    await ledger.close()
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert before is None or path.read_bytes() == before
    with pytest.raises(LedgerError, match=said), LedgerReader(tmp_path):
        pass


async def test_no_folder_and_no_file(tmp_path, clock):
    (tmp_path / "file").touch()
    ledger = Ledger(tmp_path / "file" / "run", clock)
    with pytest.raises(LedgerError, match="cannot make its folder"):
        await ledger.open()
    await ledger.close()
    with pytest.raises(LedgerError, match="No such file"), LedgerReader(tmp_path):
        pass


async def test_an_empty_file_left_by_a_crash_becomes_a_ledger(tmp_path, clock):
    ledger_file(tmp_path).touch()
    ledger = Ledger(tmp_path, clock)
    await ledger.open()
    await ledger.commit_step(step(0))
    await ledger.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to read as somebody else")
@pytest.mark.parametrize(("mode", "said"), [(0o755, "(0, b'after 0')"), (0o700, "Permission denied")])
async def test_somebody_without_write_permission_reads_a_closed_run(clock, mode, said):
    script = (
        "import os, sys, pathlib; from coordinator.ledgerreader import LedgerReader; os.setuid(65534)\n"
        "try:\n with LedgerReader(pathlib.Path(sys.argv[1])) as reader: print(reader.snapshot())\n"
        "except Exception as error: print(repr(error))"
    )
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder), clock)
        await ledger.open()
        await ledger.commit_step(step(0))
        await ledger.close()
        await asyncio.to_thread(Path(folder).chmod, mode)
        argv = [sys.executable, "-c", script, folder]
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=True)
    assert said in done.stdout


# --- a disk that fails ------------------------------------------------------------------------------------------------


async def test_a_full_disk_stops_nothing_and_is_told_once(tmp_path, caplog):
    clock = ManualClock()
    ledger = Ledger(tmp_path, clock)
    await ledger.open()
    told = []
    committed = []
    ledger.on_fault(told.append)
    ledger.on_commit(committed.extend)
    await ledger.commit_step(step(0))
    with full_disk(ledger.path):
        ledger.record_samples([batch(*range(1, 101))], [], [books((1, 100))])
        waiting = ledger.commit_step(step(1))
        await until(lambda: ledger.fault is not None)
        for _ in range(3):
            failures = ledger.counters.failures
            await clock.advance(RETRY_MAX_S)
            await until(lambda before=failures: ledger.counters.failures > before)
        second = ledger.commit_step(step(2))  # in haste, but no reason to press the disk
        await settle()
        assert not waiting.done()
        assert committed == []
        assert ledger.waiting_samples == 100
    await clock.advance(RETRY_MAX_S)
    await waiting
    await second
    assert told[1:] == [None]
    assert ledger.fault is None
    assert [b.committed for b in committed] == [100]
    assert [r.levelname for r in caplog.records if r.name == "coordinator.ledger"] == ["ERROR", "WARNING"]
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        assert [row.seq for row in reader.samples()] == list(range(1, 101))
        assert [row.result.k for row in reader.steps("paper")] == [0, 1, 2]


async def test_memory_for_a_failing_disk_is_bounded(tmp_path):
    clock = ManualClock()
    ledger = Ledger(tmp_path, clock, max_samples=100, max_facts=10)
    await ledger.open()
    await ledger.commit_step(step(0))
    with full_disk(ledger.path):
        ledger.record_samples([batch(*range(1, 101))], [], [books((1, 100))])
        ledger.commit_step(step(1))
        await until(lambda: ledger.fault is not None)
        assert ledger.full
        with pytest.raises(LedgerFull, match="wait for the disk"):
            ledger.record_samples([batch(101)], [], [books((1, 101))])
        promises = []
        with pytest.raises(LedgerFull, match="wait for the disk"):
            promises.extend(ledger.commit_step(step(k)) for k in range(2, 100))
        for _ in range(20):
            ledger.record_event(EventRow(0, 0, None, None, "note", "dropped and counted, for nobody can wait"))
        assert ledger.counters.refused >= 20
    await clock.advance(RETRY_MAX_S)
    await asyncio.gather(*promises)
    assert not ledger.full
    ledger.record_samples([batch(101)], [], [books((1, 101))])
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        assert [row.seq for row in reader.samples()] == list(range(1, 102))


async def test_closing_on_a_dead_disk_gives_up_and_says_what_is_lost(tmp_path, clock, caplog):
    ledger = Ledger(tmp_path, clock)
    await ledger.open()
    await ledger.commit_step(step(0))
    with full_disk(ledger.path):
        ledger.record_samples([batch(*range(1, 101))], [], [books((1, 100))])
        waiting = ledger.commit_step(step(1))
        await ledger.close()
    with pytest.raises(LedgerError):
        await waiting
    assert "100 samples and 4 other facts are not on disk" in caplog.text
    assert "Traceback" not in caplog.text
    with LedgerReader(tmp_path) as reader:
        assert reader.snapshot() == (0, b"after 0")
        assert list(reader.samples()) == []


async def test_a_fault_of_our_own_stops_it_for_good(tmp_path, clock, caplog):
    ledger = Ledger(tmp_path, clock)
    await ledger.open()
    await ledger.commit_step(step(0))
    with pytest.raises(LedgerError, match="UNIQUE"):
        await ledger.commit_step(step(0))
    with pytest.raises(LedgerError, match="UNIQUE"):
        ledger.record_samples([batch(1)], [], [books((1, 1))])
    with pytest.raises(LedgerError, match="UNIQUE"):
        await ledger.flush()
    await ledger.close()
    assert "UNIQUE" in caplog.text


async def test_names_survive_a_failed_commit(tmp_path):
    clock = ManualClock()
    ledger = Ledger(tmp_path, clock)
    await ledger.open()
    await ledger.commit_step(step(0))
    with full_disk(ledger.path):
        other = SampleBatch("jetson-2", STREAM, False, 1, [record(seq, meter=f"m{seq}") for seq in range(1, 200)])
        ledger.record_samples([other], [], [books((1, 199), node="jetson-2")])
        await clock.advance(2 * GROUP_S)
        await until(lambda: ledger.fault is not None)
        ledger.record_samples([batch(1)], [], [books((1, 1))])
    await clock.advance(1.0)
    await until(lambda: ledger.counters.commits == 2)
    await clock.advance(1.0)
    await ledger.close()
    with LedgerReader(tmp_path) as reader:
        assert [(r.node, r.meter) for r in reader.samples()][:2] == [("jetson-2", "m1"), ("jetson-2", "m2")]
        assert [(r.node, r.meter) for r in reader.samples()][-1] == (NODE, "outlet-1")
