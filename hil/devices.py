"""What a meter and an actuator promise, and how they say that they cannot."""

import enum
from dataclasses import dataclass, field
from typing import Protocol


class Quality(enum.StrEnum):
    """How far a power value can be trusted; it travels with every sample."""

    GOOD = "good"
    STALE = "stale"
    ESTIMATED = "estimated"
    SUSPECT = "suspect"
    MISSING = "missing"


class DeviceError(Exception):
    """A device did not do what was asked; says which device and what happened."""

    def __init__(self, device: str, what: str) -> None:
        super().__init__(f"{device}: {what}")
        self.device = device
        self.what = what


class DeviceUnavailable(DeviceError):
    """Not now; the next tick may work (silence, a busy bus, an exception answer)."""


class DeviceFailed(DeviceError):
    """Not ever, as configured: stop this device, keep the agent (no such file, wrong register table)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a meter.

    ``power_w`` is in the meter's own direction; None only with quality MISSING. ``energy_j`` is the device's own
    cumulative counter where it has one. ``counter_epoch`` is None for a counter that the device itself keeps over our
    restarts; otherwise the driver counts with it how often this counter started anew, which it does with every start
    of ours. ``note`` gives the reason of any quality but GOOD.
    """

    power_w: float | None
    energy_j: float | None = None
    quality: Quality = Quality.GOOD
    note: str = ""
    counter_epoch: int | None = None


class Meter(Protocol):
    """Reads power. Constructors only store; ``open`` acts."""

    @property
    def name(self) -> str:
        """The meter's name in the agent's configuration."""

    async def open(self) -> None:
        """Get ready to read. Raises DeviceFailed where reading can never work; silence is no reason to raise."""

    async def read(self) -> Reading:
        """One finite reading, now. Raises DeviceUnavailable or DeviceFailed; never returns a value it did not read."""

    async def close(self) -> None:
        """Let go of files and sockets; harmless when called twice or before ``open``."""


class WorkloadState(enum.StrEnum):
    """What a program is made to do; PAUSED keeps its memory and takes its processors away."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an actuator can do: limits from ``min_w`` to ``max_w`` in steps of ``step_w`` (0: any), named profiles.

    ``workload``: it starts, pauses, resumes and stops one program. ``note``: what of it does not work, for people.
    """

    min_w: float | None = None
    max_w: float | None = None
    step_w: float = 0.0
    profiles: tuple[str, ...] = ()
    workload: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """What an actuator is set to: a power limit in W, a named profile, what its program does, or nothing (unlimited).

    ``note`` is for people: what a device that is read back adds to it.
    """

    limit_w: float | None = None
    profile: str | None = None
    workload: WorkloadState | None = None
    note: str = field(default="", compare=False)


class Actuator(Protocol):
    """Limits a node's power. Constructors only store; ``open`` acts, and changes no setting."""

    @property
    def name(self) -> str:
        """The actuator's name in the agent's configuration and in a command's target."""

    @property
    def kind(self) -> str:
        """What drives it, as configurations name it."""

    async def open(self) -> Capabilities:
        """Find the device and say what it can do. Raises DeviceUnavailable or DeviceFailed."""

    async def snapshot(self) -> str:
        """The present setting as text that ``restore`` takes, also in a later process."""

    async def apply(self, setting: Setting) -> None:
        """Write a setting that lies within the capabilities. Raises DeviceUnavailable or DeviceFailed."""

    async def readback(self) -> Setting:
        """What the device itself says it is set to."""

    async def restore(self, snapshot: str) -> None:
        """Put back what ``snapshot`` found; harmless when repeated."""

    async def close(self) -> None:
        """Let go of files and sockets without changing the setting."""
