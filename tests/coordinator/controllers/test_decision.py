import fractions
import math
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from coordinator.controllers.api import (
    Action,
    ActorView,
    ChargePower,
    Island,
    Limit,
    MinSoc,
    Note,
    Observation,
    Profile,
    Release,
)
from coordinator.controllers.decision import ActionError, call, observe, settings_after
from coordinator.microgrid.engine import Microgrid
from coordinator.microgrid.grid import Grid
from coordinator.microgrid.step import ActorInput, Role, Settings, StepInput
from coordinator.microgrid.storage import LosslessBattery
from coordinator.signals.signal import Constant, SignalsAt
from hil.devices import Quality

See = Callable[..., Observation]


class Answers:
    """A controller that gives what it is told."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def step(self, seen: Observation) -> Iterable[Action] | None:
        answer: Iterable[Action] | None = self.answer
        return answer


class Yields:
    def step(self, seen: Observation) -> Iterable[Action]:
        yield MinSoc(0.3)
        yield Note("lowered")


class Asynchronous:
    async def step(self, seen: Observation) -> list[Action]:
        return []


def test_actions_may_be_yielded_listed_or_none(see: See) -> None:
    assert call(Yields(), see()) == [MinSoc(0.3), Note("lowered")]
    assert call(Answers([Limit("jetson-1", 7.5)]), see()) == [Limit("jetson-1", 7.5)]
    assert call(Answers(None), see()) == []


def test_every_kind_of_action_passes(see: See) -> None:
    actions = [
        MinSoc(1.0),
        ChargePower(40.0, "why"),
        ChargePower(None),
        Island(True),
        Limit("a", 0.0),
        Profile("a", "eco"),
        Release("a"),
        Note("told"),
    ]
    assert call(Answers(actions), see()) == actions


def test_numbers_of_any_kind_become_plain_floats(see: See) -> None:
    (action,) = call(Answers([Limit("a", fractions.Fraction(15, 2))]), see())  # type: ignore[arg-type]
    assert isinstance(action, Limit)
    assert action.limit_w == 7.5
    assert type(action.limit_w) is float


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ([MinSoc(1.1)], r"MinSoc\(soc=1.1.*: soc must be 0..1"),
        ([MinSoc(math.nan)], "soc must be 0..1"),
        ([MinSoc(None)], "soc must be 0..1"),  # type: ignore[arg-type]
        ([ChargePower(-1.0)], "power_w must be a finite number ≥ 0"),
        ([ChargePower(math.inf)], "power_w must be"),
        ([Limit("a", -0.1)], "limit_w must be"),
        ([Limit("a", True)], "limit_w must be"),
        ([Limit("a", "7.5")], "limit_w must be"),  # type: ignore[arg-type]
        ([Limit("", 7.5)], "node must be a name"),
        ([Limit(None, 7.5)], "node must be a name"),  # type: ignore[arg-type]
        ([Profile("a", 3)], "profile must be a name"),  # type: ignore[arg-type]
        ([Release(3)], "node must be a name"),  # type: ignore[arg-type]
        ([Island("yes")], "islanded must be True or False"),  # type: ignore[arg-type]
        ([Note(3)], "text must be a text"),  # type: ignore[arg-type]
        (["limit"], "gave 'limit', expected MinSoc"),
        ("limit", "gave 'l', expected MinSoc"),
        (Limit("a", 7.5), r"gave Limit\(.*expected it to yield actions or to return a list"),
        ([MinSoc], "gave <class"),
    ],
)
def test_an_answer_that_makes_no_sense_is_named(see: See, answer: Any, told: str) -> None:
    with pytest.raises(ActionError, match=told):
        call(Answers(answer), see())


def test_an_async_step_is_refused_without_a_warning(see: See) -> None:
    with pytest.raises(ActionError, match=r"step\(\) is async"):
        call(Asynchronous(), see())  # type: ignore[arg-type]


def test_an_error_of_user_code_comes_through(see: See) -> None:
    class Broken:
        def step(self, seen: Observation) -> Iterable[Action]:
            yield MinSoc(0.3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(Broken(), see())


def test_the_last_word_on_each_setting_counts() -> None:
    before = Settings(min_soc=0.5)
    actions = [MinSoc(0.4), ChargePower(40.0), MinSoc(0.3), Limit("a", 7.5), Note("told"), Island(True)]
    assert settings_after(before, actions) == Settings(min_soc=0.3, charge_power_w=40.0, islanded=True)
    assert settings_after(before, []) == before
    assert settings_after(Settings(min_soc=0.5, charge_power_w=40.0), [ChargePower(None)]).charge_power_w is None


def test_a_controller_sees_the_step_in_its_own_zone_and_sign() -> None:
    microgrid = Microgrid(
        "lab", storage=LosslessBattery(250.0, 0.6), grid=Grid(), settings=Settings(min_soc=0.5, charge_power_w=40.0)
    )
    inputs = (
        ActorInput("node", Role.LOAD, 15.0, Quality.STALE, 2.5),
        ActorInput("solar", Role.PRODUCER, 5.0),
    )
    result = microgrid.step(StepInput(k=3, t_us=0, dt_s=3600.0, actors=inputs))
    signals = SignalsAt({"carbon": Constant(400.0)}, 3_600_000_000)
    seen = observe(microgrid, inputs, result, signals, ZoneInfo("Europe/Berlin"), 3_600_000_000)
    assert seen.time.isoformat() == "1970-01-01T02:00:00+01:00"
    assert seen.time.utcoffset() == timedelta(hours=1)
    assert seen.actors["node"] == ActorView("node", Role.LOAD, -15.0, Quality.STALE, 2.5)
    assert seen.actors["solar"].p_w == 5.0
    assert (seen.p_delta_w, seen.p_grid_w, seen.islanded) == (-10.0, -50.0, False)
    assert seen.storage is not None
    assert seen.storage.soc == pytest.approx(0.76)
    assert seen.storage.energy_wh == pytest.approx(190.0)
    assert seen.storage.charge_power_w == 40.0
    assert (seen.energy.imported, seen.energy.charged) == (50.0, 40.0)
    assert seen.signals.value("carbon") == 400.0
