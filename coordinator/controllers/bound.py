"""A controller at its place in a scenario."""

from dataclasses import dataclass

from coordinator.controllers.api import Action, Controller, Limit, Observation, Profile, Release, Resumable
from coordinator.controllers.decision import ActionError, call


@dataclass(frozen=True, slots=True)
class BoundController:
    """A controller, the microgrid it sees, and the nodes that it may ask something of. ``name`` is unique."""

    name: str
    microgrid: str
    controller: Controller
    nodes: frozenset[str]

    def decide(self, seen: Observation) -> list[Action]:
        """Its actions, checked. Raises ActionError, and whatever user code raises: call it where that is supervised."""
        actions = call(self.controller, seen)
        for action in actions:
            if isinstance(action, Limit | Profile | Release) and action.node not in self.nodes:
                known = ", ".join(sorted(self.nodes)) or "none"
                raise ActionError(f"{action}: the scenario has no node {action.node}; it has {known}")
        return actions

    def snapshot(self) -> object:
        """Its own state, of JSON values; None where it keeps none. Raises whatever user code raises."""
        return self.controller.snapshot() if isinstance(self.controller, Resumable) else None

    def restore(self, state: object) -> None:
        """Give it back the state that ``snapshot`` took. Raises whatever user code raises."""
        if isinstance(self.controller, Resumable):
            self.controller.restore(state)
