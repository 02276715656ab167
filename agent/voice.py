"""What an agent says beside its samples: who it is, whether it is there, its books, and its answers to commands."""

from collections.abc import Callable

from hil.bus import Bus, Will
from hil.wire import Ack, ActuatorInfo, Birth, LimitState, NodeState, NodeTopics, Presence, encode


def will(topics: NodeTopics, session: int) -> Will:
    """What the broker says of an agent that has vanished; the session tells it from the word of a newer life."""
    return Will(topics.state, encode(NodeState(state=Presence.LOST, session=session)))


class Voice:
    """Publishes what ``birth`` and ``state`` give at that moment; nothing is kept while there is no connection."""

    def __init__(
        self, topics: NodeTopics, bus: Bus, birth: Callable[[], Birth], state: Callable[[Presence], NodeState]
    ) -> None:
        self._topics = topics
        self._bus = bus
        self._birth = birth
        self._state = state

    def arrive(self) -> None:
        """Say who is there: after each connect, and whenever something of it has changed."""
        self._bus.publish(self._topics.birth, encode(self._birth()), retain=True)
        self.report()

    def report(self) -> None:
        """Say how it goes."""
        self._bus.publish(self._topics.state, encode(self._state(Presence.READY)), retain=True)

    def leave(self) -> None:
        """Say goodbye."""
        self._bus.publish(self._topics.state, encode(self._state(Presence.DISCONNECTED)), retain=True)

    def ack(self, ack: Ack) -> bool:
        """Answer a command; False, and nothing kept, while there is no connection."""
        return self._bus.publish(self._topics.cmd_ack, encode(ack))

    def limit(self, state: LimitState) -> bool:
        """Say what limits an actuator; False, and nothing kept, while there is no connection."""
        return self._bus.publish(self._topics.limit, encode(state), retain=True)

    def actuators(self, infos: list[ActuatorInfo]) -> None:
        """Say anew who is there: what can be commanded has changed."""
        del infos  # the birth asks for them
        self.arrive()
