import msgspec
import pytest

from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.registers import Register, RegisterError
from agent.meters.modbus.table import Defaults, Rating, RegisterTable, resolve

BARE = {"address": 7, "type": "u16"}


def resolved(
    entries: dict[str, dict[str, object]], defaults: Defaults | None = None, offset: int = 0
) -> dict[str, Register]:
    table = msgspec.convert(entries, RegisterTable)
    return {register.quantity: register for register in resolve(table, defaults or Defaults(), offset)}


def test_defaults_come_from_the_table():
    (register,) = resolved({"power_w": BARE}, Defaults(4, "little", "little"), offset=20).values()
    assert (register.function, register.little, register.low_byte_first) == (4, True, True)
    assert (register.address, register.end, register.factor) == (27, 28, 1.0)


def test_and_yield_to_the_entry():
    own = {"function": 3, "word_order": "big", "byte_order": "big", "unit": "kW", "scale": 0.01, "range": [0, 5]}
    (register,) = resolved({"power_w": BARE | own}, Defaults(4, "little", "little")).values()
    assert (register.function, register.little, register.low_byte_first) == (3, False, False)
    assert (register.low, register.high, register.factor) == (0, 5, pytest.approx(10.0))


def test_a_scale_register_moves_along_with_an_outlet():
    (register,) = resolved({"power_w": BARE | {"scale_register": 9}}, Defaults(function=4), offset=100).values()
    assert register.scale is not None
    assert (register.scale.function, register.scale.address, register.scale.type) == (4, 109, "i16")


def test_a_table_without_a_total_adds_up_its_phases():
    phases = {f"power_l{n}_w": {"address": n, "type": "i16"} for n in (1, 2, 3)}
    registers = resolved(phases, Defaults(rating=Rating(power_w=900)))
    total = registers[Quantity.POWER_W]
    assert [part.address for part in total.parts] == [1, 2, 3]
    assert (total.low, total.high) == (-900, 900)


def test_a_rating_bounds_what_has_no_range_of_its_own():
    entries = {
        "power_w": {"address": 0, "type": "f32"},
        "energy_j": {"address": 2, "type": "f32"},
        "voltage_l1_v": {"address": 4, "type": "f32", "range": [100, 300]},
        "current_l1_a": {"address": 6, "type": "f32"},
        "apparent_va": {"address": 8, "type": "f32"},
        "frequency_hz": {"address": 10, "type": "f32"},
    }
    registers = resolved(entries, Defaults(rating=Rating(power_w=1e7, voltage_v=500, current_a=20_000)))
    spans = {quantity: (register.low, register.high) for quantity, register in registers.items()}
    assert spans[Quantity.POWER_W] == spans[Quantity.APPARENT_VA] == (-1e7, 1e7)
    assert spans[Quantity.VOLTAGE_L1_V] == (100, 300)
    assert spans[Quantity.CURRENT_L1_A] == (-20_000, 20_000)
    assert spans[Quantity.FREQUENCY_HZ] == (0, 1000)
    assert spans[Quantity.ENERGY_J] == (0, pytest.approx(3.16e16))  # a century of it


def test_a_power_without_range_and_rating_is_still_bounded():
    (register,) = resolved({"power_w": {"address": 0, "type": "f32"}}).values()
    assert register.decode([0xC4FA, 0x0000]) == -2000.0
    with pytest.raises(RegisterError, match="possible are"):
        register.decode([0x7F00, 0x0000])


def test_a_table_gives_the_registers_it_has():
    table = msgspec.convert({"power_w": BARE, "energy_j": BARE}, RegisterTable)
    assert list(table.given()) == [Quantity.POWER_W, Quantity.ENERGY_J]


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"energy_j": BARE}, "expected power_w, or power_l1_w and so on to add up to it"),
        ({"power_w": BARE | {"scale": 0}}, "expected a scale other than 0"),
        ({"power_w": BARE | {"range": [5, 5]}}, "expected a range from low to high"),
        ({"power_w": BARE | {"bits": [0, 7]}}, "expected bits with type bits"),
        ({"power_w": BARE | {"type": "bits"}}, "expected bits with type bits"),
        ({"power_w": BARE | {"type": "bits", "bits": [9, 8]}}, "expected bits from low to high"),
        ({"power_w": BARE | {"type": "bits", "bits": [0, 16]}}, "<= 15"),
        ({"power_w": BARE | {"fix": "__import__('os')"}}, "Invalid enum value"),
    ],
)
def test_tables_that_mean_nothing_are_refused(entries: dict[str, dict[str, object]], complaint: str):
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert(entries, RegisterTable)
