"""Messages on their way to a broker: handed over, and not yet acknowledged.

Not a store: it holds what was published while connected, for the moments until the broker has it, and over a short loss
of the connection. What must survive more lies in the agent's spool and the coordinator's fleet.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_MESSAGES: Final = 5_000
MAX_BYTES: Final = 8 << 20
# A message that a broker answers by closing the connection must not do so for ever.
MAX_TRIES: Final = 3


@dataclass(slots=True)
class Outgoing:
    """A message to publish. ``expires`` and ``since`` are monotonic seconds; ``since`` is its newest try."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    expires: float | None
    since: float
    tries: int = 0

    def remaining_s(self, now: float) -> int | None:
        """Whole seconds until it expires, rounded up, at least 0; None where it never does."""
        return None if self.expires is None else max(0, -int((now - self.expires) // 1))


class Outbox:
    """A bounded, ordered set of messages on their way, by the id that the connection gave them."""

    def __init__(self) -> None:
        self._sent: dict[int, Outgoing] = {}
        self._waiting: deque[Outgoing] = deque()
        self._bytes = 0

    @property
    def empty(self) -> bool:
        """Whether the broker has everything."""
        return not self._sent and not self._waiting

    def takes(self, payload: bytes) -> bool:
        """Whether there is room for one more."""
        messages = len(self._sent) + len(self._waiting)
        return messages < MAX_MESSAGES and self._bytes + len(payload) <= MAX_BYTES

    def sent(self, mid: int, message: Outgoing, now: float) -> None:
        """Note a message that went out as ``mid``."""
        message.tries += 1
        message.since = now
        self._sent[mid] = message
        self._bytes += len(message.payload)

    def acknowledged(self, mid: int) -> Outgoing | None:
        """Forget a message that has arrived; None for an unknown id."""
        message = self._sent.pop(mid, None)
        if message is not None:
            self._bytes -= len(message.payload)
        return message

    def oldest(self) -> float | None:
        """When the oldest message went out that is not acknowledged, in monotonic seconds."""
        return next((message.since for message in self._sent.values()), None)

    def connection_lost(self) -> None:
        """Let what was on its way at QoS 1 wait for the next connection; QoS 0 asks for no second try."""
        again = [message for message in self._sent.values() if message.qos > 0]
        self._waiting.extendleft(reversed(again))
        self._sent.clear()
        self._bytes = sum(len(message.payload) for message in self._waiting)

    def send_waiting(self, send: Callable[[Outgoing], int | None], now: float) -> list[Outgoing]:
        """Send what waits, in order, until ``send`` returns no id; what is given up, for age or tries, comes back."""
        given_up = []
        while self._waiting:
            message = self._waiting[0]
            if message.tries >= MAX_TRIES or message.remaining_s(now) == 0:
                given_up.append(message)
            else:
                mid = send(message)
                if mid is None:
                    break
                self.sent(mid, message, now)
            self._waiting.popleft()
            self._bytes -= len(message.payload)
        return given_up
