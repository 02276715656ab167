"""The agents heard: who each is, whether it is there, and which meter measures whom."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from hil.wire import Birth, MeterInfo, NodeState, Presence


@dataclass(slots=True)
class Agent:
    """An agent as it presents itself; None for what was not heard yet."""

    name: str
    birth: Birth | None = None
    state: NodeState | None = None


class Roster:
    """The agents of a scenario: its nodes' own, and those that announce a meter on one of its nodes."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self._nodes = frozenset(nodes)
        self._agents = {node: Agent(node) for node in sorted(self._nodes)}
        self._births: dict[str, Birth] = {}  # in the order in which agents were first heard

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents.values())

    def agent(self, name: str) -> Agent | None:
        """The agent of that name; None for a stranger."""
        return self._agents.get(name)

    def on_birth(self, birth: Birth) -> bool:
        """Take a birth; False where the scenario has no use for the agent."""
        ours = birth.node in self._nodes or any(meter.measures in self._nodes for meter in birth.meters)
        if not ours:
            self._agents.pop(birth.node, None)
            self._births.pop(birth.node, None)
            return False
        self._agents.setdefault(birth.node, Agent(birth.node)).birth = birth
        self._births[birth.node] = birth
        return True

    def on_state(self, agent: Agent, state: NodeState) -> NodeState | None:
        """The agent's state as it now stands; None where ``state`` is older than one seen, as a late will is.

        Sessions count within one spool: an agent that lost its spool counts from the start again.
        """
        seen = agent.state
        if seen is not None and state.session < seen.session and state.stream in {"", seen.stream}:
            return None
        if state.state is Presence.LOST and seen is not None:
            # A will was written before its agent did anything: its books say nothing.
            state = msgspec.structs.replace(seen, state=state.state, session=state.session)
        agent.state = state
        return state

    def meters_of(self, node: str) -> list[tuple[str, MeterInfo]]:
        """The meters that measure a node, each with its agent: agents as they were first heard, meters as announced."""
        return [
            (agent, meter) for agent, birth in self._births.items() for meter in birth.meters if meter.measures == node
        ]
