"""The fleet: from what controllers ask of nodes to commands under a lease, and what became of them.

Nothing else publishes commands. A demand stands until its source takes it back; the fleet turns the strictest one per
node into a command, renews it at a third of its lease, repeats it until the agent answers, and follows it to its end.
Commands are on disk before they are on the wire: ``decide`` gives rows, the caller commits them, then ``publish``.
"""

import logging
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from coordinator.controllers.api import Limit, Profile, Release
from coordinator.orders import Demand, NodeOrders, Order
from coordinator.records import AckRow, CommandRow, EffectRow
from hil.bus import Bus
from hil.clock import Clock, utc
from hil.devices import Quality
from hil.units import MICROSECONDS_PER_SECOND
from hil.verification import Verification
from hil.wire import TERMINAL, Ack, AckState, Action, Birth, Command, Effect, NodeState, Target, Topics, encode

log = logging.getLogger(__name__)

RESEND_S: Final = 2.0
ASK_S: Final = 10.0
OPEN_KEPT: Final = 100
RETRY_MAX_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about a node's commands worth an event."""

    microgrid: str | None
    kind: str
    detail: str


class Journal:
    """Where the fleet's facts go; the run wires these to the ledger."""

    def __init__(
        self,
        ack: Callable[[AckRow], None],
        effect: Callable[[EffectRow], None],
        notice: Callable[[Notice], None],
        stale: Callable[[str], None],
    ) -> None:
        self.ack = ack
        self.effect = effect
        self.notice = notice
        self.stale = stale


class Fleet:
    """All nodes' orders."""

    def __init__(
        self,
        topics: Topics,
        issuer: str,
        epoch: int,
        ttl_s: float,
        priority: int,
        clock: Clock,
        bus: Bus,
        journal: Journal,
    ) -> None:
        self._topics = topics
        self._issuer = issuer
        self._epoch = epoch
        self._ttl_s = ttl_s
        self._priority = priority
        self._clock = clock
        self._bus = bus
        self._journal = journal
        self._nodes: dict[str, NodeOrders] = {}
        self._seq = 0

    # --- what is wanted -----------------------------------------------------------------------------------------------

    def ask(self, source: str, microgrid: str, action: Limit | Profile | Release) -> bool:
        """Take a source's wish for a node; True when it changes what that source wants."""
        orders = self._node(action.node)
        before = orders.demands.get(source)
        if isinstance(action, Release):
            return orders.demands.pop(source, None) is not None
        demand = Demand(
            source=source,
            node=action.node,
            microgrid=microgrid,
            limit_w=action.limit_w if isinstance(action, Limit) else None,
            profile=action.profile if isinstance(action, Profile) else None,
            reason=action.reason,
        )
        if demand.same_as(before):
            return False
        orders.demands[source] = demand
        orders.retry_at = 0.0
        return True

    def release_all(self) -> None:
        """Take back every demand: the run is over."""
        for orders in self._nodes.values():
            orders.demands.clear()

    def demands(self) -> list[Demand]:
        """Everything wanted of every node; goes into the snapshot."""
        return [demand for orders in self._nodes.values() for demand in orders.demands.values()]

    def restore(self, demands: Iterable[Demand]) -> None:
        """Want again what a snapshot says was wanted; commands follow under the new epoch."""
        for demand in demands:
            self._node(demand.node).demands[demand.source] = demand

    def adopt(self, rows: Iterable[CommandRow]) -> None:
        """Follow commands of earlier lives, of which no end is known, to their ends."""
        now = self._clock.monotonic()
        for row in rows:
            self._open(self._node(row.command.target.node), Order(row, None, now))

    # --- commands -----------------------------------------------------------------------------------------------------

    def decide(self, k: int | None, t_us: int) -> list[CommandRow]:
        """The commands that are due now: changes, releases, renewals, repeats after a refusal. Not yet published."""
        now = self._clock.monotonic()
        rows = []
        for node, orders in self._nodes.items():
            order = self._due(node, orders, now, k, t_us)
            if order is not None:
                orders.standing = order
                self._open(orders, order)
                rows.append(order.row)
        return rows

    def publish(self, rows: Iterable[CommandRow]) -> None:
        """Send committed commands. What cannot go now goes on the next ``repeat``."""
        for row in rows:
            order = self._node(row.command.target.node).open.get(row.command.id)
            if order is not None:
                self._send(order)

    def repeat(self) -> None:
        """Send again what no agent has answered for a while; the id makes a repeat harmless.

        A command that stands no more and whose end was not heard is asked after in the same way.
        """
        now = self._clock.monotonic()
        for orders in self._nodes.values():
            order = orders.standing
            if order is not None and order.state is None and now - order.last_sent >= RESEND_S:
                self._send(order)
            owed = self._owed(orders, now) if now >= orders.ask_at else None
            if owed is not None:
                orders.ask_at = now + ASK_S
                self._send(owed)

    def _owed(self, orders: NodeOrders, now: float) -> Order | None:
        """The oldest command that stands no more and whose end should have been heard."""
        standing = orders.standing
        if standing is not None and now - standing.decided < RESEND_S:
            return None
        # An old limit must not come into force now: not before its agent knows a newer command, or its lease is over.
        answered = standing is not None and standing.state is not None
        now_s = self._clock.wall_us() / MICROSECONDS_PER_SECOND
        for order in orders.open.values():
            harmless = answered or order.command.action is Action.RELEASE or order.lapsed(now_s)
            if order is not standing and harmless:
                return order
        return None

    def _open(self, orders: NodeOrders, order: Order) -> None:
        orders.open[order.command.id] = order
        if len(orders.open) > OPEN_KEPT:  # an agent that has long been silent
            del orders.open[next(iter(orders.open))]

    @property
    def unanswered(self) -> int:
        """Commands whose agent has not said that they ended."""
        return sum(len(orders.open) for orders in self._nodes.values())

    def _due(self, node: str, orders: NodeOrders, now: float, k: int | None, t_us: int) -> Order | None:
        wanted = orders.wanted()
        standing = orders.standing
        if standing is None or standing.demand is None:
            waits = now < orders.retry_at
            if wanted is None:  # out of its failsafe comes an agent by a fresh command alone, if only a release
                rests = standing is not None and now - standing.decided < ASK_S
                waits = waits or rests or not orders.in_failsafe
            return None if waits else self._order(node, orders, wanted, None, now, k, t_us)
        if wanted is None:
            return self._order(node, orders, None, None, now, k, t_us)
        if not wanted.same_as(standing.demand):
            return self._order(node, orders, wanted, None, now, k, t_us)
        if standing.ended:  # refused, failed, or expired in a silence
            return None if now < orders.retry_at else self._order(node, orders, wanted, None, now, k, t_us)
        if now - standing.decided >= self._ttl_s / 3.0:
            return self._order(node, orders, wanted, standing.command.id, now, k, t_us)
        return None

    def _order(
        self,
        node: str,
        orders: NodeOrders,
        demand: Demand | None,
        renews: str | None,
        now: float,
        k: int | None,
        t_us: int,
    ) -> Order | None:
        action = Action.RELEASE if demand is None else Action.LIMIT if demand.limit_w is not None else Action.PROFILE
        actuator = self._actuator(node, orders, demand, action, now)
        if actuator is None:
            return None
        self._seq += 1
        real_us = self._clock.wall_us()
        command = Command(
            id=str(uuid.uuid4()),
            issuer=self._issuer,
            epoch=self._epoch,
            seq=self._seq,
            target=Target(node=node, actuator=actuator),
            action=action,
            limit_w=demand.limit_w if demand else None,
            profile=demand.profile if demand else None,
            priority=self._priority,
            issued_at=utc(real_us),
            ttl_s=self._ttl_s,
            renews=renews,
            reason=demand.reason if demand else "no longer wanted",
        )
        microgrid = demand.microgrid if demand else orders.standing.row.microgrid if orders.standing else None
        order = Order(CommandRow(command, microgrid, k, t_us, real_us), demand, now)
        if renews is not None and orders.standing is not None:  # the meter has already judged this limit
            order.effect = orders.standing.effect
            order.verification = orders.standing.verification
        return order

    def _actuator(self, node: str, orders: NodeOrders, demand: Demand | None, action: Action, now: float) -> str | None:
        if action is Action.RELEASE and orders.standing is not None:
            return orders.standing.command.target.actuator
        actuator = orders.actuator(action)
        if actuator is None:
            heard = "its agent offers no such actuator" if orders.birth else "its agent was not heard yet"
            if orders.retry_s == 0.0:
                self._notice(demand, "command-waits", f"{node}: {action} wanted, but {heard}")
            self._back_off(orders, now)
        return actuator

    def _send(self, order: Order) -> None:
        command = order.command
        payload = encode(command)
        now = self._clock.monotonic()
        topic = self._topics.node(command.target.node).cmd
        if not self._bus.publish(topic, payload, qos=1, expiry_s=round(command.ttl_s)):
            order.sent_again = now
            return
        if order.published is None:
            order.published = now
        else:
            order.sent_again = now

    # --- what became of them ------------------------------------------------------------------------------------------

    def on_birth(self, node: str, birth: Birth) -> None:
        """Learn what a node's agent can do."""
        orders = self._node(node)
        orders.birth = birth
        orders.retry_at = 0.0
        orders.retry_s = 0.0

    def on_state(self, node: str, state: NodeState) -> None:
        """Learn how an agent's leases stand."""
        self._node(node).in_failsafe = state.lease == "failsafe"

    def on_ack(self, node: str, ack: Ack) -> None:
        """Take an agent's word."""
        now = self._clock.monotonic()
        orders = self._node(node)
        order = orders.open.get(ack.id)
        ours = ack.epoch == self._epoch
        first = order is not None and order.state in {None, AckState.RECEIVED}
        latency_ms = None
        if order is not None and ours and first and ack.state is AckState.APPLIED and order.published is not None:
            latency_ms = (now - order.published) * 1000.0
        self._journal.ack(AckRow(ack, node, self._clock.wall_us(), latency_ms))
        if order is None:
            return  # its end is known, or it was another's: recorded
        if not order.ended:
            order.state = ack.state
        if ack.state in TERMINAL:
            self._ended(node, orders, order, ack, now)
        elif ours and ack.state is AckState.APPLIED:
            self._applied(node, orders, order, ack, now)

    def on_sample(self, node: str, power_w: float | None, quality: Quality) -> None:
        """Hold a reading of the node's power, from a meter on another agent, against its limit."""
        orders = self._nodes.get(node)
        order = orders.standing if orders else None
        if order is None or order.verification is None or order.effect is not Effect.PENDING:
            return
        effect = order.verification.observe(power_w, quality, self._clock.monotonic())
        if effect is not Effect.PENDING:
            self._judged(node, order, effect, order.verification.measured_w)

    def _applied(self, node: str, orders: NodeOrders, order: Order, ack: Ack, now: float) -> None:
        orders.retry_s = 0.0
        if ack.effect is not Effect.PENDING and order.effect is not ack.effect:
            self._judged(node, order, ack.effect, ack.measured_w)
        elif order.verification is None and order.command.limit_w is not None and not self._agent_verifies(node):
            order.verification = Verification(ack.applied_w or order.command.limit_w, started=now)

    def _ended(self, node: str, orders: NodeOrders, order: Order, ack: Ack, now: float) -> None:
        orders.open.pop(ack.id, None)
        if order is not orders.standing:
            orders.ask_at = now  # this agent answers: the next question need not wait
            return
        if ack.state in {AckState.REJECTED, AckState.FAILED}:
            self._notice(order.demand, f"command-{ack.state}", f"{node}: {ack.code or 'no code'} {ack.detail}".rstrip())
            self._back_off(orders, now)
        if ack.code == "stale_epoch":
            self._journal.stale(ack.detail)

    def _judged(self, node: str, order: Order, effect: Effect, measured_w: float | None) -> None:
        order.effect = effect
        self._journal.effect(EffectRow(order.command.id, effect, measured_w, self._clock.wall_us()))
        measured = "nothing measured" if measured_w is None else f"measured {measured_w:.1f} W"
        self._notice(order.demand, f"limit-{effect}", f"{node}: {order.command.limit_w} W asked, {measured}")

    def _agent_verifies(self, node: str) -> bool:
        birth = self._node(node).birth
        return birth is not None and any(meter.measures == node for meter in birth.meters)

    def _back_off(self, orders: NodeOrders, now: float) -> None:
        orders.retry_s = min(RETRY_MAX_S, max(self._ttl_s / 3.0, orders.retry_s * 2.0))
        orders.retry_at = now + orders.retry_s

    def _notice(self, demand: Demand | None, kind: str, detail: str) -> None:
        self._journal.notice(Notice(demand.microgrid if demand else None, kind, detail))

    def _node(self, node: str) -> NodeOrders:
        return self._nodes.setdefault(node, NodeOrders())
