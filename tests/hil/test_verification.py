import math

import pytest

from hil.devices import Quality
from hil.verification import Verification
from hil.wire import Effect

GOOD = Quality.GOOD


def fed(powers: list[float | None], limit_w: float = 7.5, period_s: float = 1.0) -> Verification:
    verification = Verification(limit_w, started=100.0)
    for number, power_w in enumerate(powers, start=1):
        verification.observe(power_w, GOOD if power_w is not None else Quality.MISSING, 100.0 + number * period_s)
    return verification


def test_three_readings_in_a_row_at_the_limit_verify_it() -> None:
    assert fed([15.0, 7.6, 7.4]).effect is Effect.PENDING
    verification = fed([15.0, 7.6, 7.4, 7.5])
    assert verification.effect is Effect.VERIFIED
    assert verification.measured_w == pytest.approx(7.5)


def test_the_tolerance_is_five_percent() -> None:
    assert fed([7.875] * 3).effect is Effect.VERIFIED
    assert fed([7.876] * 9).effect is Effect.PENDING


def test_one_reading_above_starts_the_count_anew() -> None:
    assert fed([7.5, 7.5, 9.0, 7.5, 7.5]).effect is Effect.PENDING
    assert fed([7.5, 7.5, 9.0, 7.5, 7.5, 7.5]).effect is Effect.VERIFIED


def test_power_that_stays_up_is_ineffective_after_ten_seconds() -> None:
    assert fed([15.0] * 9).effect is Effect.PENDING
    verification = fed([15.0] * 10)
    assert verification.effect is Effect.INEFFECTIVE
    assert verification.measured_w == pytest.approx(15.0)


def test_a_run_under_way_at_the_deadline_may_end() -> None:
    assert fed([15.0] * 8 + [7.5] * 2).effect is Effect.PENDING
    assert fed([15.0] * 8 + [7.5] * 3).effect is Effect.VERIFIED
    assert fed([15.0] * 8 + [7.5] * 2 + [15.0]).effect is Effect.INEFFECTIVE


def test_a_slow_meter_gets_three_readings() -> None:
    assert fed([15.0, 7.5, 7.5], period_s=30.0).effect is Effect.PENDING
    assert fed([15.0, 7.5, 7.5, 7.5], period_s=30.0).effect is Effect.VERIFIED
    assert fed([15.0] * 3, period_s=30.0).effect is Effect.INEFFECTIVE


def test_silence_decides_nothing() -> None:
    verification = fed([None] * 100)
    assert verification.effect is Effect.PENDING
    assert verification.measured_w is None


@pytest.mark.parametrize("quality", [Quality.STALE, Quality.SUSPECT, Quality.MISSING])
def test_doubtful_readings_do_not_count(quality: Quality) -> None:
    verification = Verification(7.5, started=0.0)
    for number in range(100):
        assert verification.observe(1.0, quality, float(number)) is Effect.PENDING


def test_estimated_readings_count() -> None:
    verification = Verification(7.5, started=0.0)
    effects = [verification.observe(7.0, Quality.ESTIMATED, float(number)) for number in range(3)]
    assert effects == [Effect.PENDING, Effect.PENDING, Effect.VERIFIED]


def test_non_finite_readings_do_not_count() -> None:
    assert fed([math.nan, math.inf, -math.inf] * 10).measured_w is None


def test_readings_from_before_the_limit_do_not_count() -> None:
    verification = Verification(7.5, started=100.0)
    for _ in range(3):
        verification.observe(1.0, GOOD, 99.9)
    assert verification.measured_w is None


def test_the_decision_is_final() -> None:
    verification = fed([7.5] * 3 + [15.0] * 20)
    assert verification.effect is Effect.VERIFIED
    assert verification.measured_w == pytest.approx(7.5)
