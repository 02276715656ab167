"""When to try a lost connection again, and what to tell people meanwhile."""

import logging
import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """How long to wait before the next attempt: uniform from 0 to a bound that doubles with each failure.

    The jitter is full, so that a fleet does not come back all at once.
    """

    draw: random.Random
    first_s: float = 0.1
    most_s: float = 5.0
    failures: int = 0

    def next_s(self) -> float:
        """Seconds to wait after one more failure."""
        bound = min(self.most_s, self.first_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return self.draw.uniform(0.0, bound)

    def reset(self) -> None:
        """Start over: the connection holds."""
        self.failures = 0


@dataclass(slots=True)
class Troubles:
    """Says each fault of a connection once, and how many attempts failed once it is back.

    A connection that breaks as soon as it is up, as when two clients share an id, is not back until it holds.
    """

    log: logging.Logger
    where: str
    failures: int = 0
    flapping: bool = False
    told: set[str] = field(default_factory=set)

    def failed(self, why: str, *, flapping: bool) -> None:
        """Note a failed attempt or a lost connection; ``flapping``: it was up, and not for long."""
        self.failures += 1
        self.flapping = flapping
        if why not in self.told:
            self.told.add(why)
            self.log.warning("%s: %s; will keep trying", self.where, why)

    def connected(self, how: str) -> None:
        """Note a connection, of which nobody knows yet whether it will hold."""
        if not self.flapping:
            self._tell(how)

    def holds(self, how: str) -> None:
        """Note that the connection holds: the next fault is news again."""
        if self.flapping:
            self._tell(how)
        self.flapping = False
        self.told.clear()

    def _tell(self, how: str) -> None:
        after = f" after {self.failures} failed attempt{'s' * (self.failures > 1)}" if self.failures else ""
        self.log.info("%s: connected, %s%s", self.where, how, after)
        self.failures = 0
