"""One decision of a controller: what it sees, what it answered, and what that changes."""

import inspect
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import tzinfo
from numbers import Real

import msgspec

from coordinator.controllers.api import (
    Action,
    ActorView,
    ChargePower,
    Controller,
    Island,
    Limit,
    MinSoc,
    Note,
    Observation,
    Profile,
    Release,
    Signals,
    StorageView,
)
from coordinator.microgrid.engine import Microgrid
from coordinator.microgrid.step import ActorInput, Energy, Settings, StepResult
from hil.clock import utc


class ActionError(ValueError):
    """What a controller answered cannot be carried out; the text names the action and what was expected."""


def call(controller: Controller, seen: Observation) -> list[Action]:
    """The controller's actions, checked, numbers as plain floats. Raises ActionError, and whatever the controller does.

    Nothing of a faulty answer is carried out: a controller that errs once asks for nothing at all.
    """
    return [_checked(action) for action in _listed(controller.step(seen))]


def observe(
    microgrid: Microgrid, actors: Sequence[ActorInput], result: StepResult, signals: Signals, zone: tzinfo, end_us: int
) -> Observation:
    """What a controller sees after a step: ``actors`` are the step's inputs, ``signals`` stand at its ``end_us``."""
    views = {
        actor.name: ActorView(actor.name, actor.role, p_w, actor.quality, actor.age_s)
        for actor, p_w in zip(actors, result.p_actors_w, strict=True)
    }
    storage = None
    if microgrid.storage is not None:
        storage = StorageView(
            soc=microgrid.storage.soc,
            min_soc=result.settings.min_soc,
            capacity_wh=microgrid.storage.capacity_wh,
            charge_power_w=result.settings.charge_power_w,
        )
    return Observation(
        microgrid=microgrid.name,
        step=result.k,
        time=utc(end_us).astimezone(zone),
        interval_s=result.dt_s,
        actors=views,
        p_delta_w=result.p_delta_w,
        p_grid_w=result.p_grid_w,
        islanded=microgrid.grid is None or result.settings.islanded,
        storage=storage,
        energy=Energy.of_step(result),
        signals=signals,
    )


def settings_after(settings: Settings, actions: Iterable[Action]) -> Settings:
    """The settings once ``actions`` are taken in order: the last word on each counts."""
    for action in actions:
        match action:
            case MinSoc(soc=soc):
                settings = msgspec.structs.replace(settings, min_soc=soc)
            case ChargePower(power_w=power_w):
                settings = msgspec.structs.replace(settings, charge_power_w=power_w)
            case Island(islanded=islanded):
                settings = msgspec.structs.replace(settings, islanded=islanded)
            case _:
                pass
    return settings


def _listed(answer: object) -> Iterable[object]:
    if answer is None:
        return ()
    if inspect.iscoroutine(answer):
        answer.close()
        raise ActionError("step() is async, expected a plain function")
    if not isinstance(answer, Iterable):
        raise ActionError(f"step() gave {_shown(answer)}, expected it to yield actions or to return a list of them")
    return answer


def _checked(action: object) -> Action:
    match action:
        case MinSoc(soc=soc):
            return replace(action, soc=_number(action, "soc", soc, most=1.0))
        case ChargePower(power_w=None):
            return action
        case ChargePower(power_w=power_w):
            return replace(action, power_w=_number(action, "power_w", power_w))
        case Limit(limit_w=limit_w):
            _text(action, "node", action.node)
            return replace(action, limit_w=_number(action, "limit_w", limit_w))
        case Profile(node=node, profile=profile):
            _text(action, "node", node)
            _text(action, "profile", profile)
            return action
        case Release(node=node):
            _text(action, "node", node)
            return action
        case Island(islanded=bool()) | Note(text=str()):
            return action
        case Island():
            raise ActionError(f"{_shown(action)}: islanded must be True or False")
        case Note():
            raise ActionError(f"{_shown(action)}: text must be a text")
        case _:
            raise ActionError(f"step() gave {_shown(action)}, expected MinSoc, ChargePower, Island, Limit, …")


def _number(action: object, name: str, value: object, most: float = math.inf) -> float:
    if not isinstance(value, bool) and isinstance(value, Real):
        number = float(value)
        if math.isfinite(number) and 0.0 <= number <= most:
            return number
    span = "0..1" if most == 1.0 else "a finite number ≥ 0"
    raise ActionError(f"{_shown(action)}: {name} must be {span}")


def _text(action: object, name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ActionError(f"{_shown(action)}: {name} must be a name")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"
