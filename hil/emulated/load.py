"""What a node would draw if nothing limited it: power in W over seconds since the emulation began."""

import itertools
import math
import random
from bisect import bisect_right
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from hil.yamlfile import Section

Demand = Callable[[float], float]
"""Demand in W, at least 0, at a time in s. Times never go back from one call to the next."""

Power = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Duration = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class ConstantLoad(Section, frozen=True, kw_only=True, tag_field="kind", tag="constant"):
    """The same power always: ``{kind: constant, power_w: 15}``."""

    power_w: Power

    def demand(self) -> Demand:
        """Power in W over time in s."""
        return lambda _t_s: self.power_w


class PointsLoad(Section, frozen=True, kw_only=True, tag_field="kind", tag="points"):
    """Power through given points, held or joined by lines: ``{kind: points, points: [[0, 15], [60, 5]]}``.

    The first value stands before the first point and the last after the last; ``repeat_s`` starts all over again.
    """

    points: Annotated[list[tuple[float, Power]], msgspec.Meta(min_length=1)]
    between: Literal["hold", "line"] = "hold"
    repeat_s: Duration | None = None

    def __post_init__(self) -> None:
        times = [t_s for t_s, _ in self.points]
        if any(later <= earlier for earlier, later in itertools.pairwise(times)):
            raise ValueError("expected points in order of time, each time once")

    def demand(self) -> Demand:
        """Power in W over time in s."""
        times = [t_s for t_s, _ in self.points]
        powers = [power_w for _, power_w in self.points]

        def at(t_s: float) -> float:
            t_s = t_s % self.repeat_s if self.repeat_s else t_s
            after = bisect_right(times, t_s)
            if after in {0, len(times)}:
                return powers[min(after, len(times) - 1)]
            if self.between == "hold":
                return powers[after - 1]
            share = (t_s - times[after - 1]) / (times[after] - times[after - 1])
            return powers[after - 1] + share * (powers[after] - powers[after - 1])

        return at


class SineLoad(Section, frozen=True, kw_only=True, tag_field="kind", tag="sine"):
    """Up and down around a mean: ``{kind: sine, mean_w: 10, amplitude_w: 5, period_s: 60}``; never below 0."""

    mean_w: Power
    amplitude_w: Power
    period_s: Duration

    def demand(self) -> Demand:
        """Power in W over time in s."""
        turn = 2 * math.pi / self.period_s
        return lambda t_s: max(0.0, self.mean_w + self.amplitude_w * math.sin(turn * t_s))


class WalkLoad(Section, frozen=True, kw_only=True, tag_field="kind", tag="walk"):
    """A seeded random walk between two powers: ``{kind: walk, min_w: 5, max_w: 15, step_w: 0.5, every_s: 1}``.

    ``step_w`` is the standard deviation of one step; a step beyond a bound ends on it.
    """

    min_w: Power
    max_w: Power
    step_w: Power
    every_s: Duration
    seed: int = 0

    def __post_init__(self) -> None:
        if self.min_w > self.max_w:
            raise ValueError(f"expected min_w at most max_w, not {self.min_w:g} and {self.max_w:g}")

    def demand(self) -> Demand:
        """Power in W over time in s; the same for every walk with these figures."""
        return _Walk(self)


class _Walk:
    def __init__(self, load: WalkLoad) -> None:
        self._load = load
        self._random = random.Random(load.seed)
        self._power_w = (load.min_w + load.max_w) / 2
        self._steps = 0

    def __call__(self, t_s: float) -> float:
        while (self._steps + 1) * self._load.every_s <= t_s:
            step_w = self._random.gauss(0.0, self._load.step_w)
            self._power_w = min(max(self._power_w + step_w, self._load.min_w), self._load.max_w)
            self._steps += 1
        return self._power_w


Load = ConstantLoad | PointsLoad | SineLoad | WalkLoad
