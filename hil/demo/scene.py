"""What the demonstration has seen so far on the bus: the data behind its views."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from hil.bus import Inbound
from hil.devices import Quality
from hil.wire import CoordinatorState, Last, LimitState, Message, MicrogridState, Topics, WireError, decode

EVENTS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a microgrid, for the charts."""

    t: datetime
    soc: float | None
    load_w: float
    sun_w: float
    grid_w: float
    carbon_g_per_kwh: float | None


@dataclass(slots=True)
class MicrogridScene:
    """A microgrid's newest step and its history."""

    newest: MicrogridState | None = None
    points: list[Point] = field(default_factory=list)

    def take(self, state: MicrogridState) -> None:
        """Add a step."""
        self.newest = state
        self.points.append(
            Point(
                state.t,
                state.soc,
                -sum(actor.p_w for actor in state.actors if actor.p_w < 0),
                sum(actor.p_w for actor in state.actors if actor.p_w > 0),
                state.p_grid_w,
                state.carbon_g_per_kwh,
            )
        )


@dataclass(slots=True)
class NodeScene:
    """A node's newest reading and what limits it."""

    power_w: float | None = None
    quality: Quality = Quality.MISSING
    limit: LimitState | None = None


@dataclass(slots=True)
class Scene:
    """Everything seen, fed by ``take``; ``done`` once the coordinator decides no more."""

    topics: Topics
    microgrids: dict[str, MicrogridScene] = field(default_factory=dict)
    nodes: dict[str, NodeScene] = field(default_factory=dict)
    events: deque[str] = field(default_factory=lambda: deque(maxlen=EVENTS_SHOWN))
    started: bool = False
    done: bool = False

    @property
    def filters(self) -> list[str]:
        """The topic filters that a scene wants."""
        node = self.topics.node("+")
        return [self.topics.microgrid("+"), node.last("+"), node.limit, self.topics.coordinator_state]

    def take(self, message: Inbound) -> None:
        """Take one message; what is no message of ours is none of the demonstration's business."""
        try:
            self._take(message)
        except WireError as error:
            self.events.append(f"unreadable message on {message.topic}: {error}")

    def _take(self, message: Inbound) -> None:
        node = self.topics.node_of(message.topic)
        if message.topic == self.topics.coordinator_state:
            self._presence(decode(message.payload, CoordinatorState))
        elif node is not None:
            self._node(self.nodes.setdefault(node[0], NodeScene()), node[1], message.payload)
        elif message.topic.startswith(self.topics.microgrid("")[: -len("/state")]):
            state = decode(message.payload, MicrogridState)
            self.microgrids.setdefault(state.microgrid, MicrogridScene()).take(state)

    def _presence(self, state: CoordinatorState) -> None:
        self.done = self.started and not state.online
        self.started = self.started or state.online

    def _node(self, scene: NodeScene, rest: str, payload: bytes) -> None:
        message: Message
        if rest.startswith("last/"):
            message = decode(payload, Last)
            scene.power_w, scene.quality = message.power_w, message.quality
        elif rest == "limit":
            scene.limit = decode(payload, LimitState)
