"""Emulated powercap trees in the file that describes an emulated world.

.. code-block:: yaml

    rapl:
      - name: rapl-1
        node: server-1
        root: sysfs/server-1      # stands for /sys; relative to this file
        vendor: intel             # amd: energy, and nothing that could be capped
        packages: 2
        dram_share: 0.15          # of the node's power; 0: no dram zones
        psys: true
        start_j: 262100           # so that the counters come round soon: at 262143 J (AMD: 65533 J)
"""

from typing import Annotated, Literal

import msgspec

from hil.wire import Name
from hil.yamlfile import Section

Few = Annotated[int, msgspec.Meta(ge=1, le=64)]
Watts = Annotated[float, msgspec.Meta(gt=0, le=1e6)]


class RaplConfig(Section, frozen=True, kw_only=True):
    """A powercap tree; packages and dram together draw what ``node`` draws, and psys shows the same once more.

    ``tdp_w`` is the long-term limit that each package shows; none: its share of what the node can draw at most.
    """

    name: Name
    node: Name
    root: Annotated[str, msgspec.Meta(min_length=1)]
    vendor: Literal["intel", "amd"] = "intel"
    packages: Few = 1
    dies: Few = 1
    dram_share: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    psys: bool = False
    mmio: bool = False
    tdp_w: Watts | None = None
    start_j: Annotated[float, msgspec.Meta(ge=0, lt=65_000_000)] = 0.0
    refresh_ms: Annotated[float, msgspec.Meta(ge=1, le=1000)] = 5.0

    def __post_init__(self) -> None:
        if self.vendor == "amd" and (self.dram_share or self.psys or self.mmio):
            raise ValueError("expected no dram_share, psys or mmio: processors of AMD show packages and cores alone")
