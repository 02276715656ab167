"""Tasks that must go on: one that fails is logged with its traceback, counted, and started again."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from hil.clock import Clock

log = logging.getLogger(__name__)

RESTART_S: Final = 1.0


class Supervisor:
    """Named tasks that run until they are stopped."""

    def __init__(self, clock: Clock) -> None:
        self.failures = 0
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` as the task ``name``."""
        self._tasks[name] = asyncio.create_task(self._keep(name, work), name=name)

    async def stop(self, *names: str) -> None:
        """Cancel the named tasks, or all, and wait until they have ended."""
        tasks = [self._tasks.pop(name) for name in names or [*self._tasks] if name in self._tasks]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception:  # whatever it is, the other tasks go on
                self.failures += 1
                log.exception("%s failed and starts again in %g s", name, RESTART_S)
            await self._clock.sleep_until(self._clock.monotonic() + RESTART_S)
