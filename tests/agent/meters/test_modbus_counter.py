from collections.abc import Iterator

import pytest

from agent.meters.modbus.counter import Counted, Counter

WH_J = 3600.0
KWH_J = 3.6e6


class Bench:
    """A counter beside a power, read each second."""

    def __init__(self, step_j: float | None = 1e-3, energy_j: float = 1e6) -> None:
        self.counter = Counter(step_j)
        self.now = 0.0
        self.energy_j = energy_j

    def read(self, power_w: float, *, rate: float = 1.0, shown_j: float | None = None, step_j: float = 0.0) -> Counted:
        """A second at ``power_w``, of which the device counts ``rate``, in steps of ``step_j``."""
        self.now += 1.0
        self.energy_j += rate * power_w
        self.counter.take_power(power_w, self.now)
        energy_j = self.energy_j if shown_j is None else shown_j
        return self.counter.take(energy_j // step_j * step_j if step_j else energy_j, self.now)

    def run(self, seconds: int, power_w: float = 15.0, *, rate: float = 1.0, step_j: float = 0.0) -> Iterator[Counted]:
        for _ in range(seconds):
            yield self.read(power_w, rate=rate, step_j=step_j)


def doubts(counted: Iterator[Counted]) -> set[str]:
    return {one.doubt for one in counted}


@pytest.mark.parametrize("power_w", [0.0, 0.3, 15.0, 2000.0])
@pytest.mark.parametrize("step_j", [0.0, WH_J, 36_000.0])
def test_a_counter_that_keeps_up_is_believed(power_w: float, step_j: float):
    bench = Bench(step_j or 1e-3)
    assert doubts(bench.run(20_000, power_w, step_j=step_j)) == {""}


def test_a_load_that_comes_and_goes_is_believed():
    bench = Bench()
    for n in range(50):
        assert doubts(bench.run(13, 400.0 if n % 2 else 5.0)) == {""}


def test_a_counter_that_falls_is_held_back_once_and_then_believed_from_there():
    bench = Bench()
    list(bench.run(10))
    bench.energy_j = 0.0
    first, second, third = bench.read(15.0), bench.read(15.0), bench.read(15.0)
    assert (first.energy_j, second.energy_j, third.energy_j) == (None, 30.0, 45.0)
    assert "energy fell from 277.8 Wh to 0.004167 Wh: a reset, another device, a partial counter?" in first.doubt
    assert second.doubt
    assert not third.doubt


def test_a_torn_reading_is_held_back_and_forgotten():
    bench = Bench()
    list(bench.run(10))
    low = bench.read(15.0, shown_j=500.0)
    sound = bench.read(15.0)
    high = bench.read(15.0, shown_j=bench.energy_j + 65_536 * WH_J)
    again = bench.read(15.0)
    assert [one.energy_j is None for one in (low, sound, high, again)] == [True, False, True, False]
    assert "leapt" in high.doubt
    assert (sound.doubt, again.doubt) == ("", "")


def test_a_counter_that_leaps_each_time_is_never_believed():
    bench = Bench()
    list(bench.run(5))
    counted = list(bench.run(20, rate=1000.0))
    assert all(one.energy_j is None and "leapt" in one.doubt for one in counted)


def test_a_counter_that_moved_on_while_nobody_read_it_is_believed():
    bench = Bench()
    list(bench.run(10))
    bench.counter.gap()
    bench.now += 3600.0
    bench.energy_j += 3600.0 * 15.0
    assert bench.read(15.0) == Counted(bench.energy_j)


def test_a_gap_makes_no_false_comparison():
    bench = Bench()
    for _ in range(5):
        assert doubts(bench.run(100)) == {""}
        bench.counter.gap()
        bench.now += 100.0
        bench.energy_j += 100.0 * 40.0  # it drew more meanwhile


@pytest.mark.parametrize(
    ("rate", "cause"),
    [
        (1 / 3, "energy is one phase's"),
        (3.0, "power is one phase's, energy all phases'"),
        (0.001, "counted in another unit: Wh or kWh"),
        (1 / 3600, "counted in another unit: J or Wh"),
        (0.5, "wrong energy register or unit"),
    ],
)
def test_a_counter_at_another_rate_makes_both_suspect(rate: float, cause: str):
    bench = Bench()
    list(bench.run(10, 400.0))
    *_, last = bench.run(500, 400.0, rate=rate)
    assert cause in last.doubt
    assert last.energy_j is not None


def test_a_counter_that_stands_still_is_found_out_once_it_matters():
    bench = Bench(step_j=1e-3)
    list(bench.run(10, 2000.0))
    *_, last = bench.run(300, 2000.0, rate=0.0)
    assert last.doubt == "the counter makes 0 Wh of 33.33 Wh: does it count at all?"


def test_a_coarse_counter_is_given_the_time_it_needs():
    bench = Bench(step_j=36_000.0)  # hundredths of a kWh, at 15 W one every forty minutes
    assert doubts(bench.run(40_000, step_j=36_000.0)) == {""}
    assert any("one phase's" in doubt for doubt in doubts(bench.run(300_000, rate=1 / 3, step_j=36_000.0)))


def test_one_odd_span_is_no_breach_and_a_sound_one_ends_it():
    bench = Bench()
    list(bench.run(100, 400.0))
    assert doubts(bench.run(60, 400.0, rate=0.3)) == {""}
    assert doubts(bench.run(200, 400.0)) == {""}
    assert any(doubts(bench.run(300, 400.0, rate=0.3)))
    list(bench.run(200, 400.0))
    assert doubts(bench.run(10, 400.0)) == {""}


def test_what_feeds_in_is_not_compared():
    bench = Bench()
    assert doubts(bench.run(1000, -400.0, rate=0.0)) == {""}


def test_a_counter_of_unknown_resolution_is_not_judged_by_its_first_steps():
    bench = Bench(step_j=None)
    assert doubts(bench.run(20_000, step_j=36_000.0)) == {""}
