"""Messages of a small run, as a demonstration hears them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from hil.bus import Inbound
from hil.devices import Quality
from hil.wire import ActorState, Message, MicrogridState, encode

Says = Callable[[str, Message], Inbound]
Step = Callable[..., MicrogridState]

NOON = datetime(2026, 6, 21, 12, tzinfo=UTC)


@pytest.fixture
def says() -> Says:
    """``says(topic, message)``: the message as it comes in."""
    return lambda topic, message: Inbound(topic, encode(message), retained=False, arrived=0.0)


@pytest.fixture
def step() -> Step:
    """``step(k, **changes)``: minute k of a microgrid with one node, a panel and a battery."""

    def make(k: int, **changes: object) -> MicrogridState:
        usual = {
            "microgrid": "shed",
            "step": k,
            "steps_total": 100,
            "t": NOON + timedelta(minutes=k),
            "actors": [
                ActorState(name="jetson-1", p_w=-15.0, quality=Quality.GOOD),
                ActorState(name="panel", p_w=10.0, quality=Quality.GOOD),
            ],
            "p_delta_w": -5.0,
            "p_battery_w": 2.0,
            "p_grid_w": -3.0,
            "p_unserved_w": 0.0,
            "p_curtailed_w": 0.0,
            "soc": 0.5,
            "min_soc": 0.3,
            "charge_power_w": None,
            "islanded": False,
            "carbon_g_per_kwh": 80.0,
            "price_per_mwh": None,
            "emissions_g": 0.0,
            "quality": Quality.GOOD,
        }
        return MicrogridState(**(usual | changes))

    return make
