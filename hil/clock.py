"""Clocks: wall time for stamps, monotonic time for pacing, boot time for leases.

Everything that waits or stamps takes a ``Clock``; tests pass a ``ManualClock``, in which time passes only when told.
A clock knows real time alone: simulated time is the coordinator's affair (``coordinator.timeline``).
"""

import asyncio
import heapq
import time
from datetime import UTC, datetime
from typing import Protocol

from hil.units import MICROSECONDS_PER_SECOND


class Clock(Protocol):
    """Where the time comes from."""

    def wall_us(self) -> int:
        """Wall time in microseconds since 1970, UTC. May jump: only for stamps, never for durations."""

    def monotonic(self) -> float:
        """Seconds on the monotonic clock, for cadence and timeouts. Stops in suspend."""

    def boottime(self) -> float:
        """Seconds since boot, suspend included, for leases: a limit must not outlive a closed lid."""

    async def sleep_until(self, deadline: float) -> None:
        """Return once ``monotonic()`` has reached ``deadline``; at once, after one turn of the loop, if it has."""


class SystemClock:
    """The machine's clocks."""

    def wall_us(self) -> int:
        """Wall time in microseconds since 1970, UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds on CLOCK_MONOTONIC."""
        return time.monotonic()

    def boottime(self) -> float:
        """Seconds on CLOCK_BOOTTIME."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep_until(self, deadline: float) -> None:
        """Sleep to an absolute monotonic deadline, so that lateness never adds up."""
        await asyncio.sleep(max(0.0, deadline - time.monotonic()))


class ManualClock:
    """A clock that a test moves by hand; sleepers wake in order of their deadlines."""

    def __init__(self, wall: datetime = datetime(2026, 6, 21, tzinfo=UTC), monotonic: float = 1000.0) -> None:
        self._wall_us = round(wall.timestamp() * MICROSECONDS_PER_SECOND)
        self._monotonic = monotonic
        self._boottime = monotonic
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = 0

    def wall_us(self) -> int:
        """Wall time in microseconds since 1970, UTC."""
        return self._wall_us

    def monotonic(self) -> float:
        """Seconds passed by ``advance``."""
        return self._monotonic

    def boottime(self) -> float:
        """Seconds passed by ``advance`` and ``suspend``."""
        return self._boottime

    async def sleep_until(self, deadline: float) -> None:
        """Wait until ``advance`` reaches the deadline."""
        if deadline <= self._monotonic:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (deadline, self._order, waiter))
        await waiter

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; each sleeper wakes at its own deadline and runs before time goes on."""
        target = self._monotonic + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            deadline, _, waiter = heapq.heappop(self._sleepers)
            if waiter.done():  # cancelled in its sleep
                continue
            self._move(max(0.0, deadline - self._monotonic))
            waiter.set_result(None)
            await settle()
        self._move(target - self._monotonic)
        await settle()

    def stall(self, seconds: float) -> None:
        """Let ``seconds`` pass in which nobody runs, as under overload; sleepers wake late, on ``advance``."""
        self._move(seconds)

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as NTP or a user does; nothing else moves."""
        self._wall_us += round(seconds * MICROSECONDS_PER_SECOND)

    def suspend(self, seconds: float) -> None:
        """Sleep the machine: wall and boot time pass, the monotonic clock stands still."""
        self._boottime += seconds
        self.jump_wall(seconds)

    def _move(self, seconds: float) -> None:
        self._monotonic += seconds
        self._boottime += seconds
        self._wall_us += round(seconds * MICROSECONDS_PER_SECOND)


async def settle(turns: int = 20) -> None:
    """Give every ready task ``turns`` turns of the event loop: after it, what could run without waiting has run."""
    for _ in range(turns):
        await asyncio.sleep(0)


def utc(t_us: int) -> datetime:
    """The aware UTC instant of a stamp in microseconds."""
    return datetime.fromtimestamp(t_us / MICROSECONDS_PER_SECOND, UTC)


def iso_us(t_us: int) -> str:
    """ISO 8601 with milliseconds and Z, as the wire and the logs write an instant."""
    return utc(t_us).strftime("%Y-%m-%dT%H:%M:%S.") + f"{t_us // 1000 % 1000:03d}Z"
