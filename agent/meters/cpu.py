"""The power of this machine, modelled from how busy its processors are.

Configuration, with a straight line from idle to full load::

    meters:
      - name: host
        kind: cpu
        idle_w: 12.5
        max_w: 65

or with a curve of eleven values in W at 0, 10, … 100 % load, as SPECpower_ssj2008 reports list them
(https://www.spec.org/power_ssj2008/), straight lines in between::

      - name: host
        kind: cpu
        curve_w: [44, 55, 61, 67, 73, 79, 86, 93, 101, 110, 119]

The load is the share of time, since the last reading, in which the processors were not idle (waiting for a disk is
idle): ``/proc/stat`` through psutil. In a container this is the load of the whole host. A model is not a measurement:
the quality is ``estimated``, unless ``trust: good`` says that the curve was fitted to this very machine.
"""

import itertools
from collections.abc import Callable
from typing import Annotated, Final, Literal, Protocol

import msgspec

from agent.meters.base import MeterConfig
from hil.clock import Clock
from hil.devices import DeviceUnavailable, Quality, Reading

# The kernel counts in steps of 10 ms, a processor each.
BETWEEN_LOOKS_S: Final = 0.1

Power = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class CpuMeterConfig(MeterConfig, frozen=True, kw_only=True, tag_field="kind", tag="cpu"):
    """The machine's load as power: either ``idle_w`` and ``max_w``, or ``curve_w``."""

    idle_w: Power | None = None
    max_w: Power | None = None
    curve_w: Annotated[tuple[Power, ...], msgspec.Meta(min_length=11, max_length=11)] | None = None
    trust: Literal["estimated", "good"] = "estimated"

    def __post_init__(self) -> None:
        line = self.idle_w is not None and self.max_w is not None
        if line == (self.curve_w is not None) or (self.idle_w is None) != (self.max_w is None):
            raise ValueError("expected either idle_w and max_w, or curve_w with 11 values")
        if any(b < a for a, b in itertools.pairwise(self.points_w)):
            raise ValueError("expected a power that does not fall as the load rises")

    @property
    def points_w(self) -> tuple[float, ...]:
        """Power in W at equal steps of load, from idle to full."""
        if self.curve_w is not None:
            return self.curve_w
        return (self.idle_w or 0.0, self.max_w or 0.0)


class CpuTimes(Protocol):
    """Seconds the processors spent, since boot; the fields that psutil gives on Linux, of which these count."""

    @property
    def user(self) -> float:
        """In programs, guests included."""

    @property
    def nice(self) -> float:
        """In programs of low priority, guests included."""

    @property
    def system(self) -> float:
        """In the kernel."""

    @property
    def irq(self) -> float:
        """Serving interrupts."""

    @property
    def softirq(self) -> float:
        """Serving deferred interrupts."""

    @property
    def steal(self) -> float:
        """Taken by the hypervisor: neither ours nor idle, so it counts as neither."""

    @property
    def idle(self) -> float:
        """Doing nothing."""

    @property
    def iowait(self) -> float:
        """Doing nothing while a disk works."""


def busy_and_idle(times: CpuTimes) -> tuple[float, float]:
    """Seconds the processors were busy, and idle, since boot."""
    busy = times.user + times.nice + times.system + times.irq + times.softirq
    return busy, times.idle + times.iowait


class CpuMeter:
    """Power in W from the load since the last reading."""

    def __init__(self, config: CpuMeterConfig, clock: Clock, times: Callable[[], CpuTimes] | None = None) -> None:
        self._config = config
        self._clock = clock
        self._times = times
        self._last: tuple[float, float] | None = None
        self._second_look = 0.0

    @property
    def name(self) -> str:
        """The meter's name in the configuration."""
        return self._config.name

    async def open(self) -> None:
        """Take the first of the two looks that a load needs; the first reading waits a little for the second."""
        if self._times is None:
            import psutil  # an agent without this meter does without it

            self._times = psutil.cpu_times
        self._last = busy_and_idle(self._times())
        self._second_look = self._clock.monotonic() + BETWEEN_LOOKS_S

    async def read(self) -> Reading:
        """Power in W for the load since the last reading. Raises DeviceUnavailable where no time was counted since."""
        if self._times is None or self._last is None:
            raise DeviceUnavailable(self.name, "not open")
        await self._clock.sleep_until(self._second_look)
        now = busy_and_idle(self._times())
        busy, idle = now[0] - self._last[0], now[1] - self._last[1]
        if busy < 0 or idle < 0:  # the kernel's idle counters are known to step back a little
            self._last = now
            raise DeviceUnavailable(self.name, "the processor times went backwards")
        if busy + idle <= 0:
            raise DeviceUnavailable(self.name, "no processor time was counted since the last reading")
        self._last = now
        load = busy / (busy + idle)
        return Reading(
            interpolate(self._config.points_w, load),
            quality=Quality(self._config.trust),
            note="modelled from the processors' load",
        )

    async def close(self) -> None:
        """Nothing is held."""


def interpolate(points_w: tuple[float, ...], load: float) -> float:
    """Power in W at ``load`` (0..1) on a curve given at equal steps of load."""
    place = min(max(load, 0.0), 1.0) * (len(points_w) - 1)
    left = min(int(place), len(points_w) - 2)
    share = place - left
    return points_w[left] * (1 - share) + points_w[left + 1] * share
