from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.signals.series import Beyond, Series

S = 1_000_000


def series(beyond: Beyond = Beyond.END) -> Series:
    """10 from 100 s, 20 from 160 s, 40 from 220 s until 280 s."""
    return Series(array("q", [100 * S, 160 * S, 220 * S]), array("d", [10.0, 20.0, 40.0]), beyond)


def test_a_value_holds_until_the_next_stamp() -> None:
    assert [series().at(t * S) for t in (100, 159, 160, 219, 279)] == [10.0, 10.0, 20.0, 20.0, 40.0]


@pytest.mark.parametrize(
    ("beyond", "before", "after"),
    [(Beyond.END, None, None), (Beyond.HOLD, None, 40.0), (Beyond.WRAP, 40.0, 10.0)],
)
def test_beyond_the_table(beyond: Beyond, before: float | None, after: float | None) -> None:
    assert series(beyond).at(99 * S) == before
    assert series(beyond).at(280 * S) == after


def test_a_wrapped_table_repeats_for_ever() -> None:
    wrapped = series(Beyond.WRAP)
    assert [wrapped.at((t + 180 * 1000) * S) for t in (100, 160, 220)] == [10.0, 20.0, 40.0]
    assert wrapped.at((160 - 180 * 7) * S) == 20.0
    assert wrapped.mean(0, 180 * S * 5) == pytest.approx(70 / 3)


def test_the_mean_across_a_stamp_is_exact() -> None:
    assert series().mean(130 * S, 190 * S) == 15.0
    assert series(Beyond.WRAP).mean(250 * S, 310 * S) == 25.0
    assert series(Beyond.HOLD).mean(160 * S, 1060 * S) == pytest.approx((60 * 20 + 840 * 40) / 900)


def test_the_mean_within_a_row_is_the_row_to_the_bit() -> None:
    odd = Series(array("q", [0, 300 * S]), array("d", [0.1 + 0.2, 7.3]))
    assert odd.mean(60 * S, 120 * S) == 0.1 + 0.2


def test_a_mean_over_the_unknown_is_unknown() -> None:
    assert series().mean(90 * S, 110 * S) is None
    assert series().mean(270 * S, 290 * S) is None


@pytest.mark.parametrize("beyond", [Beyond.HOLD, Beyond.WRAP])
def test_a_single_row_is_a_constant(beyond: Beyond) -> None:
    single = Series(array("q", [100 * S]), array("d", [5.0]), beyond)
    assert single.at(100 * S) == 5.0
    assert single.mean(150 * S, 99_000 * S) == 5.0


def test_coverage_counts_the_last_row() -> None:
    assert series().covers(100 * S, 280 * S)
    assert not series().covers(100 * S, 281 * S)
    assert not series().covers(99 * S, 200 * S)
    assert not series().covers(100 * S, None)
    assert series(Beyond.HOLD).covers(100 * S, None)
    assert series(Beyond.WRAP).covers(0, None)


@given(st.integers(0, 400), st.integers(1, 400), st.integers(1, 400))
def test_means_add_up(start_s: int, first_s: int, second_s: int) -> None:
    wrapped = series(Beyond.WRAP)
    middle, end = start_s + first_s, start_s + first_s + second_s
    whole = wrapped.mean(start_s * S, end * S)
    parts = wrapped.mean(start_s * S, middle * S) * first_s + wrapped.mean(middle * S, end * S) * second_s
    assert whole * (first_s + second_s) == pytest.approx(parts)
