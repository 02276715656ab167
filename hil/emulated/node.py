"""A node that draws power: it follows its load and its cap, a little late and a little noisy."""

import math
import random
from dataclasses import dataclass
from typing import Final

from hil.emulated.load import Demand

TICK_S: Final = 0.02
"""Demand and noise change on this grid of seconds, so that neither depends on how often anyone looks."""

NOISE_BOUND: Final = 3.0
"""Noise never exceeds this many standard deviations."""


@dataclass(frozen=True, slots=True)
class NodeTraits:
    """How a node behaves: its bounds in W, its lag (time constant, s) and its noise (standard deviation, W)."""

    idle_w: float = 0.0
    max_w: float = math.inf
    lag_s: float = 0.0
    noise_w: float = 0.0
    seed: int = 0


class EmulatedNode:
    """A node's power in W and energy in J, pure in time: ``advance`` is all that moves it.

    The power heads for the demand, or for the cap where that is lower, with a first-order lag; a cap below idle has no
    effect below idle. Between two anchors (a tick of the grid, a change of the cap) power and energy are closed
    formulas, so that the way in which time is cut into steps changes nothing.
    """

    def __init__(self, name: str, demand: Demand, traits: NodeTraits | None = None) -> None:
        self.name = name
        self.traits = traits or NodeTraits()
        self._demand = demand
        self._random = random.Random(self.traits.seed)
        self._plugged = True
        self._cap_w: float | None = None
        self._t_s = 0.0
        self._tick = 0
        self._anchor_s = 0.0
        self._anchor_j = 0.0
        self._demand_w = demand(0.0)
        self._target_w = self._goal_w()
        self._start_w = self._target_w
        self._drawn_noise_w = 0.0
        self._noise_w = 0.0
        self._draw_noise()

    @property
    def t_s(self) -> float:
        """Seconds since the emulation began."""
        return self._t_s

    @property
    def power_w(self) -> float:
        """What the node draws now, noise included; W, never negative."""
        return self._settling_w(self._t_s - self._anchor_s) + self._noise_w

    @property
    def energy_j(self) -> float:
        """The integral of ``power_w`` since the emulation began, in J."""
        return self._anchor_j + self._since_anchor_j(self._t_s - self._anchor_s)

    @property
    def cap_w(self) -> float | None:
        """The cap as last written, in W, whether it has an effect or not; None: no cap."""
        return self._cap_w

    @cap_w.setter
    def cap_w(self, cap_w: float | None) -> None:
        self._cap_w = cap_w
        self._retarget()

    @property
    def plugged(self) -> bool:
        """Whether the cap has an effect; an unplugged actuator is written and read back in vain."""
        return self._plugged

    @plugged.setter
    def plugged(self, plugged: bool) -> None:
        self._plugged = plugged
        self._retarget()

    def advance(self, dt_s: float) -> None:
        """Let ``dt_s`` seconds pass."""
        end_s = self._t_s + dt_s
        while (tick_s := (self._tick + 1) * TICK_S) <= end_s:
            self._t_s = tick_s
            self._tick += 1
            self._anchor()
            self._demand_w = self._demand(tick_s)
            self._target_w = self._goal_w()
            self._draw_noise()
        self._t_s = end_s

    def _goal_w(self) -> float:
        traits = self.traits
        goal_w = min(self._demand_w, traits.max_w)
        if self._cap_w is not None and self._plugged:
            goal_w = min(goal_w, self._cap_w)
        return max(goal_w, traits.idle_w)

    def _retarget(self) -> None:
        self._anchor()
        self._target_w = self._goal_w()
        self._bound_noise()

    def _anchor(self) -> None:
        passed_s = self._t_s - self._anchor_s
        self._anchor_j += self._since_anchor_j(passed_s)
        self._start_w = self._settling_w(passed_s)
        self._anchor_s = self._t_s

    def _settling_w(self, passed_s: float) -> float:
        return self._target_w + (self._start_w - self._target_w) * self._remaining(passed_s)

    def _since_anchor_j(self, passed_s: float) -> float:
        # ∫ target + (start − target)·e^(−t/lag) + noise dt
        settled_j = (self._target_w + self._noise_w) * passed_s
        return settled_j + (self._start_w - self._target_w) * self.traits.lag_s * (1 - self._remaining(passed_s))

    def _remaining(self, passed_s: float) -> float:
        return math.exp(-passed_s / self.traits.lag_s) if self.traits.lag_s > 0 else 0.0

    def _draw_noise(self) -> None:
        if self.traits.noise_w > 0:
            bound_w = NOISE_BOUND * self.traits.noise_w
            self._drawn_noise_w = min(max(self._random.gauss(0.0, self.traits.noise_w), -bound_w), bound_w)
            self._bound_noise()

    def _bound_noise(self) -> None:
        # The power stays between these two until the next anchor; noise must not take it below zero meanwhile.
        self._noise_w = max(self._drawn_noise_w, -min(self._start_w, self._target_w))
