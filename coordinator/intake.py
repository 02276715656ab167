"""Takes samples in: live ones are shown to the loop at once, all new ones go to the ledger, in turns."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from coordinator.ledger import Ledger
from coordinator.records import Tombstone
from coordinator.stream import SampleBatch, Stream, StreamBooks, StreamKey
from coordinator.window import FUTURE_US, SampleWindow
from hil.clock import Clock
from hil.units import MICROSECONDS_PER_SECOND
from hil.wire import Birth, Data, Record, WireError

log = logging.getLogger(__name__)

MAX_STREAMS: Final = 1_000
MAX_METERS: Final = 1_000

SampleListener = Callable[[str, str, Record], None]


@dataclass(slots=True)
class IntakeCounters:
    """What was odd about samples in this life: stamped in the future, below 0 W."""

    quarantined: int = 0
    negative: int = 0


@dataclass(slots=True)
class Turn:
    """What is not yet handed to the ledger."""

    samples: list[SampleBatch] = field(default_factory=list)
    tombstones: list[Tombstone] = field(default_factory=list)
    moved: dict[StreamKey, Stream] = field(default_factory=dict)


class Intake:
    """The streams and meters of all agents."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self.counters = IntakeCounters()
        self._ledger = ledger
        self._clock = clock
        self._streams: dict[str, dict[str, Stream]] = {}
        self._windows: dict[str, dict[str, SampleWindow]] = {}
        self._intervals: dict[tuple[str, str], float] = {}
        self._turn = Turn()
        self._odd: set[tuple[str, str, str]] = set()
        self._listeners: list[SampleListener] = []

    def on_sample(self, listener: SampleListener) -> None:
        """Call ``listener(agent, meter, record)`` for each new live sample, usable or not."""
        self._listeners.append(listener)

    def resume(self, books: Iterable[StreamBooks]) -> None:
        """Take up the streams that the ledger has."""
        for stream in books:
            self._streams.setdefault(stream.node, {})[stream.stream] = Stream(stream)

    def window(self, agent: str, meter: str) -> SampleWindow:
        """The live samples of an agent's meter, which need not have been heard yet."""
        windows = self._windows.setdefault(agent, {})
        if meter not in windows:
            windows[meter] = SampleWindow(agent, meter, self._clock)
            windows[meter].interval_s = self._intervals.get((agent, meter), windows[meter].interval_s)
        return windows[meter]

    def learn(self, birth: Birth) -> None:
        """Take the periods of an agent's meters from its birth."""
        for meter in birth.meters[:MAX_METERS]:
            self._intervals[birth.node, meter.name] = meter.interval_s
            if meter.name in self._windows.get(birth.node, {}):
                self._windows[birth.node][meter.name].interval_s = meter.interval_s

    def take(self, agent: str, data: Data, arrived: float) -> None:
        """Take a message that came in at ``arrived`` (monotonic seconds). Raises WireError when none of it is taken."""
        _check(data)
        wall_us = self._clock.wall_us() - int((self._clock.monotonic() - arrived) * MICROSECONDS_PER_SECOND)
        stream = self._stream(agent, data.stream)
        self._know_meters(agent, {record.meter for record in data.r})
        if self._ledger.full:
            # The loop goes on with what is measured, though nothing can be kept; the agent will send it again.
            self._show(agent, data, data.r, arrived, wall_us)
            raise WireError("ledger_full", "the disk has failed for too long; the agent keeps its samples")
        fresh = stream.admit(data.r)
        for lost in data.lost:
            self._turn.tombstones.extend(stream.declare_lost(lost))
        self._turn.moved[agent, data.stream] = stream
        if fresh:
            self._turn.samples.append(SampleBatch(agent, data.stream, data.hist, wall_us, fresh))
            self._show(agent, data, fresh, arrived, wall_us)

    def hand_over(self) -> None:
        """Give the ledger what was taken since the last time. Raises LedgerError when the ledger is broken."""
        turn = self._turn
        if turn.moved:
            self._turn = Turn()
            self._ledger.record_samples(
                turn.samples, turn.tombstones, [stream.books() for stream in turn.moved.values()]
            )

    def _stream(self, agent: str, name: str) -> Stream:
        streams = self._streams.setdefault(agent, {})
        stream = streams.get(name)
        if stream is None:
            if len(streams) >= MAX_STREAMS:
                raise WireError("too_many_streams", f"more than {MAX_STREAMS} from one agent")
            stream = streams[name] = Stream.begin(agent, name)
        if stream.frayed:
            raise WireError("too_many_holes", f"stream {name} has more holes than are kept")
        return stream

    def _know_meters(self, agent: str, meters: set[str]) -> None:
        windows = self._windows.setdefault(agent, {})
        unknown = meters - windows.keys()
        if len(windows) + len(unknown) > MAX_METERS:
            raise WireError("too_many_meters", f"more than {MAX_METERS} from one agent")
        for meter in unknown:
            self.window(agent, meter)

    def _show(self, agent: str, data: Data, records: Sequence[Record], arrived: float, wall_us: int) -> None:
        """Let the loop and other listeners see live samples."""
        if data.hist:
            return
        latest_us = wall_us + FUTURE_US
        for meter, mine in _by_meter(records).items():
            live = [record for record in mine if record.t_us <= latest_us]
            if len(live) < len(mine):
                self.counters.quarantined += len(mine) - len(live)
                self._tell_once(agent, meter, "is stamped in the future: stored, but not used live")
            for record in self._windows[agent][meter].add(data.stream, live, arrived):
                if record.w is not None and record.w < 0.0:
                    self.counters.negative += 1
                    self._tell_once(agent, meter, "is below 0 W")
                for listener in self._listeners:
                    listener(agent, meter, record)

    def _tell_once(self, agent: str, meter: str, what: str) -> None:
        if (agent, meter, what) not in self._odd:
            self._odd.add((agent, meter, what))
            log.warning("%s: a sample of meter %s %s (told once; counted from here on)", agent, meter, what)


def _by_meter(records: Iterable[Record]) -> dict[str, list[Record]]:
    meters: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        meters[record.meter].append(record)
    return meters


def _check(data: Data) -> None:
    if not data.r and not data.lost:
        raise WireError("empty", "neither samples nor tombstones")
    for lost in data.lost:
        if lost.last < lost.first:
            raise WireError("malformed", f"a tombstone from {lost.first} back to {lost.last}")
