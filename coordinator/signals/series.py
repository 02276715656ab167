"""A value over time, as a table gives it: held from each stamp to the next."""

import enum
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass


class Beyond(enum.StrEnum):
    """What holds outside the table."""

    WRAP = "wrap"  # the table repeats, before its start as well
    HOLD = "hold"  # the last value goes on
    END = "end"  # nothing: an actor is gone (0 W), a signal unknown


@dataclass(frozen=True, slots=True)
class Series:
    """Held values in order of time. The last row lasts as long as the one before it, until ``end_us``.

    ``times_us`` are instants in microseconds since 1970, at least one, strictly rising. Before the first one the value
    is unknown, unless the series wraps.
    """

    times_us: "array[int]"
    values: "array[float]"
    beyond: Beyond = Beyond.END

    @property
    def start_us(self) -> int:
        """The first stamp."""
        return self.times_us[0]

    @property
    def end_us(self) -> int:
        """Where the last row ends; at the first stamp for a table of one row."""
        return self.times_us[-1] + (self.times_us[-1] - self.times_us[-2] if len(self.times_us) > 1 else 0)

    def covers(self, start_us: int, end_us: int | None) -> bool:
        """Whether a value is there at every instant from ``start_us`` to ``end_us`` (None: for ever)."""
        if self.beyond is Beyond.WRAP:
            return True
        until_end = self.beyond is Beyond.HOLD or (end_us is not None and end_us <= self.end_us)
        return self.start_us <= start_us and until_end

    def at(self, t_us: int) -> float | None:
        """The value that holds at an instant; None where there is none."""
        return self._segment(t_us)[0]

    def mean(self, start_us: int, end_us: int) -> float | None:
        """The time-mean over an interval; None where the value is unknown in any part of it."""
        value, until_us = self._segment(start_us)
        if until_us is None or until_us >= end_us:
            return value  # as it stands in the table, without a rounding
        total = 0.0
        for part, length_us in self._parts(start_us, end_us):
            if part is None:
                return None
            total += part * length_us
        return total / (end_us - start_us)

    def _parts(self, start_us: int, end_us: int) -> Iterator[tuple[float | None, int]]:
        """Value and length in µs of each piece of the interval."""
        t_us = start_us
        while t_us < end_us:
            value, until_us = self._segment(t_us)
            until_us = end_us if until_us is None else min(until_us, end_us)
            yield value, until_us - t_us
            t_us = until_us

    def _segment(self, t_us: int) -> tuple[float | None, int | None]:
        """The value at ``t_us``, and the instant at which it ends (None: never)."""
        shift_us = 0
        if self.beyond is Beyond.WRAP:
            period_us = self.end_us - self.start_us
            if period_us == 0:
                return self.values[0], None
            shift_us = (t_us - self.start_us) // period_us * period_us
        index = bisect_right(self.times_us, t_us - shift_us) - 1
        if index < 0:
            return None, self.start_us
        if index + 1 < len(self.times_us):
            return self.values[index], self.times_us[index + 1] + shift_us
        if self.beyond is Beyond.HOLD:
            return self.values[index], None
        if t_us - shift_us < self.end_us:
            return self.values[index], self.end_us + shift_us
        return None, None
