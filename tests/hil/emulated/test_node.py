import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.emulated.load import ConstantLoad, PointsLoad, SineLoad
from hil.emulated.node import NOISE_BOUND, EmulatedNode, NodeTraits

CONSTANT = ConstantLoad(power_w=15.0)
NOISY = NodeTraits(lag_s=0.1, noise_w=0.5, seed=7)


def node(load=CONSTANT, **traits) -> EmulatedNode:
    return EmulatedNode("jetson-1", load.demand(), NodeTraits(**traits))


def test_a_node_starts_settled():
    assert node(lag_s=5.0).power_w == 15.0


def test_power_follows_a_step_of_demand_with_the_exact_lag():
    stepping = node(PointsLoad(points=[(0.0, 10.0), (1.0, 20.0)]), lag_s=0.1)
    stepping.advance(1.0)
    assert stepping.power_w == pytest.approx(10.0)
    stepping.advance(0.05)
    assert stepping.power_w == pytest.approx(20.0 - 10.0 * math.exp(-0.5), rel=1e-12)
    stepping.advance(10.0)
    assert stepping.power_w == pytest.approx(20.0, rel=1e-12)


def test_a_cap_takes_hold_at_once_with_the_exact_lag():
    capped = node(lag_s=0.1)
    capped.advance(0.033)  # between two ticks
    capped.cap_w = 7.5
    assert capped.power_w == 15.0
    capped.advance(0.05)
    assert capped.power_w == pytest.approx(7.5 + 7.5 * math.exp(-0.5), rel=1e-12)
    capped.advance(5.0)
    capped.cap_w = None
    capped.advance(5.0)
    assert capped.power_w == pytest.approx(15.0, rel=1e-12)


def test_without_lag_power_is_the_target():
    capped = node()
    capped.cap_w = 7.5
    assert capped.power_w == 7.5


@pytest.mark.parametrize(("cap_w", "power_w"), [(20.0, 15.0), (15.0, 15.0), (2.0, 3.0), (0.0, 3.0)])
def test_a_cap_above_demand_or_below_idle_changes_nothing_there(cap_w: float, power_w: float):
    capped = node(idle_w=3.0)
    capped.cap_w = cap_w
    assert capped.power_w == power_w
    assert capped.cap_w == cap_w


def test_demand_is_bounded_by_idle_and_maximum():
    bounded = node(PointsLoad(points=[(0.0, 1.0), (1.0, 100.0)]), idle_w=3.0, max_w=20.0)
    assert bounded.power_w == 3.0
    bounded.advance(1.0)
    assert bounded.power_w == 20.0


def test_an_unplugged_cap_is_read_back_and_has_no_effect():
    unplugged = node()
    unplugged.plugged = False
    unplugged.cap_w = 7.5
    unplugged.advance(1.0)
    assert (unplugged.cap_w, unplugged.power_w) == (7.5, 15.0)
    unplugged.plugged = True
    assert unplugged.power_w == 7.5


def test_energy_of_a_settling_step_is_its_integral():
    stepping = node(PointsLoad(points=[(0.0, 10.0), (1.0, 20.0)]), lag_s=0.1)
    stepping.advance(3.0)
    # 10 W for 1 s, then ∫ 20 − 10·e^(−t/0.1) over 2 s
    assert stepping.energy_j == pytest.approx(10.0 + 40.0 - 10.0 * 0.1 * (1.0 - math.exp(-20.0)), rel=1e-9)


def test_energy_is_the_integral_of_the_power_shown():
    wild = EmulatedNode("wild", SineLoad(mean_w=10.0, amplitude_w=9.0, period_s=1.7).demand(), NOISY)
    step_s, sum_j = 0.0005, 0.0
    for index in range(8000):
        if index in {1501, 4003}:
            wild.cap_w = 4.0 if index == 1501 else None
        wild.advance(step_s / 2)
        sum_j += wild.power_w * step_s  # midpoint rule; noise and demand jump only on the grid of ticks
        wild.advance(step_s / 2)
    assert wild.t_s == pytest.approx(4.0)
    assert wild.energy_j == pytest.approx(sum_j, rel=2e-4)


@settings(deadline=None)
@given(cuts=st.lists(st.floats(0.0, 1.99), max_size=30))
def test_how_time_is_cut_changes_nothing(cuts: list[float]):
    whole, parts = (EmulatedNode("n", SineLoad(mean_w=10, amplitude_w=9, period_s=0.7).demand(), NOISY) for _ in "ab")
    ends = [1.003, 1.991]  # off the grid: a sum of floats may end on either side of a tick
    for one, steps in ((whole, [0.0, *ends]), (parts, sorted({0.0, *cuts, *ends}))):
        for start_s, end_s in itertools.pairwise(steps):
            one.advance(end_s - start_s)
            if end_s == ends[0]:
                one.cap_w = 6.0
    assert parts.t_s == pytest.approx(whole.t_s, abs=1e-12)
    assert parts.power_w == pytest.approx(whole.power_w, rel=1e-9)
    assert parts.energy_j == pytest.approx(whole.energy_j, rel=1e-9)


def powers(seed: int, noise_w: float = 0.5, power_w: float = 15.0) -> list[float]:
    noisy = node(ConstantLoad(power_w=power_w), noise_w=noise_w, seed=seed)
    found = []
    for _ in range(5000):
        noisy.advance(0.02)
        found.append(noisy.power_w)
    return found


def test_noise_is_seeded():
    assert powers(1) == powers(1)
    assert powers(1) != powers(2)


def test_noise_is_bounded_and_has_the_stated_spread():
    found = powers(3)
    mean_w = sum(found) / len(found)
    spread_w = math.sqrt(sum((power_w - mean_w) ** 2 for power_w in found) / len(found))
    assert mean_w == pytest.approx(15.0, abs=0.03)
    assert spread_w == pytest.approx(0.5, rel=0.05)
    assert max(abs(power_w - 15.0) for power_w in found) <= NOISE_BOUND * 0.5 + 1e-9


def test_noise_takes_no_power_below_zero():
    found = powers(4, noise_w=2.0, power_w=1.0)
    assert min(found) == 0.0
    assert max(found) > 5.0


def test_energy_never_falls():
    noisy = EmulatedNode("n", ConstantLoad(power_w=0.5).demand(), NodeTraits(noise_w=1.0, lag_s=0.05, seed=5))
    before_j = 0.0
    for index in range(3000):
        noisy.cap_w = 0.1 if index % 7 == 0 else None
        noisy.advance(0.0071)
        assert noisy.energy_j >= before_j - 1e-12
        before_j = noisy.energy_j
