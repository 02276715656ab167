"""What every meter's configuration has in common."""

from typing import Annotated

import msgspec

from hil.wire import Name
from hil.yamlfile import Section

Interval = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class MeterConfig(Section, frozen=True, kw_only=True):
    """A meter's name, the node it measures (none: the agent's own) and its period in s (none: the agent's own)."""

    name: Name
    measures: Name | None = None
    interval_s: Interval | None = None
