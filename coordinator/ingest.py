"""What agents say, from the bus to the ledger and to whoever needs it.

A sample is seen by the loop at once, is on disk within a commit, and is acknowledged only after that: until then its
agent keeps it. What comes twice is dropped by its number. What cannot be used is counted under the reason, logged once,
and never acknowledged.
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from coordinator.acknowledger import Acknowledger
from coordinator.intake import Intake, SampleListener
from coordinator.ledger import Ledger
from coordinator.roster import Agent, Roster
from coordinator.stream import StreamBooks, StreamKey
from coordinator.window import SampleWindow
from hil.bus import Bus, Inbound
from hil.clock import Clock
from hil.wire import NAME_PATTERN, Ack, Birth, Data, NodeState, Presence, Topics, WireError, decode

log = logging.getLogger(__name__)

MAX_TOLD: Final = 10_000
# Work between two turns of the event loop, in samples; a message costs about as much as ten. Some 2 ms.
TURN_COST: Final = 1_000
MESSAGE_COST: Final = 10

BirthListener = Callable[[str, Birth], None]
StateListener = Callable[[str, NodeState], None]
AckListener = Callable[[str, Ack], None]
EpochListener = Callable[[str, int], None]
SignalListener = Callable[[str, Inbound], None]
OtherListener = Callable[[Inbound], None]


@dataclass(slots=True)
class IngestCounters:
    """Messages taken in this life, and those refused, by reason."""

    messages: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Ingest:
    """Takes everything off the bus.

    ``nodes`` are the scenario's nodes; agents that announce a meter on one of them are heard too.
    """

    def __init__(self, site: str, nodes: Collection[str], ledger: Ledger, bus: Bus, clock: Clock) -> None:
        self.counters = IngestCounters()
        self.roster = Roster(nodes)
        self.highest_epoch = 0
        self._topics = Topics(site)
        self._ledger = ledger
        self._bus = bus
        self._intake = Intake(ledger, clock)
        self._acknowledger = Acknowledger(self._topics, bus)
        self._books: dict[StreamKey, StreamBooks] = {}
        self._told: set[tuple[str, str]] = set()
        self._on_birth: list[BirthListener] = []
        self._on_state: list[StateListener] = []
        self._on_ack: list[AckListener] = []
        self._on_epoch: list[EpochListener] = []
        self._on_signal: list[SignalListener] = []
        self._on_other: list[OtherListener] = []

    # --- who wants to hear --------------------------------------------------------------------------------------------

    def on_birth(self, listener: BirthListener) -> None:
        """Call ``listener(agent, birth)`` for each birth of an agent that the scenario has a use for."""
        self._on_birth.append(listener)

    def on_state(self, listener: StateListener) -> None:
        """Call ``listener(agent, state)`` for each of their states but outdated ones."""
        self._on_state.append(listener)

    def on_ack(self, listener: AckListener) -> None:
        """Call ``listener(agent, ack)`` for each word on a command."""
        self._on_ack.append(listener)

    def on_epoch(self, listener: EpochListener) -> None:
        """Call ``listener(agent, epoch)`` when an agent shows a higher epoch than any before; see ``highest_epoch``."""
        self._on_epoch.append(listener)

    def on_sample(self, listener: SampleListener) -> None:
        """Call ``listener(agent, meter, record)`` for each new live sample, usable or not."""
        self._intake.on_sample(listener)

    def on_signal(self, listener: SignalListener) -> None:
        """Call ``listener(name, message)`` for each message on the topic of a signal; its payload is unread."""
        self._on_signal.append(listener)

    def on_other(self, listener: OtherListener) -> None:
        """Call ``listener(message)`` for what others subscribed to and is no agent's and no signal's."""
        self._on_other.append(listener)

    # --- what is known ------------------------------------------------------------------------------------------------

    def window(self, agent: str, meter: str) -> SampleWindow:
        """The live samples of an agent's meter, which need not have been heard yet."""
        return self._intake.window(agent, meter)

    @property
    def quarantined(self) -> int:
        """Samples of this life that were stamped in the future: stored, and not used live."""
        return self._intake.counters.quarantined

    @property
    def negative(self) -> int:
        """Live samples of this life below 0 W."""
        return self._intake.counters.negative

    def books(self) -> list[StreamBooks]:
        """The books of every stream as they are on disk: committed, duplicates, lost."""
        return list(self._books.values())

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up the streams that the ledger knows, and subscribe. The ledger must be open."""
        self._intake.resume(self._ledger.stream_books)
        self._books = {books.key: books for books in self._ledger.stream_books}
        self._ledger.on_commit(self._committed)
        any_node = self._topics.node("+")
        for topic in (any_node.birth, any_node.state, any_node.data, any_node.cmd_ack, self._topics.signal("+")):
            self._bus.subscribe(topic)

    def _committed(self, books: Collection[StreamBooks]) -> None:
        self._books.update((book.key, book) for book in books)
        self._acknowledger.committed(books)

    async def run(self) -> None:
        """Take messages until cancelled. Raises LedgerError when the ledger breaks."""
        while True:
            cost = 0
            for message in await self._bus.receive():
                cost += MESSAGE_COST + self._take(message)
                if cost >= TURN_COST:
                    self._intake.hand_over()
                    await asyncio.sleep(0)  # a step may be due
                    cost = 0
            self._intake.hand_over()

    # --- messages -----------------------------------------------------------------------------------------------------

    def _take(self, message: Inbound) -> int:
        """Deal with one message; how many samples it brought."""
        self.counters.messages += 1
        route = self._topics.node_of(message.topic)
        if route is None:
            self._take_other(message)
            return 0
        name, what = route
        try:
            return self._take_nodes(name, what, message)
        except WireError as error:
            self._refuse(name, error)
            return 0

    def _take_nodes(self, name: str, what: str, message: Inbound) -> int:
        if what == "birth":
            self._birth(name, message.payload)
            return 0
        agent = self.roster.agent(name)
        if agent is None:
            raise WireError("unknown_node", "no node of this scenario")
        if what == "data":
            data = decode(message.payload, Data)
            self._intake.take(name, data, message.arrived)
            return len(data.r)
        if what == "state":
            self._state(agent, message.payload)
        elif what == "cmd/ack":
            self._ack(name, decode(message.payload, Ack))
        else:
            raise WireError("unknown_topic", f"nothing is expected on {what[:80]!r}")
        return 0

    def _birth(self, name: str, payload: bytes) -> None:
        if not payload:  # someone cleared the retained one
            return
        birth = decode(payload, Birth)
        if birth.node != name:
            raise WireError("malformed", f"a birth of {birth.node} on the topic of {name}")
        for meter in birth.meters:
            if not 0.0 < meter.interval_s <= 86_400.0:
                raise WireError("malformed", f"meter {meter.name} has a period of {meter.interval_s} s")
        if not self.roster.on_birth(birth):
            raise WireError("unknown_node", "no node of this scenario, and measures none")
        self._intake.learn(birth)
        self._see_epoch(name, birth.epoch)
        for listener in self._on_birth:
            listener(name, birth)

    def _state(self, agent: Agent, payload: bytes) -> None:
        if not payload:
            return
        first = agent.state is None
        state = self.roster.on_state(agent, decode(payload, NodeState))
        if state is None:
            return
        if not (first and state.state is Presence.LOST):  # a will knows no books
            self._ledger.record_node_books(agent.name, state)
        for listener in self._on_state:
            listener(agent.name, state)

    def _ack(self, name: str, ack: Ack) -> None:
        self._see_epoch(name, ack.epoch)
        for listener in self._on_ack:
            listener(name, ack)

    def _see_epoch(self, name: str, epoch: int) -> None:
        if epoch > self.highest_epoch:
            self.highest_epoch = epoch
            for listener in self._on_epoch:
                listener(name, epoch)

    def _take_other(self, message: Inbound) -> None:
        prefix = self._topics.signal("")
        if not message.topic.startswith(prefix):
            for other_listener in self._on_other:
                other_listener(message)
            return
        name = message.topic.removeprefix(prefix)
        if re.fullmatch(NAME_PATTERN, name) is None:
            self._refuse("", WireError("unknown_topic", f"not a signal's name: {name[:80]!r}"))
            return
        for listener in self._on_signal:
            listener(name, message)

    def _refuse(self, name: str, error: WireError) -> None:
        self.counters.refused[error.code] += 1
        if (name, error.code) not in self._told and len(self._told) < MAX_TOLD:
            self._told.add((name, error.code))
            log.warning("%s: refused: %s (told once; counted from here on)", name[:80] or "unknown", error)
