import json
from array import array
from datetime import UTC

import pytest

from coordinator.signals.forecast import ForecastTrace
from coordinator.signals.series import Beyond, Series
from coordinator.signals.signal import Constant, External, Forecasted, SignalsAt, Traced
from coordinator.signals.unit import unit_of
from hil.clock import ManualClock
from hil.wire import WireError


def external(clock: ManualClock, unit: str = "g/kWh") -> External:
    return External(unit_of(unit), max_age_s=60.0, monotonic=clock.monotonic)


async def test_an_external_value_is_unknown_until_it_comes_and_once_it_is_old() -> None:
    clock = ManualClock()
    carbon = external(clock, "lb/MWh")
    assert (carbon.newest, carbon.age_s) == (None, None)
    carbon.receive(b'{"value": 1000}', clock.monotonic())
    assert carbon.newest == pytest.approx(453.59237)
    await clock.advance(60.0)
    assert carbon.newest == pytest.approx(453.59237)
    await clock.advance(0.1)
    assert (carbon.newest, carbon.age_s) == (None, pytest.approx(60.1))


def test_a_step_sees_the_value_taken_up_for_it_and_no_other() -> None:
    clock = ManualClock()
    carbon = external(clock)
    assert carbon.at(0) is None
    carbon.receive(b'{"value": 1}', clock.monotonic())
    carbon.take_up(carbon.newest)
    carbon.receive(b'{"value": 2}', clock.monotonic())
    assert (carbon.at(0), carbon.mean(0, 60)) == (1.0, 1.0)
    carbon.take_up(None)
    assert (carbon.at(0), carbon.newest) == (None, 2.0)


def test_an_external_value_may_be_declared_unknown() -> None:
    clock = ManualClock()
    carbon = external(clock)
    carbon.receive(b'{"value": 1}', clock.monotonic())
    carbon.receive(b'{"value": null}', clock.monotonic())
    assert carbon.newest is None


@pytest.mark.parametrize(
    "payload", [b"", b"412", b"{}", b'{"value": NaN}', b'{"value": "412"}', b'{"value": 1e300}', b'{"value": 1e999}']
)
def test_a_bad_message_changes_nothing(payload: bytes) -> None:
    clock = ManualClock()
    carbon = external(clock)
    carbon.receive(json.dumps({"value": 412.5, "source": "lab"}).encode(), clock.monotonic())
    with pytest.raises(WireError):
        carbon.receive(payload, clock.monotonic())
    assert carbon.newest == 412.5


def test_all_signals_at_one_instant() -> None:
    series = Series(array("q", [0, 10]), array("d", [1.0, 2.0]), Beyond.HOLD)
    forecasts = ForecastTrace({5: ((5, 7.0), (8, 9.0))}, UTC)
    signals = {
        "traced": Traced(series, forecasts),
        "bare": Traced(series),
        "forecast": Forecasted(forecasts),
        "constant": Constant(3.0),
    }
    early, late = SignalsAt(signals, 0), SignalsAt(signals, 10)
    assert [early.value(name) for name in signals] == [1.0, 1.0, None, 3.0]
    assert [late.value(name) for name in signals] == [2.0, 2.0, 9.0, 3.0]
    assert [early.forecast(name) for name in signals] == [None] * 4
    assert [late.forecast(name) is not None for name in signals] == [True, False, True, False]


def test_an_unknown_signal_names_those_there_are() -> None:
    with pytest.raises(LookupError, match=r"no signal carbn; it has carbon"):
        SignalsAt({"carbon": Constant(1.0)}, 0).value("carbn")
