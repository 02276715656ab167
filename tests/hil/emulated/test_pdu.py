import math
import struct

import pytest

from hil.emulated.electrical import Quantity
from hil.emulated.load import ConstantLoad
from hil.emulated.modbusunit import Fault
from hil.emulated.node import EmulatedNode
from hil.emulated.pdu import EmulatedPdu

OUTLET = struct.Struct(">ffffffQ8x")


def make() -> tuple[EmulatedPdu, EmulatedNode]:
    node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand())
    return EmulatedPdu("pdu-1", {2: node}), node


def shown(pdu: EmulatedPdu, outlet: int) -> tuple[float, ...]:
    return OUTLET.unpack(struct.pack(">20H", *pdu.outlet_words(outlet)))


def test_an_outlet_shows_its_node():
    pdu, node = make()
    node.advance(100.0)
    power_w, voltage_v, current_a, frequency_hz, power_factor, apparent_va, energy_mj = shown(pdu, 2)
    assert power_w == 15.0
    assert voltage_v * current_a * power_factor == pytest.approx(15.0, rel=1e-6)
    assert voltage_v * current_a == pytest.approx(apparent_va, rel=1e-6)
    assert frequency_hz == 50.0
    assert energy_mj == 1_500_000


def test_an_outlet_without_a_node_draws_nothing():
    pdu, _ = make()
    assert pdu.outlet_count == 2
    assert shown(pdu, 1)[0] == 0.0


def test_the_unit_says_what_it_is():
    words = make()[0].identity_words()
    assert words[:3] == (0x574C, 1, 2)
    assert struct.pack(">8H", *words[4:12]).rstrip(b"\0") == b"wattloop-pdu"


def test_an_override_hides_the_node_until_lifted():
    pdu, _ = make()
    pdu.override(2, Quantity.POWER_W, -0.01)
    pdu.override(2, Quantity.ENERGY_J, 7.0)
    assert shown(pdu, 2)[0] == pytest.approx(-0.01)
    assert shown(pdu, 2)[6] == 7000
    assert shown(pdu, 1)[0] == 0.0
    pdu.override(2, Quantity.POWER_W, None)
    assert shown(pdu, 2)[0] == 15.0


def test_nan_spares_the_integer_alone():
    pdu, _ = make()
    pdu.fault = Fault.NAN
    *measured, energy_mj = shown(pdu, 2)
    assert all(math.isnan(value) for value in measured)
    assert energy_mj == 0


def test_garbage_is_the_same_each_time_the_emulation_runs():
    one, another = make()[0], make()[0]
    one.fault = another.fault = Fault.GARBAGE
    first = one.answer(4, 1020, 20)
    assert first == another.answer(4, 1020, 20)
    assert first != one.answer(4, 1020, 20)
