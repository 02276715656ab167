import math

import pytest

from coordinator.microgrid.storage import LosslessBattery, lossless_range_w, lossless_share, lossless_soc


def test_a_full_battery_takes_nothing_and_one_at_its_minimum_gives_nothing() -> None:
    assert lossless_range_w(1.0, 0.5, 20.0, 10.0) == (0.0, 10.0)
    assert lossless_range_w(0.5, 0.5, 20.0, 10.0) == (-20.0, 0.0)
    assert lossless_range_w(0.4, 0.5, math.inf, math.inf) == (-math.inf, 0.0)


def test_a_power_lasts_until_the_bound() -> None:
    assert lossless_share(0.6, 250.0, 0.5, 100.0, 3600.0) == pytest.approx(0.25)
    assert lossless_share(0.9, 250.0, 0.5, -50.0, 3600.0) == pytest.approx(0.5)
    assert lossless_share(0.6, 250.0, 0.5, 1.0, 60.0) == 1.0
    assert lossless_share(0.6, 250.0, 0.5, 0.0, 60.0) == 1.0
    assert lossless_share(0.4, 250.0, 0.5, 10.0, 60.0) == 0.0


@pytest.mark.parametrize("min_soc", [0.1, 0.3, 1 / 3, 0.7])
@pytest.mark.parametrize("capacity_wh", [250.0, 248.82, 1e6])
def test_soc_comes_to_stand_exactly_on_its_bounds(min_soc: float, capacity_wh: float) -> None:
    battery = LosslessBattery(capacity_wh, 0.9)
    p_w = capacity_wh * 7.0
    battery.apply(p_w * battery.share(p_w, 600.0, min_soc), 600.0, min_soc)
    assert battery.soc == min_soc
    battery.apply(-p_w * battery.share(-p_w, 600.0, min_soc), 600.0, min_soc)
    assert battery.soc == 1.0


def test_a_minimum_above_the_charge_is_no_reason_to_fill_it_up() -> None:
    assert lossless_soc(0.4, 250.0, 0.5, 0.0, 60.0) == 0.4


def test_a_snapshot_holds_the_charge() -> None:
    battery, other = LosslessBattery(250.0, 0.6), LosslessBattery(250.0, 0.1)
    battery.apply(15.0, 60.0, 0.5)
    other.restore(battery.snapshot())
    assert other.soc == battery.soc
