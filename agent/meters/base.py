"""What every meter's configuration has in common."""

from typing import Annotated

import msgspec

from agent.meters.pue import Factor, PueConfig
from hil.wire import Name
from hil.yamlfile import Section

Interval = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class MeterConfig(Section, frozen=True, kw_only=True):
    """A meter's name, the node it measures (none: the agent's own) and its period in s (none: the agent's own).

    ``offset_w`` and ``pue`` are added to what it reads (``agent.meters.overhead``).
    """

    name: Name
    measures: Name | None = None
    interval_s: Interval | None = None
    offset_w: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)] = 0.0
    pue: Factor | PueConfig = 1.0
