"""What is wanted of a node, and the commands that came of it."""

import math
from dataclasses import dataclass, field

import msgspec

from coordinator.records import CommandRow
from hil.verification import Verification
from hil.wire import TERMINAL, AckState, Action, Birth, Command, Effect


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one source wants of a node: a limit in W, or a profile."""

    source: str
    node: str
    microgrid: str
    limit_w: float | None = None
    profile: str | None = None
    reason: str = ""

    def same_as(self, other: "Demand | None") -> bool:
        """Whether the node would be asked for the same thing; the reason does not count."""
        return other is not None and (self.limit_w, self.profile) == (other.limit_w, other.profile)


@dataclass(slots=True)
class Order:
    """A command that was decided, and how far it has come. Times are monotonic seconds."""

    row: CommandRow
    demand: Demand | None
    decided: float
    published: float | None = None
    sent_again: float | None = None
    state: AckState | None = None
    effect: Effect = Effect.PENDING
    verification: Verification | None = None

    @property
    def command(self) -> Command:
        """The command itself."""
        return self.row.command

    @property
    def ended(self) -> bool:
        """Whether the agent has said its last word on it."""
        return self.state in TERMINAL

    @property
    def last_sent(self) -> float:
        """When it last went out; when it was decided, if it never did."""
        return self.sent_again or self.published or self.decided

    def lapsed(self, now_s: float) -> bool:
        """Whether its lease was over at ``now_s`` (seconds since 1970) even if it was never received before."""
        return now_s > self.command.issued_at.timestamp() + self.command.ttl_s


@dataclass(slots=True)
class NodeOrders:
    """One node's affairs: the demands on it, what its agent can do, and the command that stands.

    ``open`` are the commands whose end is not known, oldest first; no question about them goes out before ``ask_at``.
    """

    demands: dict[str, Demand] = field(default_factory=dict)
    birth: Birth | None = None
    in_failsafe: bool = False
    standing: Order | None = None
    open: dict[str, Order] = field(default_factory=dict)
    retry_at: float = 0.0
    retry_s: float = 0.0
    ask_at: float = -math.inf

    def wanted(self) -> Demand | None:
        """The strictest demand: the lowest limit; where there is none, the first profile."""
        limits = [demand for demand in self.demands.values() if demand.limit_w is not None]
        if limits:
            return min(limits, key=lambda demand: (demand.limit_w, demand.source))
        return min(self.demands.values(), key=lambda demand: demand.source, default=None)

    def actuator(self, action: Action) -> str | None:
        """The first actuator that can do it."""
        if self.birth is None:
            return None
        return next((info.name for info in self.birth.actuators if action in info.actions), None)
