import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.intervals import Intervals

ranges = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20)).map(lambda r: (r[0], r[0] + r[1])), max_size=12)


def numbers(pairs):
    return {n for first, last in pairs for n in range(first, last + 1)}


def test_in_order_stays_one_range():
    intervals = Intervals()
    for seq in range(1, 1001):
        assert intervals.add(seq, seq) == 1
    assert intervals.ranges == ((1, 1000),)
    assert len(intervals) == 1
    assert intervals.upto == 1000
    assert intervals.have == ()


def test_upto_is_zero_without_the_first_and_have_is_everything():
    intervals = Intervals([(5, 9), (20, 20)])
    assert intervals.upto == 0
    assert intervals.have == ((5, 9), (20, 20))
    intervals.add(1, 4)
    assert intervals.upto == 9
    assert intervals.have == ((20, 20),)


def test_touching_ranges_join_and_count_nothing_twice():
    intervals = Intervals([(1, 3), (7, 9)])
    assert intervals.add(4, 6) == 3
    assert intervals.ranges == ((1, 9),)
    assert intervals.add(2, 12) == 3
    assert intervals.ranges == ((1, 12),)
    assert intervals.add(5, 5) == 0


@pytest.mark.parametrize(("first", "last"), [(0, 3), (-1, 1), (5, 4)])
def test_a_bad_range_is_refused_and_changes_nothing(first, last):
    intervals = Intervals([(2, 4)])
    with pytest.raises(ValueError, match="not a range"):
        intervals.add(first, last)
    assert intervals.ranges == ((2, 4),)


@given(ranges, st.integers(1, 80), st.integers(0, 30))
def test_agrees_with_a_plain_set(pairs, first, length):
    plain, intervals = set(), Intervals()
    for low, high in pairs:
        fresh = numbers([(low, high)]) - plain
        assert intervals.add(low, high) == len(fresh)
        plain |= fresh
    last = first + length
    assert numbers(intervals) == plain
    assert intervals.count == len(plain)
    assert all((n in intervals) == (n in plain) for n in range(100))
    assert numbers(intervals.gaps(first, last)) == numbers([(first, last)]) - plain
    assert intervals.lacks(first, last) == (not numbers([(first, last)]) & plain)
    assert numbers(intervals.have) == {n for n in plain if n > intervals.upto}
    # Sorted, disjoint, and no two that touch: as few ranges as there can be.
    edges = intervals.ranges
    assert all(a[1] + 1 < b[0] for a, b in pairwise(edges))
    assert all(a[1] + 1 < b[0] for a, b in pairwise(intervals.gaps(1, 200)))


@given(ranges, ranges)
def test_merge_is_union(left, right):
    merged = Intervals(left)
    assert merged.merge(Intervals(right)) == len(numbers(right) - numbers(left))
    assert merged == Intervals([*left, *right])


@given(st.lists(st.tuples(st.integers(1, 2**53), st.integers(0, 2**40)), max_size=8))
def test_encoding_round_trip(pairs):
    intervals = Intervals((first, first + length) for first, length in pairs)
    assert Intervals.decode(intervals.encode()) == intervals


def test_encoding_is_compact():
    assert len(Intervals([(1, 86_400_000)]).encode()) <= 6
    assert Intervals().encode() == b""


@pytest.mark.parametrize("encoded", [b"\x80", b"\x05", b"\x00\x01", b"\x01\x00\x81"])
def test_garbage_is_not_decoded(encoded):
    with pytest.raises(ValueError, match="not "):
        Intervals.decode(encoded)


def test_random_bytes_never_give_anything_but_a_set_or_a_value_error():
    draw = random.Random(7)
    for _ in range(2_000):
        encoded = draw.randbytes(draw.randrange(12))
        try:
            intervals = Intervals.decode(encoded)
        except ValueError:
            continue
        assert all(1 <= first <= last for first, last in intervals)


def test_reprs_and_compares_by_value():
    assert Intervals([(1, 2)]) == Intervals([(1, 1), (2, 2)])
    assert Intervals([(1, 2)]) != Intervals([(1, 3)])
    assert (Intervals() == 3) is False
    assert repr(Intervals([(1, 2)])) == "Intervals(((1, 2),))"
