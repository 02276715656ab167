"""Killed at any moment, the ledger has all that was acknowledged, and steps and snapshot agree."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from coordinator.ledgerreader import LedgerReader
from coordinator.ledgerschema import ledger_file

SEED = int(os.environ.get("WATTLOOP_SEED", "20260621"))
LIVES = int(os.environ.get("WATTLOOP_LIVES", "6"))

# A life: take up where the last one stopped, hand over samples and steps without pause, and tell each acknowledgement
# as soon as it may be given.
LIFE = """
import asyncio, os, pathlib, sys
from coordinator.ledger import Ledger
from coordinator.ledgerreader import LedgerReader
from coordinator.microgrid.step import Settings, StepResult
from coordinator.records import InputRow, InputSource, StepCommit, StepKind, StepRow, StepTime
from coordinator.stream import SampleBatch, Stream
from hil.clock import SystemClock
from hil.devices import Quality
from hil.wire import Record

def tell(text):
    os.write(1, text.encode() + b"\\n")

def step(k):
    settings = Settings(min_soc=0.3)
    result = StepResult(k, k, 1.0, (-15.0,), -15.0, 15.0, 0.0, 0.0, 0.0, 0.5, settings, 0.0, 0.0)
    inputs = (InputRow("jetson", 15.0, Quality.GOOD, InputSource.MODEL),)
    row = StepRow("paper", StepKind.NORMAL, inputs, None, None, result)
    return StepCommit(k, (row,), StepTime(k, k, 0.0, 0.0), (), (), str(k).encode())

async def main(run_dir):
    ledger = Ledger(run_dir, SystemClock())
    await ledger.open()
    with LedgerReader(run_dir) as reader:
        snapshot = reader.snapshot()
    k = snapshot[0] + 1 if snapshot else 0
    streams = {books.stream: Stream(books) for books in ledger.stream_books}
    ledger.on_commit(lambda committed: tell(" ".join(f"{b.stream}:{b.ranges[-1][1]}" for b in committed)))
    tell("born")
    while True:
        for name in ("0123abcd", "ffffffff"):
            stream = streams.setdefault(name, Stream.begin("jetson-1", name))
            first = stream.books().ranges[-1][1] + 1 if stream.books().ranges else 1
            records = [Record(seq, seq, "outlet-1", 15.0, None, 0, Quality.GOOD) for seq in range(first, first + 5)]
            batch = SampleBatch("jetson-1", name, False, 0, stream.admit(records))
            ledger.record_samples([batch], [], [stream.books()])
        done = ledger.commit_step(step(k))
        done.add_done_callback(lambda _, k=k: tell(f"step:{k}"))
        k += 1
        await asyncio.sleep(0.0005)

asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


def live_and_die(run_dir, draw):
    """The acknowledgements of one life that ended with SIGKILL at a random moment."""
    told = {}
    with subprocess.Popen([sys.executable, "-c", LIFE, str(run_dir)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(draw.randrange(1, 60)):
            note(process.stdout.readline(), told)
        time.sleep(draw.uniform(0.0, 0.01))  # anywhere between two lines
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            if line.endswith(b"\n"):
                note(line, told)
    assert process.returncode == -signal.SIGKILL
    return told


def note(line, told):
    for item in line.decode().split():
        name, _, number = item.partition(":")
        if number:
            told[name] = int(number)


@pytest.mark.parametrize("round_", range(2))
def test_killed_at_random_moments(tmp_path, round_):
    draw = random.Random(f"{SEED}/{round_}")
    print(f"seed {SEED}")
    told = {}
    for _ in range(LIVES):
        told.update(live_and_die(tmp_path, draw))
        with contextlib.closing(sqlite3.connect(ledger_file(tmp_path))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with LedgerReader(tmp_path) as reader:
            ks = [row.result.k for row in reader.steps("paper")]
            snapshot = reader.snapshot()
            books = {book.stream: book for book in reader.stream_books()}
            seqs = {name: [row.seq for row in reader.samples(stream=name)] for name in books}
        assert ks == list(range(len(ks)))
        assert snapshot == ((ks[-1], str(ks[-1]).encode()) if ks else None)
        for name, book in books.items():
            assert seqs[name] == list(range(1, book.committed + 1))
            assert book.ranges == ((1, book.committed),)
        assert len(ks) > told.pop("step", -1)
        assert all(books[name].committed >= acknowledged for name, acknowledged in told.items())
    assert told
