import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from agent.meters.worker import Blocked, Worker

LONG_S = 30.0


class Gate:
    """A call that returns when told."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self) -> str:
        self.thread = threading.current_thread()
        self.entered.set()
        self.opened.wait(LONG_S)
        return "through"


async def test_it_calls_in_a_thread_of_its_own_and_always_the_same() -> None:
    worker = Worker("w")
    threads = {await worker.call(threading.current_thread, LONG_S) for _ in range(3)}
    assert len(threads) == 1
    assert threads != {threading.current_thread()}
    worker.close()


async def test_it_raises_what_the_call_raises() -> None:
    worker = Worker("w")
    with pytest.raises(ZeroDivisionError):
        await worker.call(lambda: 1 // 0, LONG_S)
    with pytest.raises(TimeoutError):
        await worker.call(raise_timeout, LONG_S)
    assert await worker.call(lambda: 7, LONG_S) == 7
    worker.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def raise_timeout() -> None:
    raise TimeoutError


async def test_a_call_that_blocks_is_given_up_and_no_other_piles_up_behind_it() -> None:
    worker, gate = Worker("w"), Gate()
    with pytest.raises(Blocked, match=r"no answer within 0.01 s"):
        await worker.call(gate, 0.01)
    with pytest.raises(Blocked, match="earlier"):
        await worker.call(lambda: 7, LONG_S)
    assert worker.busy
    gate.opened.set()
    await asyncio.to_thread(until, lambda: not worker.busy)
    assert await worker.call(lambda: 7, LONG_S) == 7
    worker.close()


async def test_a_call_that_nobody_awaits_any_more_is_still_under_way() -> None:
    worker, gate = Worker("w"), Gate()
    waiting = asyncio.create_task(worker.call(gate, LONG_S))
    await asyncio.to_thread(gate.entered.wait, LONG_S)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert worker.busy
    gate.opened.set()
    worker.close()


async def test_its_thread_ends_when_it_is_closed_and_keeps_nobody_from_exiting() -> None:
    worker, gate = Worker("w"), Gate()
    gate.opened.set()
    await worker.call(gate, LONG_S)
    assert gate.thread is not None
    assert gate.thread.daemon
    worker.close()
    worker.close()
    await asyncio.to_thread(gate.thread.join, LONG_S)
    assert not gate.thread.is_alive()
    assert await worker.call(lambda: 7, LONG_S) == 7
    worker.close()
