from collections.abc import Iterable

import pytest

from agent.meters.modbus.oddity import Check
from agent.meters.modbus.physics import Physics
from agent.meters.modbus.quantities import Quantity
from hil.emulated.electrical import shown

Values = dict[Quantity, float]

AC = (Quantity.POWER_W, Quantity.VOLTAGE_V, Quantity.CURRENT_A, Quantity.FREQUENCY_HZ)
SINGLE = (Quantity.POWER_W, Quantity.VOLTAGE_V, Quantity.CURRENT_A, Quantity.POWER_FACTOR, Quantity.APPARENT_VA)
PRODUCT = (Quantity.POWER_W, Quantity.VOLTAGE_V, Quantity.CURRENT_A, Quantity.POWER_FACTOR)
PHASE_POWERS = (Quantity.POWER_L1_W, Quantity.POWER_L2_W, Quantity.POWER_L3_W)
PHASE_VOLTAGES = (Quantity.VOLTAGE_L1_V, Quantity.VOLTAGE_L2_V, Quantity.VOLTAGE_L3_V)
PHASE_CURRENTS = (Quantity.CURRENT_L1_A, Quantity.CURRENT_L2_A, Quantity.CURRENT_L3_A)
THREE = (Quantity.POWER_W, Quantity.POWER_FACTOR, *PHASE_POWERS, *PHASE_VOLTAGES, *PHASE_CURRENTS)


def load(drawn_w: float, quantities: Iterable[Quantity] = SINGLE, /, **changes: float) -> Values:
    """What a sound meter shows of a load; ``changes`` are what it shows instead."""
    phases = 3 if any("_l2_" in quantity for quantity in quantities) else 1
    values = {Quantity(str(name)): value for name, value in shown(drawn_w, 0.0, phases).items()}
    return {quantity: changes.get(quantity, values[quantity]) for quantity in quantities}


def verdicts(physics: Physics, readings: Iterable[Values], swapped: Values | None = None) -> list[str]:
    return [physics.judge(values, lambda: swapped or {}) for values in readings]


@pytest.mark.parametrize("power_w", [0.0, 0.5, 3.0, 15.0, 400.0, -300.0, 1e5])
@pytest.mark.parametrize(
    "quantities", [SINGLE, PRODUCT, THREE, (Quantity.POWER_W,)], ids=["single", "product", "3", "P"]
)
def test_what_fits_is_believed(power_w: float, quantities: tuple[Quantity, ...]):
    assert verdicts(Physics(), [load(power_w, quantities)] * 5) == [""] * 5


@pytest.mark.parametrize("wrong_w", [0.0, 15_000.0, 0.015, 230.0, -1e9])
@pytest.mark.parametrize("quantities", [SINGLE, PRODUCT], ids=["single", "product"])
def test_what_never_fitted_is_not_believed_from_the_first_reading_on(wrong_w: float, quantities: tuple[Quantity, ...]):
    assert all(verdicts(Physics(), [load(15.0, quantities, power_w=wrong_w)] * 3))


def test_a_single_odd_reading_of_a_meter_that_was_right_is_a_step_of_the_load():
    physics = Physics()
    odd = load(40.0, power_w=15.0)
    assert verdicts(physics, [load(15.0), odd, odd, load(40.0), odd, odd, load(40.0)]) == [""] * 7


def test_odd_readings_in_a_row_are_a_breach_and_sound_ones_end_it():
    physics = Physics()
    odd, sound = load(40.0, power_w=15.0), load(40.0)
    given = verdicts(physics, [sound, odd, odd, odd, odd, sound, sound, sound, odd])
    assert [bool(verdict) for verdict in given] == [False, False, False, True, True, True, True, False, False]


def test_a_grossly_wrong_reading_is_not_believed_even_once():
    physics = Physics()
    assert verdicts(physics, [load(15.0), load(15.0, power_w=15_000.0)])[1]
    assert verdicts(Physics(), [load(400.0), load(400.0, power_w=0.0)])[1]


def test_a_load_too_small_to_prove_anything_does_not_vouch_for_what_comes():
    physics = Physics()
    assert verdicts(physics, [load(0.0)] * 10) == [""] * 10
    assert verdicts(physics, [load(40.0, power_w=0.04)])[0]


@pytest.mark.parametrize(
    ("values", "swapped", "cause"),
    [
        (load(15.0, power_w=0.015), {}, "power is 0.015 W.* make 15 W: off by a factor of 1000: W or kW"),
        (load(15.0, power_w=15_000.0), {}, "off by a factor of 1000"),
        (load(15.0, power_w=2.3e-41), load(15.0, (Quantity.POWER_W,)), "wrong word order"),
        (load(15.0, power_w=77.0), {Quantity.POWER_W: 1e30}, "wrong register, type or scale"),
        (load(300.0, THREE, power_w=100.0), {}, "power is 100 W, its phases make 300 W: one phase read as the total"),
        (load(300.0, THREE, power_w=0.3), {}, "its phases make 300 W: off by a factor of 1000"),
        (load(15.0, voltage_v=2.4e-41, current_a=1e-40), load(15.0), r"voltage_v is 2.4e-41: wrong word order"),
        (load(15.0, voltage_v=0.0, current_a=0.0, power_w=0.0), {}, "voltage is 0 V: wrong register"),
        (load(15.0, voltage_v=-6.6e18), {}, "voltage is -6.6e\\+18 V"),
    ],
    ids=["kW", "W", "order", "register", "one phase", "phases' kW", "table's order", "no voltage", "absurd voltage"],
)
def test_the_likely_cause_is_named(values: Values, swapped: Values, cause: str):
    with pytest.raises(AssertionError, match=cause):
        raise AssertionError(verdicts(Physics(), [values], swapped)[0])


def test_one_phase_as_the_total_shows_by_voltage_and_current_alone():
    quantities = (Quantity.POWER_W, Quantity.POWER_FACTOR, *PHASE_VOLTAGES, *PHASE_CURRENTS)
    (verdict,) = verdicts(Physics(), [load(300.0, quantities, power_w=100.0)])
    assert "one phase read as the total" in verdict


def test_more_power_than_apparent_power_is_odd_and_less_is_not():
    quantities = (Quantity.POWER_W, Quantity.APPARENT_VA)
    assert verdicts(Physics(), [load(300.0, quantities, power_w=400.0)])[0]
    assert verdicts(Physics(), [load(300.0, quantities, power_w=60.0)]) == [""]
    assert verdicts(Physics(), [load(300.0, quantities, power_w=0.3)])[0]  # not even a transformer is that reactive


def test_a_phase_that_feeds_in_is_added_either_way():
    phases = {"power_l1_w": 500.0, "power_l2_w": 300.0, "power_l3_w": -200.0}
    quantities = (Quantity.POWER_W, *PHASE_POWERS)
    for total_w in (600.0, 1000.0):
        assert verdicts(Physics(), [load(600.0, quantities, power_w=total_w, **phases)]) == [""]
    assert verdicts(Physics(), [load(600.0, quantities, power_w=800.0, **phases)])[0]


def test_a_power_factor_that_means_nothing_is_not_used():
    assert verdicts(Physics(), [load(300.0, PRODUCT, power_factor=0.05)]) == [""]
    assert verdicts(Physics(), [load(3.0, PRODUCT, power_factor=0.0)]) == [""]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"power_factor": 0.0}, "power factor is 0:"),
        ({"power_factor": 98.0}, "power factor is 98:"),
        ({"frequency_hz": 500.0}, "frequency is 500 Hz:"),
        ({"voltage_v": 6.6}, "voltage is 6.6 V:"),
        ({"voltage_v": 1e6}, r"voltage is 1e\+06 V:"),
        ({"current_a": 1e-40}, "current_a is 1e-40:"),
    ],
    ids=str,
)
def test_what_no_meter_is_connected_to_makes_the_table_odd(changes: dict[str, float], what: str):
    quantities = (*PRODUCT, Quantity.FREQUENCY_HZ)
    with pytest.raises(AssertionError, match=what):
        raise AssertionError(verdicts(Physics(), [load(300.0, quantities, **changes)])[0])


def test_a_low_voltage_is_direct_current_s():
    direct = (Quantity.POWER_W, Quantity.VOLTAGE_V, Quantity.CURRENT_A)
    assert verdicts(Physics(), [load(15.0, direct, voltage_v=5.0, current_a=3.0)]) == [""]


def test_a_meter_that_was_right_may_see_the_voltage_sag_and_the_frequency_stray():
    physics = Physics()
    sag = load(40.0, AC, voltage_v=30.0, current_a=1.4, frequency_hz=38.0)
    assert verdicts(physics, [load(300.0, AC), sag, sag, sag, sag]) == [""] * 5


def test_words_swapped_in_all_registers_may_fit_each_other_and_are_not_believed():
    right = load(15.0, PRODUCT)
    swapped = right | {Quantity.POWER_W: 15.0 * 65536, Quantity.CURRENT_A: right[Quantity.CURRENT_A] * 65536}
    assert "or 15 W if words are swapped: wrong word order?" in verdicts(Physics(), [swapped], right)[0]
    assert verdicts(Physics(), [right], swapped) == [""]


def test_an_outage_is_believed_of_a_meter_that_was_right():
    physics = Physics()
    dead = load(0.0, voltage_v=0.0)
    assert verdicts(physics, [load(300.0), dead, dead, dead, dead]) == [""] * 5


def test_a_coarse_current_gives_slack():
    coarse = load(7.0, PRODUCT, current_a=0.0)
    assert verdicts(Physics(), [coarse])[0]
    assert verdicts(Physics(slack_a=0.1), [coarse]) == [""]


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (Check.PRODUCT, load(300.0, PRODUCT, power_w=200.0)),
        (Check.APPARENT, load(300.0, (Quantity.POWER_W, Quantity.APPARENT_VA), power_w=400.0)),
        (Check.PHASES, load(300.0, (Quantity.POWER_W, *PHASE_POWERS), power_w=200.0)),
        (Check.VOLTAGE, load(0.0, (Quantity.POWER_W, Quantity.VOLTAGE_V), voltage_v=1e-9)),
    ],
    ids=str,
)
def test_each_check_can_be_switched_off(check: Check, values: Values):
    assert verdicts(Physics(), [values])[0]
    assert verdicts(Physics(frozenset(Check) - {check}), [values]) == [""]


def test_rounds_without_the_other_registers_keep_the_verdict():
    physics = Physics()
    power_only = load(300.0, (Quantity.POWER_W,))
    assert verdicts(physics, [power_only]) == [""]
    wrong = load(300.0, PRODUCT, power_w=0.3)
    assert all(verdicts(physics, [wrong, power_only, power_only]))
