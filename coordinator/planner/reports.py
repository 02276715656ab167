"""What goes to the solver's process and what comes back from it."""

import msgspec

from coordinator.planner.instance import Instance
from coordinator.planner.plan import Plan


class Request(msgspec.Struct, frozen=True):
    """What to solve, in how much time from now, and at which gap to stop."""

    instance: Instance
    time_limit_s: float
    gap: float


class PlanFound(msgspec.Struct, frozen=True, tag="plan"):
    """A better plan."""

    plan: Plan


class BoundProved(msgspec.Struct, frozen=True, tag="bound"):
    """A tighter upper bound, and what proved it."""

    bound: float
    method: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The solver gave up, and why."""

    reason: str


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """Nothing more will come."""


Report = PlanFound | BoundProved | Failed | Finished
