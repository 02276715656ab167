"""A RAPL meter in the agent's configuration."""

from typing import Annotated, Literal

import msgspec

from agent.meters.base import MeterConfig


class RaplMeterConfig(MeterConfig, frozen=True, kw_only=True, tag_field="kind", tag="rapl"):
    """The zones to count, and how; ``max_w`` is the most that any one of them may draw."""

    # No pattern for the names: msgspec 0.22 crashes on a union of a list and a text with one. The machine knows them.
    zones: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | str | None = None
    backend: Literal["auto", "powercap", "pyrapl"] = "auto"
    sysfs_root: str = "/sys"
    max_w: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None

    def __post_init__(self) -> None:
        if self.wanted and "psys" in self.wanted and len(self.wanted) > 1:
            raise ValueError("expected psys alone: it covers the packages and all other zones")

    @property
    def wanted(self) -> tuple[str, ...] | None:
        """The zones to count, by kind, name or label; None: packages and their dram."""
        return (self.zones,) if isinstance(self.zones, str) else self.zones
