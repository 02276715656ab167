import pytest

from agent.meters.modbus.oddity import Check
from agent.meters.modbus.plan import Plan
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.registers import Register

POWER = Register(Quantity.POWER_W, 4, 0x34, "f32")
ENERGY = Register(Quantity.ENERGY_J, 4, 0x48, "f32")
VOLTAGE = Register(Quantity.VOLTAGE_V, 4, 0x30, "f32")
CURRENT = Register(Quantity.CURRENT_A, 4, 0x2C, "f32")


def slow(register: Register) -> Register:
    return Register(register.quantity, register.function, register.address, register.type, slow=True)


def read(plan: Plan) -> tuple[list[Quantity], list[Quantity]]:
    rounds = plan.rounds()
    return tuple([r.quantity for block in blocks for r in block.registers] for blocks in (rounds.every, rounds.slow))


def test_power_and_energy_are_read_each_time():
    assert read(Plan((ENERGY, POWER))) == ([Quantity.POWER_W, Quantity.ENERGY_J], [])


def test_a_slow_register_is_read_rarely_but_the_power_never_less_than_always():
    assert read(Plan((slow(POWER), slow(ENERGY)))) == ([Quantity.POWER_W], [Quantity.ENERGY_J])


def test_what_lies_between_comes_along():
    every, rarely = read(Plan((POWER, VOLTAGE, CURRENT), max_gap=2))
    assert every == [Quantity.CURRENT_A, Quantity.VOLTAGE_V, Quantity.POWER_W]
    assert rarely == []


def test_what_takes_another_request_is_read_rarely():
    every, rarely = read(Plan((POWER, VOLTAGE, CURRENT)))
    assert every == [Quantity.POWER_W]
    assert rarely == [Quantity.CURRENT_A, Quantity.VOLTAGE_V]


def test_what_takes_too_many_words_is_read_rarely():
    far = Register(Quantity.VOLTAGE_V, 4, 0x00, "f32")
    every, rarely = read(Plan((POWER, far), max_gap=125))
    assert (every, rarely) == ([Quantity.POWER_W], [Quantity.VOLTAGE_V])


@pytest.mark.parametrize("checks", [frozenset(), frozenset({Check.COUNTER})])
def test_without_checks_nothing_is_read_for_them(checks: frozenset[Check]):
    assert read(Plan((POWER, VOLTAGE, ENERGY), max_gap=99, checks=checks))[0] == [Quantity.POWER_W, Quantity.ENERGY_J]


def test_scale_registers_come_with_what_they_scale():
    scale = Register(Quantity.POWER_W, 4, 0x37, "i16")
    scaled = Register(Quantity.POWER_W, 4, 0x34, "i16", scale=scale)
    (block,) = Plan((scaled,), max_gap=5).rounds().every
    assert (block.address, block.count) == (0x34, 4)
