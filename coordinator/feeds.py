"""Which meters feed which actors: the nodes of a scenario, tied to the samples and signals that come in."""

import logging
from collections.abc import Sequence
from functools import partial

from coordinator.ingest import Ingest
from coordinator.inputs import MeterWindow, NodeInput
from coordinator.microgrid.actors import NodeActor
from coordinator.scenario import Scenario
from coordinator.stepper import ActorKey
from hil.bus import Inbound
from hil.wire import Birth, WireError

log = logging.getLogger(__name__)


class Feeds:
    """The inputs of all node actors. Where a scenario names no meters, whatever measures the node counts."""

    def __init__(self, scenario: Scenario, ingest: Ingest) -> None:
        self._scenario = scenario
        self._ingest = ingest
        self._refused: set[str] = set()
        self._nodes: dict[tuple[str, str], list[str]] | None = None
        self._actors = {(part.name, actor.name): actor for part in scenario.microgrids for actor in part.nodes}
        self.inputs: dict[ActorKey, NodeInput] = {
            key: NodeInput(actor.name, actor.nameplate_w, partial(self._windows, actor))
            for key, actor in self._actors.items()
        }
        ingest.on_birth(self._on_birth)

    def nodes_of(self, agent: str, meter: str) -> Sequence[str]:
        """The nodes whose first meter this is."""
        if self._nodes is None:  # asked for every sample, changed by births alone
            self._nodes = {}
            for actor in self._actors.values():
                for first in self._meters(actor)[:1]:
                    self._nodes.setdefault(first, []).append(actor.node)
        return self._nodes.get((agent, meter), [])

    def silent(self) -> list[str]:
        """The nodes of which nothing was measured yet."""
        return sorted({actor.node for actor in self._actors.values() if not any(w.heard for w in self._windows(actor))})

    def on_signal(self, name: str, message: Inbound) -> None:
        """Take a signal from another system."""
        signal = self._scenario.externals.get(name)
        try:
            if signal is None:
                raise WireError("unknown_signal", "no external signal of this scenario")
            signal.receive(message.payload, message.arrived)
            self._refused.discard(name)
        except WireError as error:
            if name not in self._refused:
                self._refused.add(name)
                log.warning("signal %s: %s", name, error)

    def _on_birth(self, agent: str, birth: Birth) -> None:
        del agent, birth
        self._nodes = None

    def _windows(self, actor: NodeActor) -> Sequence[MeterWindow]:
        return [self._ingest.window(*meter) for meter in self._meters(actor)]

    def _meters(self, actor: NodeActor) -> list[tuple[str, str]]:
        if actor.meters:
            return [(ref.agent, ref.meter) for ref in actor.meters]
        return [(agent, meter.name) for agent, meter in self._ingest.roster.meters_of(actor.node)]
