"""A thread for calls to a device that may never return."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

Job = tuple[Future[Any], Callable[[], Any]]


class Blocked(Exception):
    """A call did not return in time, or an earlier one still has not; says which."""


class Worker:
    """Makes one call at a time, in a thread of its own; one that blocks holds up neither the loop nor the exit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Job | None] | None = None
        self._last: Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether a call is still under way, awaited or given up."""
        return self._last is not None and not self._last.done()

    async def call(self, job: Callable[[], T], patience_s: float) -> T:
        """What ``job`` returns, or raises. Raises Blocked if it takes longer: its result is then dropped."""
        if self.busy:
            raise Blocked("an earlier reading still blocks")
        if self._jobs is None:
            self._jobs = SimpleQueue()
            threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True).start()
        self._last = future = Future[T]()
        future.set_running_or_notify_cancel()  # it will be done, whoever stops waiting for it
        self._jobs.put((future, job))
        try:
            async with asyncio.timeout(patience_s):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if future.done():  # it was the job itself
                raise
            raise Blocked(f"no answer within {patience_s:g} s") from error

    def close(self) -> None:
        """End the thread, once it has returned from its last call; harmless when repeated."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while (entry := jobs.get()) is not None:
        future, job = entry
        try:
            future.set_result(job())
        except BaseException as error:  # noqa: BLE001  # whoever awaits it is told
            future.set_exception(error)
