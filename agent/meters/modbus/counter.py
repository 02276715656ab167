"""Whether an energy counter can be believed: it never falls, never leaps, and runs as fast as the power says.

A counter that falls was reset, is another device's, or a partial one; one that leaps was read while it changed. Either
is held back until a second reading goes on from there. Over longer spans the energy counted must be the power's
integral: what counts at another rate is another quantity (one phase, reactive energy, kWh for Wh).
"""

from dataclasses import dataclass
from typing import Final

from hil.units import JOULES_PER_WH, WH_PER_KWH

COARSE_J: Final = 0.1 * WH_PER_KWH * JOULES_PER_WH
"""The step of a counter of which none was seen yet: displays show tenths of kWh."""

LEAP: Final = 10.0
LEAP_J: Final = 2000.0
"""Between two readings it may count so many times the power's integral, and so much beside it."""

SPAN_S: Final = 60.0
STEPS: Final = 8
"""Counter and power are compared over so long and so many steps of the counter at least: a step is uncertain."""
TOLERANCE: Final = 0.25
ODD_SPANS: Final = 2

_RATES: Final = (
    (1000.0, "energy is counted in another unit: Wh or kWh?"),
    (3600.0, "energy is counted in another unit: J or Wh?"),
    (3.0, "power is one phase's, energy all phases'?"),
    (1 / 3.0, "energy is one phase's: a partial counter?"),
    (0.001, "energy is counted in another unit: Wh or kWh?"),
    (1 / 3600.0, "energy is counted in another unit: J or Wh?"),
)


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter's reading in J, None if it is held back; ``doubt`` says why it, or the power, cannot be believed."""

    energy_j: float | None
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class _Point:
    now: float
    energy_j: float
    integral_j: float


class Counter:
    """Judges one meter's counter, beside its power, in the order of its readings.

    ``step_j`` is the counter's resolution in J; None where it is not known, as with floating-point registers.
    """

    def __init__(self, step_j: float | None) -> None:
        self._step_j = step_j
        self._seen_step_j: float | None = None
        self._power: tuple[float, float] | None = None
        self._integral_j = 0.0
        self._peak_w = 0.0
        self._last: _Point | None = None
        self._held: _Point | None = None
        self._span: _Point | None = None
        self._odd_spans = 0
        self._doubt = ""

    def take_power(self, power_w: float, now: float) -> None:
        """Note the power in W at ``now``, monotonic s."""
        if self._power is not None:
            then, before_w = self._power
            self._integral_j += (power_w + before_w) / 2 * (now - then)
        self._power = (now, power_w)
        self._peak_w = max(abs(power_w), 0.99 * self._peak_w)
        if power_w < 0:  # what feeds in is another counter's
            self._span = None

    def gap(self) -> None:
        """Note a reading that failed: the power since is not known."""
        self._power = None
        self._span = None

    def take(self, energy_j: float, now: float) -> Counted:
        """Judge the counter in J, read with the last power."""
        point = _Point(now, energy_j, self._integral_j)
        before, self._last = self._last, point
        if before is None or not (wrong := self._broken(before, point)):
            self._held = None
            self._note_step(before, point)
            return Counted(energy_j, self._compare(point))
        if self._held is not None and not self._broken(self._held, point):
            self._held = None
            self._span = None
            return Counted(energy_j, wrong)
        self._last, self._held = before, point
        return Counted(None, wrong)

    def _broken(self, before: _Point, point: _Point) -> str:
        """Why one reading cannot follow another; empty if it can."""
        if point.energy_j < before.energy_j:
            fall = f"energy fell from {_wh(before.energy_j)} to {_wh(point.energy_j)}"
            return f"{fall}: a reset, another device, a partial counter?"
        counted_j = point.energy_j - before.energy_j
        possible_j = LEAP * self._peak_w * (point.now - before.now) + 2 * self._coarse_j() + LEAP_J
        if counted_j > possible_j:
            leap = f"energy leapt by {_wh(counted_j)} in {point.now - before.now:.3g} s"
            return f"{leap}: wrong word order, type or unit?"
        return ""

    def _compare(self, point: _Point) -> str:
        """What the rate of the counter says of the power, over the span that ends here."""
        if self._span is None:
            self._span = point
        counted_j = point.energy_j - self._span.energy_j
        made_j = point.integral_j - self._span.integral_j
        more_j = max(counted_j, made_j)
        if point.now - self._span.now < SPAN_S or more_j < STEPS * self._coarse_j():
            return self._doubt
        self._span = point
        if abs(counted_j - made_j) <= TOLERANCE * more_j:
            self._odd_spans, self._doubt = 0, ""
        else:
            self._odd_spans += 1
        if self._odd_spans >= ODD_SPANS:
            self._doubt = f"the counter makes {_wh(counted_j)} of {_wh(made_j)}: {_cause(counted_j, made_j)}"
        return self._doubt

    def _note_step(self, before: _Point | None, point: _Point) -> None:
        counted_j = point.energy_j - before.energy_j if before else 0.0
        if counted_j > 0:
            self._seen_step_j = min(counted_j, self._seen_step_j or counted_j)

    def _coarse_j(self) -> float:
        """How far the counter may be behind what was consumed."""
        if self._seen_step_j is None:
            return max(self._step_j or 0.0, COARSE_J)
        return max(self._step_j or 0.0, self._seen_step_j)


def _cause(counted_j: float, made_j: float) -> str:
    rate = counted_j / made_j if made_j > 0 else 0.0
    for typical, cause in _RATES:
        if abs(rate / typical - 1) <= TOLERANCE:
            return cause
    return "wrong energy register or unit?" if rate > 0 else "does it count at all?"


def _wh(energy_j: float) -> str:
    return f"{energy_j / JOULES_PER_WH:.4g} Wh"
