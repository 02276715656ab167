"""When a core is busy: a profile in slices of a tenth of a second, the same for the same seed on every machine."""

import random
from collections.abc import Iterator
from typing import Final

from agent.burn.profile import BurnProfile

SLICE_S: Final = 0.1


def duties(profile: BurnProfile, core: int) -> Iterator[float]:
    """The busy share (0..1) of one core, slice by slice; endless for a profile that repeats.

    Each core has random numbers of its own, so that how many cores there are changes none of them.
    """
    chance = random.Random(f"{profile.seed} {core}")
    while True:
        for phase in profile.phases:
            for _ in range(max(1, round(phase.for_s / SLICE_S))):
                yield min(1.0, max(0.0, chance.gauss(phase.duty, phase.spread)))
        if not profile.repeat:
            return
