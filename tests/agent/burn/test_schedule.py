import itertools
import statistics

import pytest

from agent.burn.profile import BurnProfile, Phase, load_profile, stock_profiles
from agent.burn.schedule import duties

SPREAD = BurnProfile(seed=3, phases=(Phase(for_s=60, duty=0.5, spread=0.1), Phase(for_s=0.2, duty=1)))
FIRST = [0.398, 0.4452, 0.5689]


def test_a_schedule_follows_its_phases_and_ends() -> None:
    profile = BurnProfile(phases=(Phase(for_s=0.3, duty=0.25), Phase(for_s=0.2, duty=1)))
    assert list(duties(profile, 0)) == [0.25, 0.25, 0.25, 1, 1]


def test_one_that_repeats_has_no_end() -> None:
    profile = BurnProfile(repeat=True, phases=(Phase(for_s=0.1, duty=0.25), Phase(for_s=0.1, duty=1)))
    assert list(itertools.islice(duties(profile, 0), 5)) == [0.25, 1, 0.25, 1, 0.25]


def test_the_same_seed_is_the_same_load_and_cores_differ() -> None:
    assert list(duties(SPREAD, 0)) == list(duties(SPREAD, 0))
    assert list(duties(SPREAD, 0)) != list(duties(SPREAD, 1))
    # On any machine and version: these figures may never change.
    assert [round(duty, 4) for duty in itertools.islice(duties(SPREAD, 0), 3)] == FIRST


def test_its_mean_and_spread_are_those_asked_for() -> None:
    first = list(duties(SPREAD, 0))[:600]
    assert statistics.mean(first) == pytest.approx(0.5, abs=0.02)
    assert statistics.stdev(first) == pytest.approx(0.1, abs=0.02)


def test_no_core_is_more_than_busy() -> None:
    profile = BurnProfile(phases=(Phase(for_s=20, duty=0.5, spread=1),))
    assert set(duties(profile, 0)) >= {0.0, 1.0}
    assert all(0 <= duty <= 1 for duty in duties(profile, 0))


@pytest.mark.parametrize("name", stock_profiles())
def test_stock_profiles_load_and_say_what_they_are(name: str) -> None:
    profile = load_profile(name)
    assert profile.about
    assert profile.length_s > 0


def test_the_stress_test_is_among_them() -> None:
    assert "stress" in stock_profiles()
    assert set(itertools.islice(duties(load_profile("stress"), 0), 100)) == {1.0}
