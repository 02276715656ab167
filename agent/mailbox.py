"""What comes in over the bus, and who takes it."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from agent.faultlog import FaultLog
from hil.bus import Bus, Inbound
from hil.wire import Message, WireError, decode

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

Handler = Callable[[Inbound], None]


class Mailbox:
    """Hands each message to the handler of its topic; what nobody takes or nobody can read is counted and survived."""

    def __init__(self, bus: Bus, handlers: Mapping[str, Handler]) -> None:
        self.refused: Counter[str] = Counter()
        self._bus = bus
        self._handlers = handlers
        self._unread = FaultLog(log, "message refused")

    def subscribe(self) -> None:
        """Ask the bus for every topic that has a handler."""
        for topic in self._handlers:
            self._bus.subscribe(topic)

    async def run(self) -> None:
        """Hand messages over, until cancelled."""
        while True:
            for message in await self._bus.receive():
                self._hand_over(message)

    def _hand_over(self, message: Inbound) -> None:
        handler = self._handlers.get(message.topic)
        try:
            if handler is None:
                raise WireError("unknown_topic", "nobody here takes it")
            handler(message)
        except WireError as error:
            self.refused[error.code] += 1
            self._unread.fault(f"{message.topic}: {error}")


def reading(kind: type[M], take: Callable[[M], None]) -> Handler:
    """A handler that decodes and hands on. Raises WireError."""
    return lambda message: take(decode(message.payload, kind))
