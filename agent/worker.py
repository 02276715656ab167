"""One thread for work that blocks, in the order it was given; leaner than an executor, which a command would feel."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Protocol, TypeVar

T = TypeVar("T")


class Worker(Protocol):
    """Does blocking work away from the event loop, one piece after the other."""

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Take a piece of work; the future gets what it returns or raises."""

    def stop(self) -> None:
        """Take no more work and end when the last piece is done."""


class Thread:
    """A worker with a thread of its own, which starts with the first piece of work."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Take a piece of work; the future gets what it returns or raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001  # whoever awaits the future gets it
                _tell(loop, partial(_raise, future, error))
            else:
                _tell(loop, partial(_return, future, result))

        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return future

    def stop(self) -> None:
        """Take no more work and end when the last piece is done."""
        self._jobs.put(None)  # a thread that never started keeps it, and nothing else

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _tell(loop: asyncio.AbstractEventLoop, news: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed, and whoever waited is gone
        loop.call_soon_threadsafe(news)


def _return(future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # cancelled meanwhile
        future.set_result(result)


def _raise(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
