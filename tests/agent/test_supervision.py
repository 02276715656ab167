import asyncio

import pytest

from agent.supervision import Supervisor
from hil.clock import ManualClock, settle


async def test_a_task_that_fails_is_told_counted_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    supervisor = Supervisor(clock)
    starts: list[float] = []

    async def work() -> None:
        starts.append(clock.monotonic())
        raise ValueError("a bug")

    supervisor.start("worker", work)
    await clock.advance(2.5)
    await supervisor.stop()
    assert [start - starts[0] for start in starts] == [0.0, 1.0, 2.0]
    assert supervisor.failures == 3
    assert "worker failed" in caplog.messages[0]
    assert caplog.records[0].exc_info


async def test_tasks_are_stopped_by_name_or_all() -> None:
    supervisor = Supervisor(ManualClock())
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    for name in ("a", "b", "c"):
        supervisor.start(name, lambda name=name: work(name))  # type: ignore[misc]
    await settle()
    await supervisor.stop("b", "never started")
    assert ended == ["b"]
    await supervisor.stop()
    assert sorted(ended) == ["a", "b", "c"]
    await supervisor.stop()
