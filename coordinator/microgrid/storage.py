"""Storages: what they can give or take over a step, and what that leaves in them.

The physics stands in plain functions over floats; the class only keeps the state. Power is a site value: discharge +,
charge −.
"""

import math
from typing import Protocol

from hil.units import SECONDS_PER_HOUR

# Rounding must not leave a battery a hair beside its bound, where ``soc <= min_soc`` would be false for ever.
SNAP_SOC = 1e-12


class Storage(Protocol):
    """What the engine asks of a storage."""

    @property
    def soc(self) -> float:
        """State of charge, 0..1."""

    @property
    def capacity_wh(self) -> float:
        """Energy of the full storage."""

    def power_range(self, dt_s: float, min_soc: float) -> tuple[float, float]:
        """Strongest charge (≤ 0) and strongest discharge (≥ 0) in W that it takes up now; infinite where unlimited."""

    def share(self, p_w: float, dt_s: float, min_soc: float) -> float:
        """The part of the step, 0..1, for which it keeps ``p_w``, a power in its range; then it stands at a bound."""

    def apply(self, p_w: float, dt_s: float, min_soc: float) -> None:
        """Take up a step of mean power ``p_w``, one that ``power_range`` and ``share`` allow."""

    def snapshot(self) -> tuple[float, ...]:
        """The state as numbers that ``restore`` takes."""

    def restore(self, state: tuple[float, ...]) -> None:
        """Take up a state that ``snapshot`` gave."""


def lossless_range_w(soc: float, min_soc: float, max_charge_w: float, max_discharge_w: float) -> tuple[float, float]:
    """Strongest charge (≤ 0) and strongest discharge (≥ 0) in W; none into a full battery, none from an empty one."""
    return (
        -max_charge_w if soc < 1.0 else 0.0,
        max_discharge_w if soc > min_soc else 0.0,
    )


def lossless_share(soc: float, capacity_wh: float, min_soc: float, p_w: float, dt_s: float) -> float:
    """The part of ``dt_s``, 0..1, for which the battery keeps ``p_w`` before it is full or down to ``min_soc``."""
    if p_w == 0.0:
        return 1.0
    room_soc = max(0.0, soc - min_soc) if p_w > 0.0 else max(0.0, 1.0 - soc)
    return min(1.0, room_soc * capacity_wh * SECONDS_PER_HOUR / (abs(p_w) * dt_s))


def lossless_soc(soc: float, capacity_wh: float, min_soc: float, p_w: float, dt_s: float) -> float:
    """State of charge after ``dt_s`` at mean power ``p_w``, exactly on its bound where it came to one."""
    after = soc - p_w * dt_s / (SECONDS_PER_HOUR * capacity_wh)
    if after >= 1.0 - SNAP_SOC:
        return 1.0
    if p_w > 0.0 and abs(after - min_soc) <= SNAP_SOC:
        return min_soc
    return max(0.0, after)


class LosslessBattery:
    """A battery that gives back all it took; splitting a step changes nothing.

    Scenario: ``storage: {kind: lossless, capacity_wh: 250, soc: 0.6, min_soc: 0.5}``, with ``max_charge_w`` and
    ``max_discharge_w`` where the inverter is the limit.
    """

    def __init__(
        self, capacity_wh: float, soc: float, *, max_charge_w: float = math.inf, max_discharge_w: float = math.inf
    ) -> None:
        self._capacity_wh = capacity_wh
        self._soc = soc
        self._max_charge_w = max_charge_w
        self._max_discharge_w = max_discharge_w

    @property
    def soc(self) -> float:
        """State of charge, 0..1."""
        return self._soc

    @property
    def capacity_wh(self) -> float:
        """Energy of the full battery."""
        return self._capacity_wh

    def power_range(self, dt_s: float, min_soc: float) -> tuple[float, float]:
        """Strongest charge (≤ 0) and strongest discharge (≥ 0) in W, whatever the length of the step."""
        del dt_s
        return lossless_range_w(self._soc, min_soc, self._max_charge_w, self._max_discharge_w)

    def share(self, p_w: float, dt_s: float, min_soc: float) -> float:
        """The part of the step for which it keeps ``p_w``."""
        return lossless_share(self._soc, self._capacity_wh, min_soc, p_w, dt_s)

    def apply(self, p_w: float, dt_s: float, min_soc: float) -> None:
        """Take up a step of mean power ``p_w``."""
        self._soc = lossless_soc(self._soc, self._capacity_wh, min_soc, p_w, dt_s)

    def snapshot(self) -> tuple[float, ...]:
        """The state of charge."""
        return (self._soc,)

    def restore(self, state: tuple[float, ...]) -> None:
        """Take up a state of charge."""
        (self._soc,) = state
