from collections.abc import Sequence

import pytest

from agent.energy import EnergyMeter
from agent.meters.overhead import Overhead, OverheadMeter
from agent.meters.pue import ConstantPue, CurvePue, Pue, RecordedPue
from hil.clock import ManualClock
from hil.devices import DeviceUnavailable, Quality, Reading


class Scripted:
    """A meter that gives what a test wrote down."""

    name = "m"

    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = list(readings)
        self.opened = self.closed = 0

    async def open(self) -> None:
        self.opened += 1

    async def read(self) -> Reading:
        if not self._readings:
            raise DeviceUnavailable("m", "no answer")
        return self._readings.pop(0)

    async def close(self) -> None:
        self.closed += 1


class Measured:
    """Readings with overhead, a second apart."""

    def __init__(self, *readings: Reading, offset_w: float = 0.0, pue: Pue = ConstantPue(1.0)) -> None:  # noqa: B008
        self.clock = ManualClock()
        self.inner = Scripted(readings)
        self.meter = OverheadMeter(self.inner, Overhead(offset_w, pue), self.clock)

    async def take(self, count: int) -> list[Reading]:
        readings = []
        for _ in range(count):
            readings.append(await self.meter.read())
            await self.clock.advance(1.0)
        return readings


def counted(power_w: float, *energies_j: float, epoch: int = 0) -> list[Reading]:
    return [Reading(power_w, energy_j, counter_epoch=epoch) for energy_j in energies_j]


def shown(readings: Sequence[Reading]) -> list[tuple[float | None, int]]:
    return [(reading.energy_j, reading.counter_epoch) for reading in readings]


async def test_offset_first_then_the_factor() -> None:
    (reading,) = await Measured(Reading(100.0), offset_w=20.0, pue=ConstantPue(1.5)).take(1)
    assert reading == Reading(180.0)


async def test_a_factor_alone_leaves_the_counter_its_continuity() -> None:
    readings = await Measured(*counted(100.0, 5000.0, 5100.0), pue=ConstantPue(1.5)).take(2)
    assert shown(readings) == [(7500.0, 0), (7650.0, 0)]


async def test_energy_agrees_with_power() -> None:
    curve = CurvePue(((0.0, 2.0), (200.0, 1.0)))
    measured = Measured(*counted(90.0, 5000.0, 5090.0, 5180.0), *counted(190.0, 5370.0), offset_w=10.0, pue=curve)
    readings = await measured.take(4)
    assert [reading.power_w for reading in readings] == [150.0, 150.0, 150.0, 200.0]
    assert shown(readings) == [(0.0, 0), (150.0, 0), (300.0, 0), (500.0, 0)]


async def test_a_coarse_counter_is_not_taken_for_spikes_of_load() -> None:
    curve = CurvePue(((0.0, 2.0), (200.0, 1.0)))
    readings = await Measured(*counted(100.0, *([0.0] * 10), 1000.0), pue=curve).take(11)
    assert readings[-1].energy_j == 1500.0


async def test_a_meter_without_a_counter_is_integrated_with_its_overhead() -> None:
    measured, books = Measured(*[Reading(100.0)] * 3, offset_w=50.0), EnergyMeter()
    states = [books.take(reading, float(now)) for now, reading in enumerate(await measured.take(3))]
    assert [state.energy_j for state in states if state] == [0.0, 150.0, 300.0]


@pytest.mark.parametrize("after", [counted(100.0, 7.0), counted(100.0, 9000.0, epoch=1)], ids=["fell", "told"])
async def test_a_counter_that_started_anew_begins_an_epoch(after: list[Reading]) -> None:
    readings = await Measured(*counted(100.0, 5000.0, 5100.0), *after, offset_w=10.0).take(3)
    assert shown(readings) == [(0.0, 0), (110.0, 0), (0.0, 1)]


async def test_what_is_missing_stays_missing() -> None:
    missing = Reading(None, quality=Quality.MISSING, note="calibrating")
    measured = Measured(missing, offset_w=10.0)
    assert await measured.take(1) == [missing]
    with pytest.raises(DeviceUnavailable, match="no answer"):
        await measured.meter.read()


async def test_an_assumed_factor_makes_an_estimate_and_improves_nothing() -> None:
    long_ago = RecordedPue((0.0, 10.0), (1.2, 1.5), dated=True)
    suspect = Reading(100.0, quality=Quality.SUSPECT, note="word order")
    readings = await Measured(Reading(100.0), suspect, pue=long_ago).take(2)
    assert [(reading.power_w, reading.quality) for reading in readings] == [
        (150.0, Quality.ESTIMATED),
        (150.0, Quality.SUSPECT),
    ]
    assert readings[0].note
    assert readings[1].note == "word order"


async def test_it_is_opened_and_closed_with_the_meter_behind() -> None:
    measured = Measured()
    await measured.meter.open()
    await measured.meter.close()
    assert (measured.meter.name, measured.inner.opened, measured.inner.closed) == ("m", 1, 1)
