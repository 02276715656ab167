"""Finds the samples that a step's inputs were made of, in one pass over the ledger.

A step took the samples that ``coordinator.window`` let it see: live, not stamped in the future, rising in number, and
usable. The same rule is applied here to what is on disk.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from coordinator.records import SampleRange, SampleRow
from coordinator.window import FUTURE_US
from hil.devices import Quality

MAX_WAITING: Final = 100_000
"""Samples of a meter that no step uses, a fallback's, are forgotten beyond this."""


@dataclass(slots=True)
class _Meter:
    waiting: deque[SampleRow] = field(default_factory=lambda: deque(maxlen=MAX_WAITING))
    seen: int = 0
    newest: SampleRow | None = None


class StepSamples:
    """Follows the steps of a microgrid through ``rows``: live samples with their ids, in order."""

    def __init__(self, rows: Iterator[tuple[int, SampleRow]]) -> None:
        self._rows = rows
        self._next = next(rows, None)
        self._meters: defaultdict[tuple[str, str, str], _Meter] = defaultdict(_Meter)

    def advance(self, sample_id: int) -> None:
        """Read on, up to the last sample that was in before the step."""
        while self._next is not None and self._next[0] <= sample_id:
            self._add(self._next[1])
            self._next = next(self._rows, None)

    def take(self, wanted: SampleRange | None) -> tuple[SampleRow, ...]:
        """The samples of an input; none for one that was not measured."""
        if wanted is None:
            return ()
        meter = self._meters[wanted.node, wanted.stream, wanted.meter]
        if meter.newest is not None and meter.newest.seq == wanted.last:  # held from an earlier step
            return (meter.newest,)
        taken = []
        while meter.waiting and meter.waiting[0].seq <= wanted.last:
            meter.newest = meter.waiting.popleft()
            if meter.newest.seq >= wanted.first:
                taken.append(meter.newest)
        return tuple(taken)

    def _add(self, sample: SampleRow) -> None:
        meter = self._meters[sample.node, sample.stream, sample.meter]
        if sample.seq <= meter.seen or sample.t_us > sample.arrived_us + FUTURE_US:
            return
        meter.seen = sample.seq
        if sample.power_w is not None and sample.quality is not Quality.MISSING:
            meter.waiting.append(sample)
