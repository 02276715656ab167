"""Load profiles: how busy each core is, phase by phase.

.. code-block:: yaml

    about: training, with a checkpoint each minute
    seed: 7               # the same seed gives the same load, slice by slice
    cores: all            # or how many
    repeat: true          # false: end after the last phase
    phases:
      - {for_s: 50, duty: 0.95, spread: 0.03}   # busy share of each core; its deviation from slice to slice
      - {for_s: 10, duty: 0.3}

Those that come with Wattloop are in ``agent/burn/profiles`` and go by their names.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from hil.wire import Name
from hil.yamlfile import Section, load

STOCK: Final = Path(__file__).with_name("profiles")

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Phase(Section, frozen=True, kw_only=True):
    """A stretch of time in which each core is busy ``duty`` (0..1) of it, ``spread`` more or less in a slice."""

    for_s: Annotated[float, msgspec.Meta(gt=0, le=1e7)]
    duty: Share
    spread: Share = 0.0


class BurnProfile(Section, frozen=True, kw_only=True):
    """A load, reproducible from its seed."""

    about: str = ""
    seed: int = 0
    cores: Literal["all"] | Annotated[int, msgspec.Meta(ge=1, le=4096)] = "all"
    repeat: bool = False
    phases: Annotated[tuple[Phase, ...], msgspec.Meta(min_length=1)]

    @property
    def length_s(self) -> float:
        """How long all phases take in s, once."""
        return sum(phase.for_s for phase in self.phases)


def stock_profiles() -> list[Name]:
    """The names of the profiles that come with Wattloop."""
    return sorted(path.stem for path in STOCK.glob("*.yaml"))


def load_profile(named: str) -> BurnProfile:
    """The profile of that name, else the one in that file. Raises ConfigError."""
    path = STOCK / f"{named}.yaml" if named in stock_profiles() else Path(named)
    return load(path, BurnProfile).value
