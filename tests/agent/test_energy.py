import pytest

from agent.energy import EnergyMeter
from agent.sample import EnergyState
from hil.devices import Quality, Reading


def test_power_is_integrated_by_the_trapezoidal_rule() -> None:
    meter = EnergyMeter()
    energies = [meter.take(Reading(power_w), now) for now, power_w in [(0.0, 10.0), (1.0, 20.0), (3.0, 20.0)]]
    assert [energy.energy_j for energy in energies if energy] == [0.0, 15.0, 55.0]
    assert meter.gaps == 0


def test_a_gap_adds_nothing_and_is_counted_once() -> None:
    meter = EnergyMeter()
    meter.take(Reading(10.0), 0.0)
    meter.take(Reading(10.0), 1.0)
    meter.miss()
    meter.miss()
    after = meter.take(Reading(10.0), 9.0)
    assert after == EnergyState(10.0, 0, device=False)
    assert meter.gaps == 1


def test_a_missing_reading_is_a_gap() -> None:
    meter = EnergyMeter()
    meter.take(Reading(10.0), 0.0)
    assert meter.take(Reading(None, quality=Quality.MISSING), 1.0) is None
    assert meter.gaps == 1


def test_the_device_counter_is_passed_on() -> None:
    meter = EnergyMeter()
    meter.take(Reading(10.0, 1000.0), 0.0)
    assert meter.take(Reading(10.0, 1012.5), 1.0) == EnergyState(1012.5, 0, device=True)


def test_a_device_counter_that_falls_begins_an_epoch() -> None:
    meter = EnergyMeter()
    meter.take(Reading(10.0, 1000.0), 0.0)
    assert meter.take(Reading(10.0, 3.0), 1.0) == EnergyState(3.0, 1, device=True)
    assert meter.epoch == 1


def test_a_counter_that_the_driver_calls_another_begins_an_epoch_though_it_shows_more() -> None:
    meter = EnergyMeter()
    meter.take(Reading(10.0, 1000.0, counter_epoch=4), 0.0)
    assert meter.take(Reading(10.0, 1010.0, counter_epoch=5), 1.0) == EnergyState(1010.0, 1, device=True)
    assert meter.take(Reading(10.0, 1020.0, counter_epoch=5), 2.0) == EnergyState(1020.0, 1, device=True)


def test_a_counter_that_the_driver_keeps_begins_an_epoch_with_every_life() -> None:
    meter = EnergyMeter(EnergyState(5.0, 2, device=True))
    assert meter.take(Reading(10.0, 10.0, counter_epoch=0), 0.0) == EnergyState(10.0, 3, device=True)


def test_a_counter_that_is_silent_once_is_not_replaced_by_an_integral() -> None:
    meter = EnergyMeter()
    meter.take(Reading(10.0, 1000.0), 0.0)
    assert meter.take(Reading(10.0), 1.0) is None
    assert meter.take(Reading(10.0, 1020.0), 2.0) == EnergyState(1020.0, 0, device=True)


def test_an_integral_goes_on_over_a_restart_without_bridging_it() -> None:
    meter = EnergyMeter(EnergyState(500.0, 2, device=False))
    meter.take(Reading(10.0), 100.0)
    assert meter.take(Reading(10.0), 101.0) == EnergyState(510.0, 2, device=False)


def test_a_device_that_was_reset_during_a_restart_begins_an_epoch() -> None:
    meter = EnergyMeter(EnergyState(500.0, 2, device=True))
    assert meter.take(Reading(10.0, 4.0), 0.0) == EnergyState(4.0, 3, device=True)


@pytest.mark.parametrize("device_before", [True, False])
def test_another_way_of_counting_begins_an_epoch(device_before: bool) -> None:
    meter = EnergyMeter(EnergyState(500.0, 2, device=device_before))
    energy = meter.take(Reading(10.0, None if device_before else 900.0), 0.0)
    assert energy == EnergyState(0.0 if device_before else 900.0, 3, device=not device_before)


def test_without_a_known_past_counting_begins_in_the_first_epoch_given() -> None:
    assert EnergyMeter(None, 77).take(Reading(1.0), 0.0) == EnergyState(0.0, 77, device=False)
