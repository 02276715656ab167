"""A recorded trace, played back in real time as if it were a meter.

Configuration::

    meters:
      - name: outlet-1
        kind: replay
        file: traces/jetson.csv   # relative to agent.yaml
        speed: 1.0                # seconds of the trace per second
        loop: true                # start anew at its end; otherwise the meter ends there

The file is CSV with a header. One column is ``t_s`` (seconds from any origin) or ``time`` (ISO 8601; UTC where no zone
is given), another ``power_w``; more columns are left alone. Times must rise. A value holds until the next row; in a
loop the last one holds as long as the rows are apart on average. An empty ``power_w`` is a gap and reads as such.
"""

import csv
import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from agent.meters.base import MeterConfig
from hil.clock import Clock
from hil.devices import DeviceFailed, DeviceUnavailable, Reading
from hil.yamlfile import Document, Fault, show

FAULTS_SHOWN: Final = 20


class ReplayMeterConfig(MeterConfig, frozen=True, kw_only=True, tag_field="kind", tag="replay"):
    """A trace to play back: ``file``, at ``speed`` seconds of the trace per second, once or in a loop."""

    file: str
    speed: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    loop: bool = True


@dataclass(frozen=True, slots=True)
class Trace:
    """Powers in W (None: a gap), each held from its time in s after the first until the next one's."""

    times_s: tuple[float, ...]
    powers_w: tuple[float | None, ...]

    @property
    def length_s(self) -> float:
        """How long the trace lasts, the last value held for the mean distance of two rows."""
        last = self.times_s[-1]
        return last + (last / (len(self.times_s) - 1) if len(self.times_s) > 1 else 1.0)

    def power_w(self, t_s: float) -> float | None:
        """The power in W that holds at ``t_s`` (0 ≤ t_s < length_s); None in a gap."""
        return self.powers_w[bisect_right(self.times_s, t_s) - 1]


EMPTY: Final = Trace((), ())


def load_trace(path: Path, document: Document[Any]) -> Trace:
    """The trace in a CSV file; an empty one, with the faults noted in ``document``, where it cannot be used.

    A fault names the file, the row, the column, what stands there and what was expected.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            trace, faults = _parse(csv.reader(file), str(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        trace, faults = EMPTY, [Fault(str(path), None, "file", "unreadable", str(reason))]
    document.faults.extend(faults[:FAULTS_SHOWN])
    return trace


def _parse(rows: Iterator[list[str]], file: str) -> tuple[Trace, list[Fault]]:
    header = [name.strip() for name in next(rows, [])]
    time_name = next((name for name in ("t_s", "time") if name in header), None)
    if time_name is None or "power_w" not in header:
        expected = "expected a header with t_s or time, and power_w"
        return EMPTY, [Fault(file, 1, "header", show(",".join(header)) or "empty", expected)]
    time_at, power_at = header.index(time_name), header.index("power_w")
    faults: list[Fault] = []
    times: list[float] = []
    powers: list[float | None] = []
    for number, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        try:
            t_s = _time(row, time_at, time_name)
            if times and t_s <= times[-1]:
                raise _Cell(time_name, row[time_at], "expected a later time than in the row before")
            power_w = _power(row, power_at)
        except _Cell as error:
            faults.append(Fault(file, number, error.column, show(error.value), error.expected))
            continue
        times.append(t_s)
        powers.append(power_w)
    if not times and not faults:
        faults.append(Fault(file, None, "rows", "none", "expected at least one row below the header"))
    if faults:
        return EMPTY, faults
    return Trace(tuple(t_s - times[0] for t_s in times), tuple(powers)), []


class _Cell(Exception):
    """One cell that cannot be used."""

    def __init__(self, column: str, value: str, expected: str) -> None:
        super().__init__(expected)
        self.column = column
        self.value = value
        self.expected = expected


def _time(row: list[str], at: int, name: str) -> float:
    text = row[at].strip() if at < len(row) else ""
    try:
        if name == "t_s":
            return _finite(text)
        stamp = datetime.fromisoformat(text)
    except ValueError as error:
        expected = "expected seconds" if name == "t_s" else "expected a time such as 2026-06-21T20:00:00Z"
        raise _Cell(name, text or "empty", expected) from error
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()


def _power(row: list[str], at: int) -> float | None:
    text = row[at].strip() if at < len(row) else ""
    try:
        return _finite(text) if text else None
    except ValueError as error:
        raise _Cell("power_w", text, "expected a finite number of W, or nothing for a gap") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


class ReplayMeter:
    """A trace as a meter; it starts when it is opened."""

    def __init__(self, config: ReplayMeterConfig, trace: Trace, clock: Clock) -> None:
        self._config = config
        self._trace = trace
        self._clock = clock
        self._started: float | None = None

    @property
    def name(self) -> str:
        """The meter's name in the configuration."""
        return self._config.name

    async def open(self) -> None:
        """Start the trace."""
        self._started = self._clock.monotonic()

    async def read(self) -> Reading:
        """The power in W that holds now. Raises DeviceUnavailable in a gap, DeviceFailed once the trace is over."""
        if self._started is None:
            raise DeviceUnavailable(self.name, "not open")
        t_s = (self._clock.monotonic() - self._started) * self._config.speed
        if t_s >= self._trace.length_s:
            if not self._config.loop:
                raise DeviceFailed(self.name, f"the trace is over after {self._trace.length_s:g} s")
            t_s %= self._trace.length_s
        power_w = self._trace.power_w(t_s)
        if power_w is None:
            raise DeviceUnavailable(self.name, "a gap in the trace")
        return Reading(power_w)

    async def close(self) -> None:
        """Nothing is held."""
