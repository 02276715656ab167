"""The emulated nodes under one clock: whoever looks at one first brings all of them up to now."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from hil.clock import Clock
from hil.emulated.journal import Journal, JournalRow
from hil.emulated.node import EmulatedNode

JOURNAL_EVERY_S: Final = 0.05
ROWS_PER_WRITE: Final = 10


class World:
    """Nodes by name, all at the same instant of ``clock``; their time begins with the first ``advance``."""

    def __init__(
        self, nodes: Iterable[EmulatedNode], clock: Clock, journals: Mapping[str, Journal] | None = None
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self._clock = clock
        self._journals = dict(journals or {})
        self._now: float | None = None

    def advance(self) -> None:
        """Bring every node up to now."""
        now = self._clock.monotonic()
        if self._now is not None:
            for node in self.nodes.values():
                node.advance(now - self._now)
        self._now = now

    async def run(self) -> None:
        """Let time pass and write the journals, until cancelled. Raises JournalError."""
        deadline, rows = self._clock.monotonic(), 0
        try:
            while True:
                self._note()
                rows += 1
                if rows % ROWS_PER_WRITE == 0:
                    await asyncio.to_thread(self._flush)
                deadline = max(deadline + JOURNAL_EVERY_S, self._clock.monotonic())
                await self._clock.sleep_until(deadline)
        finally:
            self._note()
            self._flush()

    def _note(self) -> None:
        self.advance()
        t_us = self._clock.wall_us()
        for name, journal in self._journals.items():
            node = self.nodes[name]
            journal.add(JournalRow(t_us, node.power_w, node.energy_j, node.cap_w))

    def _flush(self) -> None:
        for journal in self._journals.values():
            journal.flush()
