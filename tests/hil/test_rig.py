"""A rig of small processes: started, watched, ended, and none left behind."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from hil.rig import Part, Rig, RigError, script

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path / "logs") as rig:
        yield rig


def shell(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


async def says(part: Part, text: str) -> None:
    """Return once the part has said so."""
    async with asyncio.timeout(20.0):
        while text not in part.tail():  # noqa: ASYNC110  # what is waited for is another process
            await asyncio.sleep(0.005)


async def test_output_goes_to_a_log_and_stdout_to_a_file_of_its_own(rig: Rig, tmp_path: Path) -> None:
    both = await rig.start("both", shell("echo out; echo err >&2"))
    apart = await rig.start("apart", shell("echo out; echo err >&2"), stdout=tmp_path / "apart.out")
    assert await both.process.wait() == await apart.process.wait() == 0
    assert both.log == tmp_path / "logs" / "both.log"
    assert sorted(both.log.read_text().split()) == ["err", "out"]
    assert (apart.log.read_text(), (tmp_path / "apart.out").read_text()) == ("err\n", "out\n")


async def test_a_part_that_is_started_again_goes_on_with_its_log(rig: Rig) -> None:
    for word in ("first", "second"):
        part = await rig.start("part", shell(f"echo {word}"))
        await part.process.wait()
    assert part.log.read_text() == "first\nsecond\n"


async def test_the_tail_is_the_end_of_what_was_said(rig: Rig) -> None:
    part = await rig.start("counter", shell("seq 100"))
    await part.process.wait()
    assert part.tail().split() == [str(number) for number in range(93, 101)]


async def test_a_part_runs_until_it_has_ended(rig: Rig) -> None:
    part = await rig.start("part", ["sleep", "60"])
    assert part.running
    assert part.status is None
    assert await rig.end(part) == -signal.SIGTERM
    assert not part.running
    assert part.status == -signal.SIGTERM


async def test_waiting_for_a_file(rig: Rig, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    part = await rig.start("part", shell(f"sleep 0.1; echo > '{ready}'; sleep 60"))
    await rig.wait_file(part, ready, 20.0)
    assert ready.exists()


async def test_a_part_that_ends_before_it_is_ready_is_told_with_its_last_words(rig: Rig, tmp_path: Path) -> None:
    part = await rig.start("part", shell("echo no such port >&2; exit 3"))
    with pytest.raises(RigError, match=r"part ended with status 3:\n  no such port"):
        await rig.wait_file(part, tmp_path / "ready", 20.0)


async def test_a_part_that_is_never_ready_is_told_too(rig: Rig, tmp_path: Path) -> None:
    part = await rig.start("part", shell("echo thinking; sleep 60"))
    await says(part, "thinking")
    with pytest.raises(RigError, match=r"part was not ready after 0\.1 s:\n  thinking"):
        await rig.wait_file(part, tmp_path / "ready", 0.1)


async def test_the_first_that_ends_is_named(rig: Rig) -> None:
    await rig.start("slow", ["sleep", "60"])
    fast = await rig.start("fast", ["sleep", "0.1"])
    assert await asyncio.wait_for(rig.first_end(), 20.0) is fast


async def test_who_does_not_end_when_asked_is_ended(rig: Rig) -> None:
    part = await rig.start("stubborn", shell(STUBBORN))
    await says(part, "ready")
    began = time.monotonic()
    assert await rig.end(part, 0.2) == -signal.SIGKILL
    assert time.monotonic() - began < 10.0


async def test_what_a_part_has_started_ends_with_it(rig: Rig) -> None:
    part = await rig.start("parent", shell("sleep 60 & echo child $!; wait"))
    await says(part, "child")
    child = psutil.Process(int(part.tail().removeprefix("  child ")))
    await rig.end(part)
    gone, _ = await asyncio.to_thread(psutil.wait_procs, [child], timeout=5)
    assert gone == [child]


async def test_a_part_is_in_a_session_of_its_own(rig: Rig) -> None:
    part = await rig.start("part", ["sleep", "60"])
    assert os.getsid(part.process.pid) == part.process.pid  # a Ctrl-C on the terminal does not reach it


async def test_stop_ends_all_at_once_and_may_be_repeated(rig: Rig) -> None:
    parts = [await rig.start(f"stubborn-{number}", shell(STUBBORN)) for number in range(3)]
    for part in parts:
        await says(part, "ready")
    began = time.monotonic()
    await rig.stop()
    assert time.monotonic() - began < 5.0  # three times two seconds, one after the other
    assert {part.status for part in parts} == {-signal.SIGKILL}
    await rig.stop()


async def test_leaving_the_rig_ends_its_parts_also_on_an_error(tmp_path: Path) -> None:
    async def fail() -> Part:
        async with Rig(tmp_path) as rig:
            started.append(await rig.start("part", ["sleep", "60"]))
            raise RigError("something else broke")

    started: list[Part] = []
    with pytest.raises(RigError, match="something else broke"):
        await fail()
    assert not started[0].running


def test_a_script_that_is_not_installed_is_named() -> None:
    assert script("wattloop-hil").is_file()
    with pytest.raises(RigError, match=r"wattloop-none is missing: install the whole of wattloop"):
        script("wattloop-none")
