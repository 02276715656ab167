from zoneinfo import ZoneInfo

import pytest

from coordinator.timeline import Due, Pacer, Timeline

DAY = Timeline(start_us=1_000_000_000, real_start_us=500_000_000, interval_s=60.0, speed=750.0, steps=1440)


def test_a_simulated_minute_takes_its_share_of_a_second() -> None:
    assert DAY.real_interval_s == pytest.approx(0.08)
    assert DAY.simulated_us(2) - DAY.simulated_us(0) == 120_000_000
    assert DAY.real_us(100) - DAY.real_us(0) == 8_000_000
    assert DAY.simulated_of_real(DAY.real_us(7)) == DAY.simulated_us(7)


def test_a_zone_shows_its_own_time_of_day() -> None:
    noon_utc = 1_782_043_200_000_000  # 2026-06-21T12:00:00Z
    line = Timeline(start_us=noon_utc, real_start_us=0, interval_s=60.0, speed=1.0, steps=None)
    assert line.simulated(0, ZoneInfo("America/Los_Angeles")).strftime("%H:%M %z") == "05:00 -0700"


def test_deadlines_are_absolute() -> None:
    pacer = Pacer(DAY, wall_us=500_000_000, monotonic=100.0)
    assert pacer.deadline(0) == pytest.approx(100.08)
    assert pacer.deadline(999) == pytest.approx(180.0)


def test_a_resumed_run_keeps_its_grid() -> None:
    pacer = Pacer(DAY, wall_us=500_000_000 + 8_000_000, monotonic=5.0)
    assert pacer.began(100) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("late_s", "missed", "lateness_s"),
    [(-0.01, 0, 0.0), (0.0, 0, 0.0), (0.05, 0, 0.05), (0.09, 1, 0.01), (0.81, 10, 0.01)],
)
def test_lateness_and_missed_steps_are_told_apart(late_s: float, missed: int, lateness_s: float) -> None:
    pacer = Pacer(DAY, wall_us=500_000_000, monotonic=100.0)
    due = pacer.due(5, pacer.deadline(5) + late_s)
    assert (due.first, due.missed) == (5, missed)
    assert due.lateness_s == pytest.approx(lateness_s, abs=1e-9)


def test_no_step_is_missed_past_the_end() -> None:
    pacer = Pacer(DAY, wall_us=500_000_000, monotonic=100.0)
    due = pacer.due(1438, pacer.deadline(1438) + 100.0)
    assert due == Due(1438, 1, pytest.approx(100.0 - 0.08))
