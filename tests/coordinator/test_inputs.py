from collections.abc import Sequence

import pytest

from coordinator.inputs import Look, MeterWindow, NodeInput
from coordinator.records import InputSource, SampleRange
from hil.devices import Quality

RANGE = SampleRange("jetson-1", "outlet", "00000000", 5, 9, 5)
NEWEST = SampleRange("jetson-1", "outlet", "00000000", 9, 9, 1)


class Shows:
    """A window that shows one look again and again."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self.looks = 0

    @property
    def heard(self) -> bool:
        return self._look.newest_w is not None

    def look(self) -> Look:
        self.looks += 1
        return self._look


def seen(age_s: float, *, mean_w: float | None = None, p95_w: float | None = 18.0, newest_w: float = 15.0) -> Look:
    samples = RANGE if mean_w is not None else None
    return Look(mean_w, Quality.GOOD, samples, newest_w, NEWEST, age_s, p95_w, 1.0)


SILENT = Look(None, Quality.MISSING, None, None, None, None, None, 1.0)


def node(*looks: Look) -> NodeInput:
    windows: Sequence[MeterWindow] = [Shows(look) for look in looks]
    return NodeInput("jetson-1", 20.0, lambda: windows)


def test_samples_since_the_last_step_count_with_their_mean() -> None:
    row = node(seen(0.2, mean_w=14.5)).take()
    assert (row.power_w, row.quality, row.source, row.samples) == (14.5, Quality.GOOD, InputSource.MEASURED, RANGE)


@pytest.mark.parametrize(
    ("age_s", "power_w", "quality", "source"),
    [
        (1.9, 15.0, Quality.GOOD, InputSource.HELD),
        (2.5, 15.0, Quality.STALE, InputSource.HELD),
        (3.5, 18.0, Quality.ESTIMATED, InputSource.ESTIMATED),
        (10.0, 18.0, Quality.ESTIMATED, InputSource.ESTIMATED),
        (10.1, 20.0, Quality.MISSING, InputSource.NAMEPLATE),
    ],
)
def test_silence_is_held_then_estimated_then_nameplate(
    age_s: float, power_w: float, quality: Quality, source: InputSource
) -> None:
    row = node(seen(age_s)).take()
    assert (row.power_w, row.quality, row.source) == (power_w, quality, source)


def test_an_estimate_is_never_below_the_last_value() -> None:
    assert node(seen(5.0, newest_w=19.0, p95_w=12.0)).take().power_w == 19.0
    assert node(seen(5.0, newest_w=19.0, p95_w=None)).take().power_w == 19.0


def test_a_node_never_heard_counts_with_its_nameplate() -> None:
    row = node(SILENT).take()
    assert (row.power_w, row.quality, row.age_s) == (20.0, Quality.MISSING, None)
    assert node().take().power_w == 20.0


def test_a_fallback_that_speaks_beats_a_primary_that_is_estimated() -> None:
    row = node(seen(5.0), seen(0.1, mean_w=13.0)).take()
    assert (row.power_w, row.source) == (13.0, InputSource.MEASURED)


def test_the_primary_beats_its_fallback_while_both_speak() -> None:
    assert node(seen(0.1, mean_w=14.0), seen(0.1, mean_w=13.0)).take().power_w == 14.0


def test_every_meter_is_looked_at_each_time() -> None:
    shows = [Shows(seen(0.1, mean_w=14.0)), Shows(seen(0.1, mean_w=13.0))]
    NodeInput("jetson-1", 20.0, lambda: shows).take()
    assert [window.looks for window in shows] == [1, 1]
