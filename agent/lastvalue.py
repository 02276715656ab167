"""The newest value of each meter, retained on the bus for people and other tools."""

import math
from typing import Final

from agent.sample import Sample
from hil.bus import Bus
from hil.clock import Clock
from hil.wire import Last, NodeTopics, encode

# A little less than a second, so that a meter at 1 Hz shows each of its samples.
SHORTEST_S: Final = 0.9


class LastValues:
    """Shows at most about one value a second of each meter; at QoS 0, for the next one follows anyway."""

    def __init__(self, topics: NodeTopics, bus: Bus, clock: Clock) -> None:
        self._topics = topics
        self._bus = bus
        self._clock = clock
        self._shown: dict[str, float] = {}

    def show(self, sample: Sample) -> None:
        """Publish the sample, unless one of the same meter was published just now."""
        now = self._clock.monotonic()
        if now - self._shown.get(sample.meter, -math.inf) < SHORTEST_S:
            return
        last = Last(t_us=sample.t_us, power_w=sample.power_w, quality=sample.quality)
        if self._bus.publish(self._topics.last(sample.meter), encode(last), qos=0, retain=True):
            self._shown[sample.meter] = now
