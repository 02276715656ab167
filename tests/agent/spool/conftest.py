"""Samples to spool."""

from collections.abc import Callable

import pytest

from agent.sample import EnergyState, Sample
from hil.devices import Quality

START_US = 1_750_000_000_000_000

MakeSamples = Callable[..., list[Sample]]


@pytest.fixture(scope="session")
def samples() -> MakeSamples:
    """``samples(n)``: n samples of one meter, one a second, each with a power of its own."""

    def make(count: int, *, meter: str = "m", first: int = 0) -> list[Sample]:
        return [
            Sample(
                meter,
                START_US + (first + index) * 1_000_000,
                10.0 + first + index,
                EnergyState(100.0 * (first + index), 0, device=False),
                0,
                Quality.GOOD,
            )
            for index in range(count)
        ]

    return make
