"""A RAPL limit in the agent's configuration."""

from typing import Annotated

import msgspec

from agent.actuators.base import ActuatorConfig

Power = Annotated[float, msgspec.Meta(gt=0, le=1e6)]


class RaplActuatorConfig(ActuatorConfig, frozen=True, kw_only=True, tag_field="kind", tag="rapl"):
    """The limits in W that may be set for all packages together; ``burst``: short-term over long-term limit."""

    min_w: Power
    max_w: Power | None = None
    burst: Annotated[float, msgspec.Meta(ge=1, le=4)] = 1.25
    sysfs_root: str = "/sys"

    def __post_init__(self) -> None:
        if self.max_w is not None and self.min_w >= self.max_w:
            raise ValueError(f"expected min_w below max_w, not {self.min_w:g} and {self.max_w:g}")
