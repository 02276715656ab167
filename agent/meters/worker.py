"""A thread for calls to a device that may never return."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from agent.worker import Thread

T = TypeVar("T")


class Blocked(Exception):
    """A call did not return in time, or an earlier one still has not; says which."""


class Worker:
    """Makes one call at a time, in a thread of its own; one that blocks holds up neither the loop nor the exit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = Thread(name)
        self._last: asyncio.Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether a call is still under way, awaited or given up."""
        return self._last is not None and not self._last.done()

    async def call(self, job: Callable[[], T], patience_s: float) -> T:
        """What ``job`` returns, or raises. Raises Blocked if it takes longer: its result is then dropped."""
        if self.busy:
            raise Blocked("an earlier reading still blocks")
        self._last = future = self._thread.do(job)
        future.add_done_callback(_look_at)
        await asyncio.wait({future}, timeout=patience_s)
        if not future.done():
            raise Blocked(f"no answer within {patience_s:g} s")
        return future.result()

    def close(self) -> None:
        """End the thread, once it has returned from its last call; harmless when repeated."""
        self._thread.stop()
        self._thread = Thread(self._name)


def _look_at(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()  # where nobody waits for it any more, an error is as good as a result
