"""Who may command this agent: protocol, order and freshness of a command, before anyone asks what it wants.

Pure. Epoch and sequence are compared per issuer: a higher epoch is a newer life of the coordinator and fences off all
older ones.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.lease import Refusal
from agent.watch import Watch
from hil.units import MICROSECONDS_PER_SECOND
from hil.wire import PROTOCOL, Command

AHEAD_S: Final = 5.0


class Mode(enum.StrEnum):
    """How far the agent goes: look on, say what it would do, or do it."""

    OBSERVE = "observe"
    DRY_RUN = "dry_run"
    ACT = "act"


@dataclass(frozen=True, slots=True)
class Fence:
    """The newest command taken from one issuer; anything older is refused."""

    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """The circumstances a command came in under; ``synchronised`` is None where nobody can tell."""

    retained: bool
    wall_us: int
    boottime: float
    synchronised: bool | None


class Gate:
    """Lets commands in, in order."""

    def __init__(self, node: str, fences: Mapping[str, Fence]) -> None:
        self._node = node
        self._fences = dict(fences)

    @property
    def highest_epoch(self) -> int:
        """The highest epoch obeyed; 0 before the first command."""
        return max((fence.epoch for fence in self._fences.values()), default=0)

    def admit(self, command: Command, arrival: Arrival, watch: Watch) -> Refusal | None:
        """None, and the command's place in the order taken; or why it may not come in."""
        refusal = self._misdirected(command, arrival) or self._stale(command) or _untimely(command, arrival, watch)
        if refusal is None:
            self._fences[command.issuer] = Fence(command.epoch, command.seq)
        return refusal

    def _misdirected(self, command: Command, arrival: Arrival) -> Refusal | None:
        if arrival.retained:
            return Refusal("retained", "a command must not be retained: it may be older than its lease")
        if command.v != PROTOCOL:
            return Refusal("version", f"speaks version {command.v}, this agent {PROTOCOL}")
        if command.target.node != self._node:
            return Refusal("unknown_target", f"this is {self._node}, not {command.target.node}")
        return None

    def _stale(self, command: Command) -> Refusal | None:
        fence = self._fences.get(command.issuer, Fence(0, 0))
        if command.epoch < fence.epoch:
            return Refusal("stale_epoch", f"highest epoch is {fence.epoch}")
        if command.epoch == fence.epoch and command.seq <= fence.seq:
            return Refusal("stale_seq", f"last sequence is {fence.seq}")
        return None


def _untimely(command: Command, arrival: Arrival, watch: Watch) -> Refusal | None:
    if not arrival.synchronised:
        # Stamps of two clocks say nothing then; a live coordinator of the same epoch does.
        if watch.alive(command.epoch, arrival.boottime):
            return None
        return Refusal("clock", "this clock is not synchronised, and no heartbeat vouches for the command")
    age_s = arrival.wall_us / MICROSECONDS_PER_SECOND - command.issued_at.timestamp()
    if age_s > command.ttl_s:
        return Refusal("expired_on_arrival", f"issued {age_s:.0f} s ago for {command.ttl_s:g} s")
    if age_s < -AHEAD_S:
        return Refusal("clock", f"issued {-age_s:.0f} s in the future")
    return None
