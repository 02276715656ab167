import pytest

from coordinator.records import SampleRange
from coordinator.window import RECENT_S, RecentPower, SampleWindow, mean_power_w
from hil.clock import ManualClock
from hil.devices import Quality
from hil.wire import Record

STREAM = "0123abcd"


def record(seq, power_w, quality=Quality.GOOD):
    return Record(seq, 1_000_000 * seq, "outlet-1", power_w, None, 0, quality)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def window(clock):
    return SampleWindow("jetson-1", "outlet-1", clock)


def fill(window, clock, *samples, stream=STREAM):
    window.add(stream, samples, clock.monotonic())


def used(first, last, count, stream=STREAM):
    return SampleRange("jetson-1", "outlet-1", stream, first, last, count)


def test_before_the_first_sample_nothing_is_known(window):
    look = window.look()
    assert (look.mean_w, look.newest_w, look.newest, look.age_s, look.p95_w) == (None, None, None, None, None)
    assert look.quality is Quality.MISSING
    assert not window.heard


async def test_the_mean_is_of_what_came_since_the_last_look(window, clock):
    fill(window, clock, record(1, 10.0), record(2, 20.0))
    look = window.look()
    assert (look.mean_w, look.samples, look.quality) == (15.0, used(1, 2, 2), Quality.GOOD)
    await clock.advance(0.25)
    fill(window, clock, record(3, 30.0))
    look = window.look()
    assert (look.mean_w, look.samples) == (30.0, used(3, 3, 1))
    assert look.age_s == 0.0


async def test_between_samples_the_newest_stays_with_its_age(window, clock):
    fill(window, clock, record(1, 10.0), record(2, 20.0, Quality.SUSPECT))
    window.look()
    await clock.advance(2.5)
    look = window.look()
    assert (look.mean_w, look.samples) == (None, None)
    assert (look.newest_w, look.newest, look.age_s) == (20.0, used(2, 2, 1), 2.5)
    assert look.quality is Quality.SUSPECT


async def test_a_missing_sample_is_heard_but_is_no_power_and_no_sign_of_freshness(window, clock):
    fill(window, clock, record(1, 10.0))
    window.look()
    await clock.advance(4.0)
    fill(window, clock, record(2, None, Quality.MISSING), record(3, 0.0, Quality.MISSING), record(4, None))
    look = window.look()
    assert (look.mean_w, look.newest_w, look.age_s) == (None, 10.0, 4.0)


def test_missing_samples_among_good_ones_do_not_count(window, clock):
    fill(window, clock, record(1, 10.0), record(2, None, Quality.MISSING), record(3, 20.0))
    look = window.look()
    assert (look.mean_w, look.samples, look.quality) == (15.0, used(1, 3, 2), Quality.GOOD)


@pytest.mark.parametrize(
    ("qualities", "worst"),
    [
        ([Quality.GOOD, Quality.STALE], Quality.STALE),
        ([Quality.ESTIMATED, Quality.STALE], Quality.ESTIMATED),
        ([Quality.SUSPECT, Quality.GOOD, Quality.ESTIMATED], Quality.SUSPECT),
    ],
)
def test_the_quality_is_the_worst_of_those_used(window, clock, qualities, worst):
    fill(window, clock, *(record(seq, 1.0, quality) for seq, quality in enumerate(qualities, 1)))
    assert window.look().quality is worst


def test_a_sample_counts_once_and_only_in_order(window, clock):
    assert window.add(STREAM, [record(5, 10.0)], clock.monotonic())
    assert not window.add(STREAM, [record(5, 10.0)], clock.monotonic())
    assert not window.add(STREAM, [record(4, 99.0)], clock.monotonic())
    assert window.look().samples == used(5, 5, 1)
    assert not window.add(STREAM, [record(4, 99.0)], clock.monotonic())
    assert window.look().mean_w is None


def test_a_new_stream_starts_anew(window, clock):
    fill(window, clock, record(70, 10.0))
    fill(window, clock, record(1, None, Quality.MISSING), stream="ffffffff")
    look = window.look()
    assert (look.mean_w, look.newest_w, look.newest) == (None, 10.0, used(70, 70, 1))
    fill(window, clock, record(2, 30.0), stream="ffffffff")
    assert window.look().samples == used(2, 2, 1, stream="ffffffff")


def test_the_mean_is_summed_in_order_as_a_replay_does_it(window, clock):
    powers = [0.1, 1e16, -1e16, 0.3]
    fill(window, clock, *(record(seq, power) for seq, power in enumerate(powers, 1)))
    assert window.look().mean_w == mean_power_w(powers) == (((0.1 + 1e16) - 1e16) + 0.3) / 4
    assert mean_power_w([]) is None


async def test_the_percentile_comes_once_the_newest_is_older_than_a_period(window, clock):
    window.interval_s = 2.0
    for seq in range(1, 101):
        fill(window, clock, record(seq, float(seq)))
        await clock.advance(1.0)
    assert window.look().p95_w is None
    await clock.advance(1.5)
    assert window.look().p95_w == 95.0


def test_percentile_is_of_second_means_over_five_minutes():
    recent = RecentPower()
    for second in range(1000, 1000 + RECENT_S + 200):
        recent.add(1000.0 if second < 1150 else 10.0, 1, second + 0.2)
        recent.add(1000.0 if second < 1150 else 20.0, 1, second + 0.7)
    assert recent.percentile_w(1000.0 + RECENT_S + 199.9) == 15.0


def test_a_silence_empties_the_percentile():
    recent = RecentPower()
    recent.add(100.0, 1, 1000.0)
    recent.add(50.0, 1, 1100.0)
    assert recent.percentile_w(1100.5) == 100.0
    assert recent.percentile_w(1299.0) == 100.0
    assert recent.percentile_w(1300.0) == 50.0
    assert recent.percentile_w(1400.0) is None
    recent.add(7.0, 1, 99_999.0)
    assert recent.percentile_w(99_999.0) == 7.0


def test_percentile_forgets_across_long_and_short_gaps_alike():
    recent = RecentPower()
    for second in range(1000, 1010):
        recent.add(500.0, 1, float(second))
    recent.add(5.0, 1, 1305.0)
    assert recent.percentile_w(1305.0) == 500.0  # 1006 to 1009 are within five minutes
    assert recent.percentile_w(1309.0) == 5.0
