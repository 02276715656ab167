import math
import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.meters.modbus.quantities import TRAITS, Quantity
from agent.meters.modbus.registers import Register, RegisterError, scale_of


def register(kind: str, **rest) -> Register:
    return Register(quantity=Quantity.POWER_W, function=3, address=0, type=kind, **rest)


class Words:
    """An image with some words, all of one function."""

    def __init__(self, words: dict[int, int]) -> None:
        self._words = words

    def words(self, function: int, address: int, count: int) -> Sequence[int]:
        return [self._words[at] for at in range(address, address + count)]


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


@pytest.mark.parametrize(("kind", "words", "value"), DECODED)
def test_every_type_low_byte_first(kind: str, words: list[int], value: float):
    swapped = [(word & 0xFF) << 8 | word >> 8 for word in words]
    assert register(kind, low_byte_first=True).decode(swapped) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(("bits", "value"), [((0, 7), 0x34), ((8, 15), 0x12), ((4, 4), 1), ((0, 15), 0x1234)])
def test_bits_of_a_word(bits: tuple[int, int], value: float):
    assert register("bits", bits=bits).decode([0x1234]) == value


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


def test_not_available_is_told_in_the_word_order_of_the_value():
    strict = register("i32", little=True, not_available=frozenset({0x7FFFFFFF}))
    with pytest.raises(RegisterError, match="not available"):
        strict.decode([0xFFFF, 0x7FFF])


def f32(value: float) -> list[int]:
    return list(struct.unpack(">2H", struct.pack(">f", value)))


@pytest.mark.parametrize("value", [-0.5, -0.01, 0.0, 100.0, 100.5])
def test_an_offset_of_half_a_unit_passes_as_read(value: float):
    assert register("f32", low=0.0, high=100.0).decode(f32(value)) == pytest.approx(value)


@pytest.mark.parametrize("value", [-0.51, -15.0, 100.51, 3e38])
def test_a_value_out_of_range_is_no_reading(value: float):
    with pytest.raises(RegisterError, match="possible are 0 to 100"):
        register("f32", low=0.0, high=100.0).decode(f32(value))


def test_a_power_factor_has_less_slack_than_a_power():
    factor = replace(register("i16", factor=0.001, low=-1.0, high=1.0), quantity=Quantity.POWER_FACTOR)
    assert factor.decode([1010]) == pytest.approx(1.01)
    with pytest.raises(RegisterError, match=r"power_factor is 1\.5"):
        factor.decode([1500])


# Scale registers


def scaled(kind: str = "i16") -> Register:
    return replace(register(kind), scale=scale_of(Quantity.POWER_W, 3, 7))


@pytest.mark.parametrize(("exponent", "value"), [(0, 2302), (1, 23020), (-1, 230.2), (-2, 23.02), (0xFFFF, 230.2)])
def test_a_scale_register_holds_the_power_of_ten(exponent: int, value: float):
    assert scaled().value(Words({0: 2302, 7: exponent & 0xFFFF})) == pytest.approx(value)


def test_the_words_of_both_are_needed():
    assert [(needed.address, needed.count) for needed in scaled("u32").needs] == [(0, 2), (7, 1)]


def test_without_its_scale_a_value_is_none():
    with pytest.raises(RegisterError, match="not available"):
        scaled().value(Words({0: 2302, 7: 0x8000}))
    with pytest.raises(LookupError):
        scaled().value(Words({0: 2302}))


@pytest.mark.parametrize("exponent", [11, -11, 400])
def test_a_scale_that_no_device_has_is_garbage(exponent: int):
    with pytest.raises(RegisterError, match="possible are -10 to 10"):
        scaled().value(Words({0: 2302, 7: exponent & 0xFFFF}))


# Sums


def phases() -> tuple[Register, ...]:
    return tuple(replace(register("i16"), quantity=q, address=n) for n, q in enumerate(list(Quantity)[7:10]))


def test_a_sum_is_the_sum_of_its_parts_and_needs_their_words():
    total = register("i16", parts=phases(), low=-100.0, high=5000.0)
    assert total.value(Words({0: 100, 1: 200, 2: 0xFFCE})) == 250
    assert [needed.address for needed in total.needs] == [0, 1, 2]
    with pytest.raises(RegisterError, match="power_w is 6000, possible are"):
        total.value(Words({0: 2000, 1: 2000, 2: 2000}))
    with pytest.raises(LookupError):
        total.value(Words({0: 2000, 1: 2000}))


# Fixes


@pytest.mark.parametrize(("raw", "value"), [(50.0, 50.0), (100.0, 100.0), (499.7, 49.97)])
def test_ten_times_the_frequency(raw: float, value: float):
    fixed = replace(register("f32", fix="divide_by_ten_above_100", high=1e3), quantity=Quantity.FREQUENCY_HZ)
    assert fixed.decode(f32(raw)) == pytest.approx(value)


@pytest.mark.parametrize(
    ("raw", "value"), [(0.95, 0.95), (-0.95, -0.95), (1.05, 0.95), (-1.05, -0.95), (1.0, 1.0), (2.0, 0.0)]
)
def test_the_four_quadrant_power_factor(raw: float, value: float):
    fixed = replace(register("f32", fix="four_quadrant_pf", low=-1, high=1), quantity=Quantity.POWER_FACTOR)
    assert fixed.decode(f32(raw)) == pytest.approx(value)


# Units


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
