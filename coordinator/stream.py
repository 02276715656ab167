"""A stream: the numbered samples of one agent's spool, and the books on what became of each number.

A number ends in exactly one of two ways: its sample was received, or its agent declared it lost. Whatever comes a
second time is a duplicate, however often the wire repeats it and whichever life of the coordinator sees it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from coordinator.records import Tombstone
from hil.intervals import Intervals, Range
from hil.wire import Lost, NodeState, Record

StreamKey = tuple[str, str]
"""Node and stream name: who counts."""

MAX_RANGES: Final = 10_000
"""An agent that leaves more holes than this is not one of ours; its stream must not grow without bound here."""


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """The samples of one message, all new. ``node`` is the agent that sent them, ``arrived_us`` wall time."""

    node: str
    stream: str
    hist: bool
    arrived_us: int
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class StreamBooks:
    """A stream at one moment. ``ranges`` are the numbers settled: ``committed`` samples and ``lost`` ones."""

    node: str
    stream: str
    ranges: tuple[Range, ...]
    committed: int
    duplicates: int
    lost: int

    @property
    def key(self) -> StreamKey:
        """Whose books these are."""
        return self.node, self.stream

    def generated(self, state: NodeState | None) -> int:
        """How many samples of the stream belong to this run, as far as is known: those settled and those to come.

        Numbers below the first that came are an earlier run's. Of those above the last only the agent itself can tell,
        by its ``state``: it counts from the stream's beginning.
        """
        if not self.ranges:
            return 0
        first, last = self.ranges[0][0], self.ranges[-1][1]
        if first > 1 or state is None or state.stream != self.stream:
            return last - first + 1
        return max(last, state.generated)


class Stream:
    """A stream as it comes in."""

    def __init__(self, books: StreamBooks) -> None:
        self._node = books.node
        self._name = books.stream
        self._settled = Intervals(books.ranges)
        self._committed = books.committed
        self._duplicates = books.duplicates
        self._lost = books.lost

    @classmethod
    def begin(cls, node: str, stream: str) -> "Stream":
        """A stream of which nothing is known yet."""
        return cls(StreamBooks(node, stream, (), 0, 0, 0))

    @property
    def frayed(self) -> bool:
        """Whether it has more holes than any working agent leaves."""
        return len(self._settled) > MAX_RANGES

    def admit(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records that are new, now counted as committed; the others are counted as duplicates."""
        fresh = records if self._admit_run(records) else [r for r in records if self._settled.add(r.seq, r.seq)]
        self._committed += len(fresh)
        self._duplicates += len(records) - len(fresh)
        return fresh

    def declare_lost(self, lost: Lost) -> list[Tombstone]:
        """The numbers of ``lost`` that never came, as tombstones; what did come is not lost."""
        gaps = self._settled.gaps(lost.first, lost.last)
        self._lost += self._settled.add(lost.first, lost.last)
        return [Tombstone(self._node, self._name, first, last, lost.why) for first, last in gaps]

    def books(self) -> StreamBooks:
        """The stream as it stands."""
        return StreamBooks(self._node, self._name, self._settled.ranges, self._committed, self._duplicates, self._lost)

    def _admit_run(self, records: Sequence[Record]) -> bool:
        # The usual case, a run of consecutive numbers of which none was seen: one look for all of them.
        if not records:
            return True
        first, last = records[0].seq, records[-1].seq
        if last - first + 1 != len(records) or not self._settled.lacks(first, last):
            return False
        if any(record.seq != seq for seq, record in enumerate(records, first)):
            return False
        self._settled.add(first, last)
        return True
