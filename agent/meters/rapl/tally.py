"""From raw counters, which come round and are reset, to a power, and to an energy that only rises."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Shorter than a suspension ever is, longer than two clocks are read apart on a busy machine.
SUSPENDED_S: Final = 0.25
# Processors bring their counters up to date about once a millisecond: a little of the span before may be in a step.
REFRESH_S: Final = 0.01

MICROJOULES_PER_JOULE: Final = 1e6


class Gap(Exception):
    """Between two looks lies something that cannot be counted; says what."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A counter: where it comes round, the most that it may show, and whether it must move while the machine runs."""

    label: str
    range_uj: int
    max_w: float
    moves: bool

    @property
    def round_s(self) -> float:
        """The shortest time in s in which it comes round."""
        return self.range_uj / MICROJOULES_PER_JOULE / self.max_w

    def step_uj(self, before: int, after: int) -> int:
        """From one raw count to another, in µJ; a count that fell has come round."""
        return after - before if after >= before else after - before + self.range_uj

    def allows(self, step_uj: int, span_s: float) -> bool:
        """Whether that much can have been drawn in the time."""
        return 0 <= step_uj <= self.max_w * (span_s + REFRESH_S) * MICROJOULES_PER_JOULE


@dataclass(frozen=True, slots=True)
class Look:
    """All raw counts in µJ at one instant, on the monotonic clock (s) and on the one that also counts suspensions.

    ``took_s`` is how long reading them took.
    """

    raw_uj: tuple[int, ...]
    monotonic: float
    boottime: float
    took_s: float = 0.0


class Tally:
    """Sums some counters: ``take`` gives the power between two looks, ``energy_j`` what was drawn in this epoch.

    A look that cannot follow from the last one (a count that fell and did not come round, or jumped) is a suspect: if
    the next one follows from the last after all, it held garbage; if the next one follows from the suspect, the
    counters were reset, and a new epoch begins at the suspect.
    """

    def __init__(self, gauges: Sequence[Gauge], first: Look, epoch: int = 0) -> None:
        self.gauges = tuple(gauges)
        self.epoch = epoch
        self._last = first
        self._suspect: Look | None = None
        self._energy_uj = 0

    @property
    def energy_j(self) -> float:
        """Energy in J since this epoch began."""
        return self._energy_uj / MICROJOULES_PER_JOULE

    def take(self, look: Look) -> float:
        """The mean power in W since the last look that counted. Raises Gap: this one does not."""
        self._check(look)
        for start, may_come_round in self._explanations():
            steps_uj = [
                gauge.step_uj(before, after)
                for gauge, before, after in zip(self.gauges, start.raw_uj, look.raw_uj, strict=True)
                if may_come_round or after >= before
            ]
            if len(steps_uj) == len(self.gauges) and self._allows(steps_uj, look.monotonic - start.monotonic):
                return self._count(start, steps_uj, look)
        self._suspect = look
        raise Gap(f"{self._odd_one(look)}: its energy counter was reset, or shows garbage")

    def _check(self, look: Look) -> None:
        span_s = look.monotonic - self._last.monotonic
        if span_s <= 0:
            raise Gap("no time has passed since the last reading")
        for gauge, raw_uj in zip(self.gauges, look.raw_uj, strict=True):
            if raw_uj > gauge.range_uj:
                raise Gap(f"{gauge.label}: energy_uj is above its range")
        if look.boottime - self._last.boottime - span_s > SUSPENDED_S:
            self._skip_to(look)
            raise Gap("the machine was suspended, what it drew meanwhile is not counted")
        for gauge in self.gauges:
            if span_s >= gauge.round_s:
                self._skip_to(look)
                raise Gap(f"{gauge.label}: after so long its energy counter may have come round unseen")

    def _skip_to(self, look: Look) -> None:
        self._last, self._suspect = look, None

    def _explanations(self) -> list[tuple[Look, bool]]:
        """Where this look may have counted on from, and whether a counter that fell came round, the likeliest first."""
        if self._suspect is None:
            return [(self._last, True)]
        return [(self._last, False), (self._suspect, True), (self._last, True)]

    def _allows(self, steps_uj: Sequence[int], span_s: float) -> bool:
        return all(gauge.allows(step_uj, span_s) for gauge, step_uj in zip(self.gauges, steps_uj, strict=True))

    def _odd_one(self, look: Look) -> str:
        span_s = look.monotonic - self._last.monotonic
        steps = zip(self.gauges, self._last.raw_uj, look.raw_uj, strict=True)
        return next(
            gauge.label for gauge, before, after in steps if not gauge.allows(gauge.step_uj(before, after), span_s)
        )

    def _count(self, start: Look, steps_uj: Sequence[int], look: Look) -> float:
        for gauge, step_uj in zip(self.gauges, steps_uj, strict=True):
            if gauge.moves and step_uj == 0:
                raise Gap(f"{gauge.label}: its energy counter stands still")
        drawn_uj = sum(steps_uj)
        if start is self._suspect:
            self.epoch += 1
            self._energy_uj = 0
        self._energy_uj += drawn_uj
        self._skip_to(look)
        return drawn_uj / MICROJOULES_PER_JOULE / (look.monotonic - start.monotonic)
