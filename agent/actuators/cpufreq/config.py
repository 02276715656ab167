"""What a frequency limit may be, in the agent's configuration."""

import itertools
from typing import Annotated

import msgspec

from agent.actuators.base import ActuatorConfig
from hil.wire import Name
from hil.yamlfile import Section

Megahertz = Annotated[float, msgspec.Meta(gt=0, le=100_000)]
Watts = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class Mode(Section, frozen=True, kw_only=True):
    """A named profile; None: as it was found."""

    max_mhz: Megahertz | None = None
    epp: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,32}\Z")] | None = None
    boost: bool | None = None


class CpufreqConfig(ActuatorConfig, frozen=True, kw_only=True, tag_field="kind", tag="cpufreq"):
    """Named modes, and the node's power over the highest frequency, from which limits in W follow."""

    modes: dict[Name, Mode] = msgspec.field(default_factory=dict)
    curve: tuple[tuple[Megahertz, Watts], ...] = ()
    sysfs_root: str = "/sys"

    def __post_init__(self) -> None:
        if not self.modes and not self.curve:
            raise ValueError("expected modes, a curve, or both")
        if len(self.curve) == 1:
            raise ValueError("expected a curve of two points at least")
        if any(b[0] <= a[0] or b[1] <= a[1] for a, b in itertools.pairwise(self.curve)):
            raise ValueError("expected a curve whose frequency and power rise from point to point")
