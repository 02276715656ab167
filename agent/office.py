"""What the desks of an agent share, and the orders they get."""

from collections.abc import Callable
from dataclasses import dataclass

from agent.answers import Answers
from agent.gate import Mode
from agent.lease import Refusal
from agent.leasestore import LeaseStore
from agent.watch import Failsafe, Watch
from hil.clock import Clock
from hil.wire import Command, LimitState


@dataclass(frozen=True, slots=True)
class Order:
    """A command that was let in, and when: seconds on CLOCK_BOOTTIME, and the wall clock's stamp."""

    command: Command
    received: float
    received_us: int


@dataclass(slots=True)
class Tally:
    """What was obeyed; ``renewals`` only extended a lease and are not counted as ``applied``."""

    applied: int = 0
    renewals: int = 0
    released: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Office:
    """What the desks of an agent share."""

    mode: Mode
    failsafe: Failsafe
    watch: Watch
    store: LeaseStore
    answers: Answers
    clock: Clock
    tally: Tally
    locked: Callable[[], bool]
    refuse: Callable[[Order, Refusal], None]
    publish: Callable[[LimitState], bool]
