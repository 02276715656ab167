"""What a bus knows of one unit: how quickly it answers, and how long it has not."""

from dataclasses import dataclass, field
from typing import Final

from agent.meters.modbus.backoff import Backoff

SHORTEST_TIMEOUT_S: Final = 0.3
LONGEST_TIMEOUT_S: Final = 2.0
STRANGER_TIMEOUT_S: Final = 1.0
"""For a unit that has never answered, on a bus where none has; and the most that a unit gets that fell silent."""

TIMEOUT_PER_LATENCY: Final = 4.0
FADING: Final = 0.98
"""How much of the slowest answer is remembered from one answer to the next."""

PROBE_FIRST_S: Final = 2.0
PROBE_LONGEST_S: Final = 300.0
FREE_SILENCES: Final = 1
"""A lost frame is no dead unit: so many silences in a row cost nothing but their timeout."""

LATE_S: Final = 5.0
"""After so long, an answer that has not come will not come any more."""


@dataclass(slots=True)
class Unit:
    """One unit on a bus, all times monotonic seconds."""

    probing: Backoff = field(default_factory=lambda: Backoff(PROBE_FIRST_S, PROBE_LONGEST_S, FREE_SILENCES))
    slowest_s: float | None = None
    unanswered: dict[int, float] = field(default_factory=dict)
    """When a request of each function code was last left without an answer."""

    def answered(self, function: int, latency_s: float) -> None:
        """Note an answer, and the seconds that the unit took for it."""
        self.probing.worked()
        self.unanswered.pop(function, None)
        self.slowest_s = max(latency_s, FADING * (self.slowest_s or 0.0))

    def failed(self, now: float, reason: str) -> None:
        """Note a request in vain, and why."""
        self.probing.failed(now, reason)

    def left_open(self, function: int, now: float) -> None:
        """Note a request that may still be answered."""
        self.unanswered[function] = now

    def may_answer_late(self, function: int, now: float) -> bool:
        """Whether what comes now may be the answer to an earlier request."""
        left_open = self.unanswered.get(function)
        return left_open is not None and now - left_open < LATE_S

    @property
    def usual_timeout_s(self) -> float | None:
        """Seconds to wait for a unit in good health; None while it has never answered."""
        if self.slowest_s is None:
            return None
        return min(max(TIMEOUT_PER_LATENCY * self.slowest_s, SHORTEST_TIMEOUT_S), LONGEST_TIMEOUT_S)

    def timeout_s(self, usual_s: float) -> float:
        """Seconds to wait now, ``usual_s`` in good health: it may have become slower, so a silent unit gets more."""
        return min(usual_s * 2.0 ** min(self.probing.failures, 10), max(usual_s, STRANGER_TIMEOUT_S))
