import asyncio
import threading

import pytest

from agent.worker import Thread


def boom() -> None:
    raise ValueError("boom")


async def test_work_is_done_in_order_in_a_thread_of_its_own() -> None:
    worker = Thread("test-worker")
    done: list[int] = []
    threads = await asyncio.gather(
        *(worker.do(lambda n=n: (done.append(n), threading.current_thread())[1]) for n in range(50))
    )
    worker.stop()
    assert done == list(range(50))
    assert {thread.name for thread in threads} == {"test-worker"}


async def test_what_the_work_raises_reaches_whoever_waits_and_the_worker_goes_on() -> None:
    worker = Thread("test-worker")
    with pytest.raises(ValueError, match="boom"):
        await worker.do(boom)
    assert await worker.do(lambda: 1) == 1
    worker.stop()


async def test_work_nobody_waits_for_any_more_harms_nothing() -> None:
    worker = Thread("test-worker")
    gate = threading.Event()
    worker.do(gate.wait).cancel()
    failing = worker.do(boom)
    failing.cancel()
    gate.set()
    assert await worker.do(lambda: 1) == 1
    worker.stop()


async def test_it_ends_once_its_work_is_done() -> None:
    worker = Thread("test-worker")
    last = worker.do(threading.current_thread)
    worker.stop()
    thread = await last
    thread.join(5)
    assert not thread.is_alive()
