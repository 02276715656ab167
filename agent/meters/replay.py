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

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from agent.meters.base import MeterConfig
from agent.meters.tracefile import Column, load_recording
from hil.clock import Clock
from hil.devices import DeviceFailed, DeviceUnavailable, Reading
from hil.yamlfile import Document


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


COLUMN: Final = Column("power_w", "a finite number of W, or nothing for a gap", gaps=True)


def load_trace(path: Path, document: Document[Any]) -> Trace:
    """The trace in a CSV file; an empty one, with the faults noted in ``document``, where it cannot be used."""
    recording = load_recording(path, COLUMN, document)
    return Trace(tuple(t_s - recording.times_s[0] for t_s in recording.times_s), recording.values)


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
