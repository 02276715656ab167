from collections.abc import Callable, Iterable

import pytest

from coordinator.controllers.api import Action, Limit, MinSoc, Observation, Profile, Release
from coordinator.controllers.bound import BoundController
from coordinator.controllers.decision import ActionError

See = Callable[..., Observation]


class Counting:
    """Counts its steps, and asks for what it is told."""

    def __init__(self, *actions: Action) -> None:
        self.actions = actions
        self.steps = 0

    def step(self, seen: Observation) -> Iterable[Action]:
        self.steps += 1
        return self.actions

    def snapshot(self) -> object:
        return {"steps": self.steps}

    def restore(self, state: object) -> None:
        assert isinstance(state, dict)
        self.steps = state["steps"]


class Stateless:
    def step(self, seen: Observation) -> None:
        return None


def bound(controller: Counting | Stateless) -> BoundController:
    return BoundController("mine", "lab", controller, frozenset({"jetson-1", "jetson-2"}))


def test_nodes_of_the_scenario_may_be_asked(see: See) -> None:
    actions: list[Action] = [MinSoc(0.3), Limit("jetson-2", 7.5)]
    assert bound(Counting(*actions)).decide(see()) == actions


@pytest.mark.parametrize("action", [Limit("jetson-3", 7.5), Profile("jetson-3", "eco"), Release("jetson-3")])
def test_a_node_that_is_not_in_the_scenario_is_named(see: See, action: Action) -> None:
    with pytest.raises(ActionError, match="no node jetson-3; it has jetson-1, jetson-2"):
        bound(Counting(MinSoc(0.3), action)).decide(see())


def test_state_is_taken_and_given_back(see: See) -> None:
    before, after = bound(Counting()), Counting()
    before.decide(see())
    before.decide(see())
    bound(after).restore(before.snapshot())
    assert after.steps == 2


def test_a_controller_without_state_needs_nothing() -> None:
    plain = bound(Stateless())
    assert plain.snapshot() is None
    plain.restore({"steps": 3})
