"""Is the coordinator alive, and what does that make of this agent? The heartbeat decides, not the connection.

Pure: instants are seconds on CLOCK_BOOTTIME. INIT → CONTROLLED on a heartbeat → HOLD after 15 s of silence → FAILSAFE
when a lease ends in silence → CONTROLLED on a heartbeat *and* a fresh command. AUTONOMOUS: no coordinator ever came.
"""

import enum
from dataclasses import dataclass
from typing import Final

HEARTBEAT_LOST_S: Final = 15.0
SILENCE_S: Final = 7.5
AUTONOMOUS_S: Final = 120.0


class LeaseState(enum.StrEnum):
    """Who decides on this agent's limits."""

    INIT = "init"
    CONTROLLED = "controlled"
    HOLD = "hold"
    FAILSAFE = "failsafe"
    AUTONOMOUS = "autonomous"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True)
class Failsafe:
    """What holds when a lease ended and the coordinator is silent: a limit in W, or None for no limit."""

    limit_w: float | None = None

    def __str__(self) -> str:
        return "release" if self.limit_w is None else f"limit {self.limit_w:g} W"


class Watch:
    """The coordinator's signs of life, and the state that follows from them."""

    def __init__(self, started: float) -> None:
        self._locked = False
        self._started = started
        self._heartbeat: float | None = None
        self._heartbeat_epoch = 0
        self._failed = False
        self._heard_since = False
        self._commanded_since = False

    @property
    def failsafe(self) -> bool:
        """Whether the failsafe holds."""
        return self._failed

    @property
    def locked(self) -> bool:
        """Whether a person on this machine has taken over."""
        return self._locked

    def lock(self, locked: bool) -> None:
        """Note the local switch; whoever sets it takes over from the failsafe, too."""
        self._locked = locked
        self._failed = self._failed and not locked

    def heartbeat(self, epoch: int, now: float) -> None:
        """Note a sign of life of the coordinator with this epoch."""
        self._heartbeat = now
        self._heartbeat_epoch = epoch
        self._heard_since = True
        self._recover(now)

    def command(self, now: float) -> None:
        """Note a fresh command that is being obeyed."""
        self._commanded_since = True
        self._recover(now)

    def fail(self) -> None:
        """Enter FAILSAFE; only a heartbeat and a command from here on lead out of it."""
        self._failed, self._heard_since, self._commanded_since = True, False, False

    def alive(self, epoch: int, now: float) -> bool:
        """Whether the coordinator of this very epoch gave a sign of life within 15 s."""
        return epoch == self._heartbeat_epoch and not self._older_than(HEARTBEAT_LOST_S, now)

    def silent(self, now: float) -> bool:
        """Whether a lease that ends now ended because nobody was there to renew it."""
        return self._older_than(SILENCE_S, now)

    def state(self, now: float) -> LeaseState:
        """The agent's state."""
        if self._locked:
            return LeaseState.LOCKED
        if self._failed:
            return LeaseState.FAILSAFE
        if self._heartbeat is None:
            return LeaseState.AUTONOMOUS if now - self._started >= AUTONOMOUS_S else LeaseState.INIT
        return LeaseState.HOLD if self._older_than(HEARTBEAT_LOST_S, now) else LeaseState.CONTROLLED

    def _older_than(self, age_s: float, now: float) -> bool:
        return self._heartbeat is None or now - self._heartbeat > age_s

    def _recover(self, now: float) -> None:
        if self._heard_since and self._commanded_since and not self._older_than(HEARTBEAT_LOST_S, now):
            self._failed = False
