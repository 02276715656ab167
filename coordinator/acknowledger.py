"""Tells agents what is on disk: one word per stream and commit, and never before the commit."""

import asyncio
from collections.abc import Collection
from typing import Final

from coordinator.stream import StreamBooks, StreamKey
from hil.bus import Bus
from hil.intervals import Intervals
from hil.wire import DataAck, Topics, encode

RANGES: Final = 1_000
"""As many as fit one message; a stream with more holes gets several."""

ACKS_A_TURN: Final = 20
"""Between two turns of the event loop: about a millisecond."""


class Acknowledger:
    """Owes acknowledgements and sends them.

    Without a connection nothing goes out: the agents then send again, and get their answer for that.
    """

    def __init__(self, topics: Topics, bus: Bus) -> None:
        self._topics = topics
        self._bus = bus
        self._owed: dict[StreamKey, StreamBooks] = {}
        self._sending = False

    def committed(self, books: Collection[StreamBooks]) -> None:
        """Take the books of streams as they are now on disk; what an earlier commit left untold is told with them."""
        self._owed.update((book.key, book) for book in books)
        if not self._sending:
            self._sending = True
            self._send_some()

    def _send_some(self) -> None:
        for _ in range(min(ACKS_A_TURN, len(self._owed))):
            self._send(self._owed.pop(next(iter(self._owed))))
        self._sending = bool(self._owed)
        if self._sending:
            asyncio.get_running_loop().call_soon(self._send_some)  # a step may be due

    def _send(self, books: StreamBooks) -> None:
        topic = self._topics.node(books.node).data_ack
        settled = Intervals(books.ranges)
        have = settled.have
        for start in range(0, max(1, len(have)), RANGES):
            ack = DataAck(stream=books.stream, upto=settled.upto, have=list(have[start : start + RANGES]))
            self._bus.publish(topic, encode(ack))
