from agent.lastvalue import LastValues
from agent.sample import Sample
from hil.bus import MemoryBroker, MemoryBus
from hil.clock import ManualClock
from hil.devices import Quality
from hil.wire import Last, Topics, decode

TOPICS = Topics("lab").node("n")


def sample(power_w: float | None, meter: str = "m", quality: Quality = Quality.GOOD) -> Sample:
    return Sample(meter, 1, power_w, None, 0, quality)


async def test_it_shows_the_first_value_and_then_one_a_second() -> None:
    clock, broker = ManualClock(), MemoryBroker()
    bus = MemoryBus(broker, clock.monotonic)
    await bus.start()
    values = LastValues(TOPICS, bus, clock)
    for tick in range(41):
        values.show(sample(float(tick)))
        values.show(sample(float(tick), meter="n"))
        await clock.advance(0.05)
    assert bus.counters.published == 2 * 3


async def test_at_one_hertz_each_value_is_shown() -> None:
    clock, broker = ManualClock(), MemoryBroker()
    bus = MemoryBus(broker, clock.monotonic)
    await bus.start()
    values = LastValues(TOPICS, bus, clock)
    for jitter in (0.99, 1.01, 0.98, 1.02):
        values.show(sample(1.0))
        await clock.advance(jitter)
    assert bus.counters.published == 4


async def test_a_missing_value_is_shown_as_such() -> None:
    clock, broker = ManualClock(), MemoryBroker()
    bus = MemoryBus(broker, clock.monotonic)
    await bus.start()
    LastValues(TOPICS, bus, clock).show(sample(None, quality=Quality.MISSING))
    assert decode(broker.retained[TOPICS.last("m")], Last) == Last(t_us=1, power_w=None, quality=Quality.MISSING)


async def test_what_could_not_be_published_does_not_count() -> None:
    clock, broker = ManualClock(), MemoryBroker()
    bus = MemoryBus(broker, clock.monotonic)
    values = LastValues(TOPICS, bus, clock)
    values.show(sample(1.0))
    await bus.start()
    values.show(sample(2.0))
    assert decode(broker.retained[TOPICS.last("m")], Last).power_w == 2.0
