import math
import struct

import pytest

from agent.meters.modbus.quantities import TRAITS, Quantity
from agent.meters.modbus.registers import Register, RegisterConfig, RegisterError, RegisterTable, resolve


def register(kind: str, **rest) -> Register:
    return Register(quantity=Quantity.POWER_W, function=3, address=0, type=kind, **rest)


# 230.2 V as IEEE 754 single is 0x43663333: the example of Eastron's SDM manuals
DECODED = [
    ("f32", [0x4366, 0x3333], 230.2),
    ("f64", [0x406C, 0xC666, 0x6666, 0x6666], 230.2),
    ("u16", [0xFFFE], 65534),
    ("i16", [0xFFFE], -2),
    ("u32", [0x0001, 0x0002], 65538),
    ("i32", [0xFFFF, 0xFFFE], -2),
    ("u64", [0x0000, 0x0001, 0x0000, 0x0002], 4294967298),
    ("i64", [0xFFFF, 0xFFFF, 0xFFFF, 0xFFFE], -2),
]


@pytest.mark.parametrize(("kind", "words", "value"), DECODED)
def test_every_type_high_word_first(kind: str, words: list[int], value: float):
    assert register(kind).count == len(words)
    assert register(kind).decode(words) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(("kind", "words", "value"), DECODED)
def test_every_type_low_word_first(kind: str, words: list[int], value: float):
    assert register(kind, little=True).decode(words[::-1]) == pytest.approx(value, rel=1e-6)


def test_raw_numbers_become_the_canonical_unit():
    assert register("i32", factor=0.1).decode([0, 152]) == pytest.approx(15.2)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("f32", [0x7FC0, 0x0000]),
        ("f32", [0x7F80, 0x0000]),
        ("f32", [0xFF80, 0x0000]),
        ("f64", [0x7FF8, 0, 0, 0]),
    ],
)
def test_nan_and_infinity_are_no_numbers(kind: str, words: list[int]):
    with pytest.raises(RegisterError, match="power_w is not a number"):
        register(kind).decode(words)


def test_what_the_device_calls_not_available_is_no_number():
    strict = register("i16", not_available=frozenset({0x8000}))
    assert strict.decode([0x7FFF]) == 32767
    with pytest.raises(RegisterError, match=r"power_w is not available \(0x8000\)"):
        strict.decode([0x8000])


def f32(value: float) -> list[int]:
    return list(struct.unpack(">2H", struct.pack(">f", value)))


@pytest.mark.parametrize("value", [-0.5, -0.01, 0.0, 100.0, 100.5])
def test_an_offset_of_half_a_unit_passes_as_read(value: float):
    assert register("f32", low=0.0, high=100.0).decode(f32(value)) == pytest.approx(value)


@pytest.mark.parametrize("value", [-0.51, -15.0, 100.51, 3e38])
def test_a_value_out_of_range_is_no_reading(value: float):
    with pytest.raises(RegisterError, match="possible are 0 to 100"):
        register("f32", low=0.0, high=100.0).decode(f32(value))


def test_a_power_without_a_range_is_still_bounded():
    resolved = resolve(Quantity.POWER_W, RegisterConfig(address=0, type="f32"), 3, "big")
    assert resolved.decode(f32(-2000.0)) == -2000.0
    with pytest.raises(RegisterError, match="possible are"):
        resolved.decode(f32(3e38))


def test_defaults_come_from_the_table_and_yield_to_the_entry():
    bare = resolve(Quantity.POWER_W, RegisterConfig(address=7, type="u16"), 4, "little", offset=20)
    assert (bare.function, bare.little, bare.address, bare.end, bare.factor) == (4, True, 27, 28, 1.0)
    config = RegisterConfig(address=7, type="u16", function=3, word_order="big", unit="kW", scale=0.01, range=(0, 5))
    full = resolve(Quantity.POWER_W, config, 4, "little")
    assert (full.function, full.little, full.low, full.high) == (3, False, 0, 5)
    assert full.factor == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("quantity", "unit", "factor"),
    [
        (Quantity.POWER_W, "mW", 0.001),
        (Quantity.ENERGY_J, "Wh", 3600.0),
        (Quantity.ENERGY_J, "kWh", 3.6e6),
        (Quantity.ENERGY_J, "MWh", 3.6e9),
        (Quantity.POWER_FACTOR, "%", 0.01),
    ],
)
def test_units(quantity: Quantity, unit: str, factor: float):
    assert TRAITS[quantity].units[unit] == pytest.approx(factor)


def test_every_quantity_has_a_trait_whose_first_unit_is_the_canonical_one():
    for quantity in Quantity:
        trait = TRAITS[quantity]
        assert next(iter(trait.units.values())) == 1.0
        assert math.isfinite(trait.low)
        assert trait.low < trait.high


def test_a_table_gives_the_registers_it_has():
    table = RegisterTable(power_w=RegisterConfig(address=0, type="f32"), energy_j=RegisterConfig(address=2, type="u64"))
    assert list(table.given()) == [Quantity.POWER_W, Quantity.ENERGY_J]
