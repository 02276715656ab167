"""The live view of one meter: what it showed since the loop last looked, and over the last five minutes.

Arithmetic here is plain and in order of arrival, so that a replay from the recorded samples gets the same bits.
"""

import math
from array import array
from collections.abc import Iterable
from typing import Final

from coordinator.inputs import Look
from coordinator.records import SampleRange
from hil.clock import Clock
from hil.devices import Quality
from hil.units import MICROSECONDS_PER_SECOND
from hil.wire import Record

FUTURE_US: Final = 5 * MICROSECONDS_PER_SECOND
"""A sample stamped this far ahead of our clock is kept, and not used live."""

RECENT_S: Final = 300
PERCENTILE: Final = 0.95
UNKNOWN_INTERVAL_S: Final = 1.0

_WORST_LAST: Final = (Quality.GOOD, Quality.STALE, Quality.ESTIMATED, Quality.SUSPECT, Quality.MISSING)
_BADNESS: Final = {quality: badness for badness, quality in enumerate(_WORST_LAST)}


def mean_power_w(powers_w: Iterable[float]) -> float | None:
    """The mean of sample powers as a step takes it, summed in order; None of none."""
    total, count = 0.0, 0
    for power_w in powers_w:
        total += power_w
        count += 1
    return total / count if count else None


class SampleWindow:
    """One meter's live samples. ``interval_s`` is its period, as its agent announces it."""

    def __init__(self, node: str, meter: str, clock: Clock) -> None:
        self.interval_s = UNKNOWN_INTERVAL_S
        self._node = node
        self._meter = meter
        self._clock = clock
        self._recent = RecentPower()
        self._stream = ""
        self._taken = 0  # the highest number seen of the stream: a sample counts once, and never out of order
        self._newest: Record | None = None
        self._newest_stream = ""
        self._newest_arrived = 0.0
        self._first = 0
        self._count = 0
        self._total_w = 0.0
        self._badness = 0

    @property
    def heard(self) -> bool:
        """Whether a usable sample ever came in."""
        return self._newest is not None

    def add(self, stream: str, records: Iterable[Record], arrived: float) -> list[Record]:
        """Take live samples that came in at ``arrived`` (monotonic seconds); those that are newer than any before."""
        if stream != self._stream:
            self._stream = stream
            self._taken = 0
            self._begin()
        fresh = []
        count, total_w = 0, 0.0
        for record in records:
            if record.seq <= self._taken:
                continue
            self._taken = record.seq
            fresh.append(record)
            power_w, quality = record.w, record.q
            if power_w is None or quality is Quality.MISSING:
                continue
            count += 1
            total_w += power_w
            self._total_w += power_w
            if quality is not Quality.GOOD:
                self._badness = max(self._badness, _BADNESS[quality])
            self._newest = record
            self._first = self._first or record.seq
        if count:
            self._count += count
            self._newest_stream = stream
            self._newest_arrived = arrived
            self._recent.add(total_w, count, arrived)
        return fresh

    def look(self) -> Look:
        """What the usable samples since the last look were, and the newest one ever.

        The percentile is worked out only once the newest sample is older than the meter's period.
        """
        now = self._clock.monotonic()
        newest, count = self._newest, self._count
        if newest is None:
            return Look(None, Quality.MISSING, None, None, None, None, None, self.interval_s)
        age_s = now - self._newest_arrived
        look = Look(
            mean_w=self._total_w / count if count else None,
            quality=_WORST_LAST[self._badness] if count else newest.q,
            samples=self._range(self._first, newest.seq, count) if count else None,
            newest_w=newest.w,
            newest=self._range(newest.seq, newest.seq, 1),
            age_s=age_s,
            p95_w=self._recent.percentile_w(now) if age_s > self.interval_s else None,
            interval_s=self.interval_s,
        )
        self._begin()
        return look

    def _begin(self) -> None:
        self._first = 0
        self._count = 0
        self._total_w = 0.0
        self._badness = 0

    def _range(self, first: int, last: int, count: int) -> SampleRange:
        return SampleRange(self._node, self._meter, self._newest_stream, first, last, count)


class RecentPower:
    """The last five minutes as means of one second each: a few kilobytes, whatever the rate of the meter."""

    def __init__(self) -> None:
        self._means_w: array[float] = array("d")
        self._second = -RECENT_S
        self._total_w = 0.0
        self._count = 0

    def add(self, total_w: float, count: int, arrived: float) -> None:
        """Take the sum of ``count`` samples that came in at ``arrived`` (monotonic seconds, never going back)."""
        second = int(arrived)
        if second != self._second:
            self._advance(second)
        self._total_w += total_w
        self._count += count

    def percentile_w(self, now: float) -> float | None:
        """The 95th percentile in W, nearest rank; None where nothing came in for five minutes."""
        self._advance(int(now))
        means_w = [mean_w for mean_w in self._means_w if not math.isnan(mean_w)]
        if self._count:
            means_w.append(self._total_w / self._count)
        means_w.sort()
        return means_w[math.ceil(PERCENTILE * len(means_w)) - 1] if means_w else None

    def _advance(self, second: int) -> None:
        if second <= self._second:
            return
        if not self._means_w:
            self._means_w = array("d", [math.nan]) * RECENT_S
        self._means_w[self._second % RECENT_S] = self._total_w / self._count if self._count else math.nan
        for skipped in range(self._second + 1, min(second, self._second + RECENT_S)):
            self._means_w[skipped % RECENT_S] = math.nan
        # The slot of the second now begun holds one from five minutes ago.
        self._means_w[second % RECENT_S] = math.nan
        self._second, self._total_w, self._count = second, 0.0, 0
