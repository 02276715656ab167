import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.meters.rapl.tally import Gap, Gauge, Look, Tally

INTEL_UJ = 262_143_328_850
MILLION = 1_000_000


def gauge(label: str = "package-0", range_uj: int = INTEL_UJ, max_w: float = 500.0, moves: bool = True) -> Gauge:
    return Gauge(label, range_uj, max_w, moves)


def look(*raw_uj: int, at: float, slept: float = 0.0) -> Look:
    return Look(raw_uj, at, at + slept)


def test_power_is_the_mean_of_the_span_and_energy_adds_up() -> None:
    tally = Tally([gauge()], look(5 * MILLION, at=10.0))
    assert tally.take(look(105 * MILLION, at=11.0)) == 100.0
    assert tally.take(look(405 * MILLION, at=13.0)) == 150.0
    assert (tally.energy_j, tally.epoch) == (400.0, 0)


def test_zones_are_added() -> None:
    tally = Tally([gauge(), gauge("dram")], look(0, 0, at=0.0))
    assert tally.take(look(80 * MILLION, 20 * MILLION, at=1.0)) == 100.0


def test_a_counter_that_comes_round_goes_on() -> None:
    tally = Tally([gauge(), gauge("dram")], look(INTEL_UJ - 30 * MILLION, 0, at=0.0))
    assert tally.take(look(70 * MILLION, 10 * MILLION, at=1.0)) == 110.0
    assert tally.epoch == 0


def test_a_reset_begins_an_epoch_and_costs_one_power() -> None:
    tally = Tally([gauge()], look(100_000 * MILLION, at=0.0))
    tally.take(look(100_100 * MILLION, at=1.0))
    with pytest.raises(Gap, match="package-0: its energy counter was reset"):
        tally.take(look(40 * MILLION, at=2.0))
    assert tally.take(look(140 * MILLION, at=3.0)) == 100.0
    assert (tally.energy_j, tally.epoch) == (100.0, 1)


@pytest.mark.parametrize("garbage", [7, 99_000 * MILLION, 200_000 * MILLION])
def test_garbage_costs_one_power_and_no_energy(garbage: int) -> None:
    tally = Tally([gauge()], look(100_000 * MILLION, at=0.0))
    tally.take(look(100_100 * MILLION, at=1.0))
    with pytest.raises(Gap):
        tally.take(look(garbage, at=2.0))
    assert tally.take(look(100_300 * MILLION, at=3.0)) == 100.0
    assert (tally.energy_j, tally.epoch) == (300.0, 0)


def test_garbage_while_the_counter_comes_round() -> None:
    tally = Tally([gauge()], look(INTEL_UJ - 30 * MILLION, at=0.0))
    with pytest.raises(Gap):
        tally.take(look(100_000 * MILLION, at=1.0))
    assert tally.take(look(170 * MILLION, at=2.0)) == 100.0
    assert tally.epoch == 0


def test_more_than_its_range_is_no_count() -> None:
    tally = Tally([gauge()], look(0, at=0.0))
    with pytest.raises(Gap, match="above its range"):
        tally.take(look(INTEL_UJ + 1, at=1.0))
    assert tally.take(look(200 * MILLION, at=2.0)) == 100.0


@pytest.mark.parametrize("after_uj", [3, 100_001 * MILLION], ids=["reset", "kept"])
def test_a_suspension_is_a_gap_in_the_same_epoch(after_uj: int) -> None:
    tally = Tally([gauge()], look(99_900 * MILLION, at=0.0))
    tally.take(look(100_000 * MILLION, at=1.0))
    with pytest.raises(Gap, match="suspended"):
        tally.take(look(after_uj, at=2.0, slept=3600.0))
    assert tally.take(look(after_uj + 100 * MILLION, at=3.0, slept=3600.0)) == 100.0
    assert (tally.energy_j, tally.epoch) == (200.0, 0)


def test_after_too_long_a_silence_nobody_knows_how_often_it_came_round() -> None:
    tally = Tally([gauge()], look(0, at=0.0))
    with pytest.raises(Gap, match="come round unseen"):
        tally.take(look(1000 * MILLION, at=525.0))
    assert tally.take(look(1100 * MILLION, at=526.0)) == 100.0


def test_silence_that_is_short_enough_is_bridged() -> None:
    tally = Tally([gauge()], look(0, at=0.0))
    assert tally.take(look(50_000 * MILLION, at=500.0)) == 100.0


def test_a_counter_that_stands_still_is_no_zero() -> None:
    tally = Tally([gauge(), gauge("uncore", moves=False)], look(5, 5, at=0.0))
    with pytest.raises(Gap, match="package-0: its energy counter stands still"):
        tally.take(look(5, 9, at=1.0))
    assert tally.take(look(5 + 200 * MILLION, 5, at=2.0)) == 100.0


def test_without_time_there_is_no_power() -> None:
    tally = Tally([gauge()], look(5, at=1.0))
    with pytest.raises(Gap, match="no time"):
        tally.take(look(6, at=1.0))


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 200.0),  # s between looks
            st.floats(1.0, 390.0),  # W drawn
            st.sampled_from(["counts"] * 6 + ["reset", "suspended", "suspended and reset", "garbage"]),
            st.integers(0, INTEL_UJ),
        ),
        max_size=60,
    )
)
def test_no_power_is_ever_shown_that_was_not_drawn(story: list[tuple[float, float, str, int]]) -> None:
    """Whatever counters do, a power is between the lowest and highest drawn, or at least not above what is allowed."""
    now, slept, count_uj = 100.0, 0.0, 1_000 * MILLION
    tally = Tally([gauge(max_w=400.0)], look(count_uj, at=now))
    energy_j, epoch = 0.0, 0
    for span_s, power_w, event, garbage in story:
        now += span_s
        count_uj = (count_uj + round(span_s * power_w * 1e6)) % (INTEL_UJ + 1)
        shown = count_uj
        if "suspended" in event:
            slept += 1000.0
        if "reset" in event:
            count_uj = shown = 0
        if event == "garbage":
            shown = garbage
        try:
            found_w = tally.take(look(shown, at=now, slept=slept))
        except Gap:
            continue
        assert 0 < found_w <= 400.0 * (span_s + 0.01) / span_s
        assert tally.epoch >= epoch
        if tally.epoch == epoch:
            assert tally.energy_j >= energy_j
        energy_j, epoch = tally.energy_j, tally.epoch


@given(st.lists(st.tuples(st.floats(0.02, 100.0), st.floats(0.1, 390.0)), max_size=80), st.integers(0, 10))
def test_energy_is_exact_over_any_number_of_rounds(spans: list[tuple[float, float]], seed: int) -> None:
    now, drawn_uj = 0.0, 0
    start_uj = INTEL_UJ * seed // 10
    tally = Tally([gauge(max_w=400.0)], look(start_uj % INTEL_UJ, at=now))
    for span_s, power_w in spans:
        now += span_s
        drawn_uj += round(span_s * power_w * 1e6)
        step_w = tally.take(look((start_uj + drawn_uj) % INTEL_UJ, at=now))
        assert step_w == pytest.approx(power_w, rel=1e-4)
    assert tally.energy_j == pytest.approx(drawn_uj / 1e6, abs=1e-6)
    assert tally.epoch == 0
