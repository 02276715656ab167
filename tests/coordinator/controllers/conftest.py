from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from coordinator.controllers.api import ActorView, Forecast, Observation, StorageView
from coordinator.microgrid.step import Energy, Role
from hil.devices import Quality


@dataclass(frozen=True)
class FixedSignals:
    """Signals that have the values they are given."""

    values: Mapping[str, float | None] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        return self.values[name]

    def forecast(self, name: str) -> Forecast | None:
        return None


See = Callable[..., Observation]


@pytest.fixture
def see() -> See:
    """Makes an observation; ``soc``, ``time`` and signal values are what tests change."""

    def observation(
        soc: float | None = 0.6,
        time: datetime = datetime(2026, 4, 15, 12, tzinfo=UTC),
        p_delta_w: float = -15.0,
        p_grid_w: float = 0.0,
        **signals: Any,
    ) -> Observation:
        return Observation(
            microgrid="lab",
            step=7,
            time=time,
            interval_s=60.0,
            actors={"node": ActorView("node", Role.LOAD, -15.0, Quality.GOOD, 0.1)},
            p_delta_w=p_delta_w,
            p_grid_w=p_grid_w,
            islanded=False,
            storage=None if soc is None else StorageView(soc, 0.5, 250.0, None),
            energy=Energy(),
            signals=FixedSignals(signals),
        )

    return observation
