import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from agent.actuators.workload import WorkloadActuator, WorkloadConfig
from hil.clock import ManualClock, SystemClock
from hil.devices import Capabilities, DeviceFailed, DeviceUnavailable, Setting, WorkloadState

RUNNING, PAUSED, STOPPED = WorkloadState.RUNNING, WorkloadState.PAUSED, WorkloadState.STOPPED
# Leads a child of its own, writes down who they are, and counts its turns in a file.
PROGRAM = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}")
while True:
    with open("turns", "a") as file:
        file.write(".")
    time.sleep(0.01)
"""


def make(folder: Path, code: str = PROGRAM, **more: Any) -> WorkloadActuator:
    argv = (sys.executable, "-I", "-c", code)
    clock = more.pop("clock", None) or SystemClock()
    return WorkloadActuator(WorkloadConfig(name="job", argv=argv, folder=str(folder), **more), clock)


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def ended(job: WorkloadActuator) -> Setting:
    while not (found := await job.readback()).note.startswith("ended"):  # noqa: ASYNC110  # no event: as users see it
        await asyncio.sleep(0.01)
    return found


async def started(folder: Path) -> list[psutil.Process]:
    path = folder / "pids"
    await until(lambda: path.exists() and len(path.read_text().split()) == 2)
    return [psutil.Process(int(pid)) for pid in path.read_text().split()]


def turns(folder: Path) -> int:
    path = folder / "turns"
    return path.stat().st_size if path.exists() else 0


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[WorkloadActuator]:
    actuator = make(tmp_path)
    yield actuator
    await actuator.close()


async def test_opening_starts_nothing(job: WorkloadActuator, tmp_path: Path) -> None:
    assert await job.open() == Capabilities(workload=True)
    assert await job.readback() == Setting(workload=STOPPED)
    assert (await job.readback()).note == "not started"
    assert not (tmp_path / "pids").exists()


async def test_a_program_starts_pauses_goes_on_and_stops_with_all_its_children(
    job: WorkloadActuator, tmp_path: Path
) -> None:
    await job.apply(Setting(workload=RUNNING))
    family = await started(tmp_path)
    assert await job.readback() == Setting(workload=RUNNING)
    assert (await job.readback()).note == f"running as {family[0].pid}"

    await job.apply(Setting(workload=PAUSED))
    assert await job.readback() == Setting(workload=PAUSED)
    assert {process.status() for process in family} == {psutil.STATUS_STOPPED}
    halted = turns(tmp_path)

    await job.apply(Setting(workload=RUNNING))
    await until(lambda: turns(tmp_path) > halted)
    assert [process.is_running() for process in family] == [True, True]

    await job.apply(Setting(workload=STOPPED))
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert await job.readback() == Setting(workload=STOPPED)
    assert (await job.readback()).note == "ended by SIGTERM"


async def test_applying_twice_is_applying_once(job: WorkloadActuator, tmp_path: Path) -> None:
    for state in (RUNNING, PAUSED, RUNNING):
        for _ in range(2):
            await job.apply(Setting(workload=state))
            assert (await job.readback()).workload is state
        family = await started(tmp_path)
        assert family[0].ppid() > 1
        keeper = psutil.Process(family[0].ppid())
        assert len(keeper.children()) == 1
    for _ in range(2):
        await job.apply(Setting(workload=STOPPED))


async def test_a_paused_program_is_stopped_too(job: WorkloadActuator, tmp_path: Path) -> None:
    await job.apply(Setting(workload=RUNNING))
    family = await started(tmp_path)
    await job.apply(Setting(workload=PAUSED))
    await job.apply(Setting(workload=STOPPED))
    assert psutil.wait_procs(family, timeout=5)[1] == []


async def test_somebody_who_continues_it_is_seen(job: WorkloadActuator, tmp_path: Path) -> None:
    await job.apply(Setting(workload=RUNNING))
    family = await started(tmp_path)
    await job.apply(Setting(workload=PAUSED))
    family[0].resume()
    assert (await job.readback()).workload is RUNNING
    await job.apply(Setting(workload=PAUSED))
    assert (await job.readback()).workload is PAUSED


@pytest.mark.parametrize("before", [STOPPED, PAUSED, RUNNING])
@pytest.mark.parametrize("after", [STOPPED, PAUSED, RUNNING])
async def test_a_snapshot_is_restored(
    job: WorkloadActuator, tmp_path: Path, before: WorkloadState, after: WorkloadState
) -> None:
    if before is not STOPPED:
        await job.apply(Setting(workload=RUNNING))
        await job.apply(Setting(workload=before))
    snapshot = await job.snapshot()
    await job.apply(Setting(workload=after))
    for _ in range(2):
        await job.restore(snapshot)
        assert (await job.readback()).workload is before


@pytest.mark.parametrize("text", ["", "{}", "null", '{"workload": "x"}', "rubbish"])
async def test_a_snapshot_that_is_none_changes_nothing(job: WorkloadActuator, text: str) -> None:
    await job.apply(Setting(workload=RUNNING))
    with pytest.raises(DeviceFailed):
        await job.restore(text)
    assert (await job.readback()).workload is RUNNING


async def test_another_life_restores_what_a_dead_agent_started(job: WorkloadActuator) -> None:
    snapshot = await job.snapshot()
    await job.restore(snapshot)
    assert (await job.readback()).workload is STOPPED


async def test_one_that_has_done_its_work_is_not_started_again(tmp_path: Path) -> None:
    job = make(tmp_path, "raise SystemExit(0)", restart="on-failure")
    await job.apply(Setting(workload=RUNNING))
    found = await ended(job)
    assert (found.workload, found.note) == (RUNNING, "ended with 0")
    await job.apply(Setting(workload=STOPPED))
    await job.apply(Setting(workload=RUNNING))  # a new command is a new run
    assert (await job.readback()).workload is RUNNING
    await job.close()


@pytest.mark.parametrize(
    ("code", "note"),
    [("raise SystemExit(3)", "ended with 3"), ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL")],
)
async def test_how_it_ended_is_told(tmp_path: Path, code: str, note: str) -> None:
    job = make(tmp_path, code)
    await job.apply(Setting(workload=RUNNING))
    assert (await ended(job)).note == note
    await job.close()


async def test_one_that_fails_is_started_again_later_and_later(tmp_path: Path) -> None:
    clock = ManualClock()
    job = make(tmp_path, "open('turns', 'a').write('.'); raise SystemExit(3)", restart="on-failure", clock=clock)
    await job.apply(Setting(workload=RUNNING))
    for restarts, wait_s in enumerate([1.0, 2.0, 4.0], 1):
        await ended(job)
        await clock.advance(wait_s * 0.99)
        assert turns(tmp_path) == restarts
        await clock.advance(wait_s * 0.02)
        await until(lambda restarts=restarts: turns(tmp_path) == restarts + 1)
    assert "3 restarts" in (await job.readback()).note
    await job.apply(Setting(workload=STOPPED))
    await clock.advance(100)
    assert turns(tmp_path) == 4


async def test_one_that_fails_while_paused_waits(tmp_path: Path) -> None:
    clock = ManualClock()
    job = make(tmp_path, PROGRAM, restart="on-failure", clock=clock)
    await job.apply(Setting(workload=RUNNING))
    family = await started(tmp_path)
    await job.apply(Setting(workload=PAUSED))
    family[0].kill()
    await ended(job)
    (tmp_path / "pids").unlink()
    await clock.advance(100)
    assert (await job.readback()).workload is PAUSED
    assert not (tmp_path / "pids").exists()
    await job.apply(Setting(workload=RUNNING))
    await started(tmp_path)
    await job.close()


async def test_what_leaves_the_group_ends_with_it(tmp_path: Path) -> None:
    code = PROGRAM.replace('time.sleep(1000)"]', 'time.sleep(1000)"], start_new_session=True')
    assert code != PROGRAM
    job = make(tmp_path, code)
    await job.apply(Setting(workload=RUNNING))
    family = await started(tmp_path)
    await job.apply(Setting(workload=STOPPED))
    assert psutil.wait_procs(family, timeout=5)[1] == []


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    job = make(tmp_path, f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{PROGRAM}", grace_s=0.1)
    await job.apply(Setting(workload=RUNNING))
    family = await started(tmp_path)
    await job.apply(Setting(workload=STOPPED))
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert (await job.readback()).note == "ended by SIGKILL"


@pytest.mark.parametrize("paused", [False, True])
async def test_nothing_is_left_when_the_agent_is_killed(tmp_path: Path, paused: bool) -> None:
    agent = f"""
import asyncio, sys
from agent.actuators.workload import WorkloadActuator, WorkloadConfig
from hil.clock import SystemClock
from hil.devices import Setting, WorkloadState

async def main():
    config = WorkloadConfig(name="job", argv=({sys.executable!r}, "-I", "-c", {PROGRAM!r}), folder={str(tmp_path)!r})
    job = WorkloadActuator(config, SystemClock())
    await job.apply(Setting(workload=WorkloadState.RUNNING))
    if {paused}:
        await asyncio.sleep(0.5)
        await job.apply(Setting(workload=WorkloadState.PAUSED))
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", agent], stdout=subprocess.PIPE) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        family = await started(tmp_path)
        family.append(psutil.Process(family[0].ppid()))
        process.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(family, timeout=10)[1] == []


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    job = WorkloadActuator(WorkloadConfig(name="job", argv=(str(tmp_path / "none"),)), SystemClock())
    with pytest.raises(DeviceFailed, match="cannot be executed by this user"):
        await job.open()
    with pytest.raises(DeviceUnavailable, match="No such file"):
        await job.apply(Setting(workload=RUNNING))
    assert (await job.readback()).workload is STOPPED
    await job.close()


@pytest.mark.parametrize("setting", [Setting(limit_w=5.0), Setting(profile="eco")])
async def test_it_takes_no_watts(job: WorkloadActuator, setting: Setting) -> None:
    with pytest.raises(DeviceFailed):
        await job.apply(setting)


async def test_the_environment_is_the_configured_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    code = "import json, os; open('new', 'w').write(json.dumps(dict(os.environ))); os.rename('new', 'env')"
    job = make(tmp_path, code, env={"THREADS": "4"})
    await job.apply(Setting(workload=RUNNING))
    await until((tmp_path / "env").exists)
    seen = msgspec.json.decode((tmp_path / "env").read_bytes())
    assert seen["THREADS"] == "4"
    assert seen["PATH"] == os.environ["PATH"]
    assert "NOTIFY_SOCKET" not in seen
    await job.close()


@pytest.mark.parametrize(
    "argv",
    [
        ["/bin/sh", "-c", "true"],
        ["/usr/bin/env", "bash", "-c", "true"],
        ["/usr/bin/nice", "/bin/dash"],
        ["python3", "train.py"],
        ["/usr/bin/python3", "a\0b"],
        [],
    ],
)
def test_a_shell_and_what_is_no_path_is_refused(argv: list[str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kind": "workload", "name": "job", "argv": argv}, WorkloadConfig)


def test_a_shell_under_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to("/bin/sh")
    with pytest.raises(ValueError, match="is a shell"):
        WorkloadConfig(name="job", argv=(str(tmp_path / "train"),))
