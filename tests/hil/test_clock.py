"""The system's clock, and the one that tests move by hand."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from hil.clock import Clock, ManualClock, SystemClock, iso_us, settle, utc


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_the_system_clock_tells_the_machine_s_time() -> None:
    clock: Clock = SystemClock()
    assert abs(clock.wall_us() / 1e6 - time.time()) < 1.0
    assert abs(clock.monotonic() - time.monotonic()) < 1.0
    assert clock.boottime() >= clock.monotonic() - 1.0  # they part only by the time asleep


async def test_the_system_clock_sleeps_to_a_deadline() -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + 0.02
    await clock.sleep_until(deadline)
    assert clock.monotonic() >= deadline


async def test_a_deadline_that_has_passed_costs_one_turn_of_the_loop() -> None:
    for clock in (SystemClock(), ManualClock()):
        others: list[str] = []
        asyncio.get_running_loop().call_soon(others.append, "had a turn")
        await clock.sleep_until(clock.monotonic() - 1.0)
        assert others == ["had a turn"]


async def test_time_passes_only_when_told(clock: ManualClock) -> None:
    before = (clock.wall_us(), clock.monotonic(), clock.boottime())
    await settle()
    assert (clock.wall_us(), clock.monotonic(), clock.boottime()) == before
    await clock.advance(2.5)
    assert (clock.wall_us(), clock.monotonic(), clock.boottime()) == (
        before[0] + 2_500_000,
        before[1] + 2.5,
        before[2] + 2.5,
    )


async def test_sleepers_wake_in_the_order_of_their_deadlines_at_their_own_instant(clock: ManualClock) -> None:
    start = clock.monotonic()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, after_s: float) -> None:
        await clock.sleep_until(start + after_s)
        woken.append((name, clock.monotonic() - start))

    tasks = [asyncio.create_task(sleeper(name, s)) for name, s in (("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0))]
    await clock.advance(2.5)
    assert woken == [("a", 1.0), ("b1", 2.0), ("b2", 2.0)]
    await clock.advance(0.5)
    assert woken[3:] == [("c", 3.0)]
    await asyncio.gather(*tasks)


async def test_a_periodic_task_ticks_once_a_period_within_one_advance(clock: ManualClock) -> None:
    start = clock.monotonic()
    ticks: list[float] = []

    async def tick() -> None:
        for n in range(1, 100):
            await clock.sleep_until(start + n)
            ticks.append(clock.monotonic() - start)

    task = asyncio.create_task(tick())
    await clock.advance(5.0)
    assert ticks == [1.0, 2.0, 3.0, 4.0, 5.0]
    task.cancel()
    await asyncio.wait({task})


async def test_a_cancelled_sleeper_does_not_hold_up_the_others(clock: ManualClock) -> None:
    cancelled = asyncio.create_task(clock.sleep_until(clock.monotonic() + 1.0))
    other = asyncio.create_task(clock.sleep_until(clock.monotonic() + 2.0))
    await settle()
    cancelled.cancel()
    await clock.advance(2.0)
    assert cancelled.cancelled()
    assert other.done()


async def test_ntp_moves_the_wall_clock_alone(clock: ManualClock) -> None:
    wall, monotonic, boot = clock.wall_us(), clock.monotonic(), clock.boottime()
    clock.jump_wall(-3600.0)
    assert (clock.wall_us() - wall, clock.monotonic(), clock.boottime()) == (-3_600_000_000, monotonic, boot)


async def test_suspend_stops_the_monotonic_clock_and_its_sleepers(clock: ManualClock) -> None:
    wall, monotonic, boot = clock.wall_us(), clock.monotonic(), clock.boottime()
    sleeper = asyncio.create_task(clock.sleep_until(monotonic + 1.0))
    await settle()
    clock.suspend(60.0)
    await settle()
    assert (clock.wall_us() - wall, clock.monotonic(), clock.boottime() - boot) == (60_000_000, monotonic, 60.0)
    assert not sleeper.done()
    await clock.advance(1.0)
    assert sleeper.done()


async def test_it_starts_where_it_is_told() -> None:
    clock = ManualClock(wall=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), monotonic=5.0)
    assert utc(clock.wall_us()) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert clock.monotonic() == 5.0


@pytest.mark.parametrize(
    ("t_us", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_782_072_000_000_000, "2026-06-21T20:00:00.000Z"),
        (1_782_072_000_123_999, "2026-06-21T20:00:00.123Z"),
        (1_782_072_000_999_999, "2026-06-21T20:00:00.999Z"),
    ],
)
def test_an_instant_for_the_wire(t_us: int, text: str) -> None:
    assert iso_us(t_us) == text
    assert utc(t_us).utcoffset() == timedelta(0)
    assert round(utc(t_us).timestamp() * 1e6) == t_us
