"""Register maps of profiles, against words worked out by hand."""

import math
import struct
from pathlib import Path

import pytest

from hil.emulated.electrical import Quantity, shown
from hil.emulated.load import ConstantLoad
from hil.emulated.modbusunit import Fault, Refusal
from hil.emulated.node import EmulatedNode
from hil.emulated.profileunit import ProfileUnit
from hil.emulated.registermap import RegisterMap, load_map
from hil.yamlfile import ConfigError

HEAD = "profile: p\nvendor: v\nmodel: m\nstatus: guess\nsource: s\n"


def load(tmp_path: Path, text: str) -> RegisterMap:
    path = tmp_path / "p.yaml"
    path.write_text(HEAD + text)
    return load_map(path)


def unit(tmp_path: Path, text: str, power_w: float = 15.0) -> ProfileUnit:
    node = EmulatedNode("n", ConstantLoad(power_w=power_w).demand())
    node.advance(1000.0)
    registers = load(tmp_path, text)
    return ProfileUnit("u", dict.fromkeys(range(1, registers.outlet_count + 1), node), registers)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("type: f32", [0x4170, 0x0000]),
        ("type: f32, word_order: little", [0x0000, 0x4170]),
        ("type: f32, byte_order: little", [0x7041, 0x0000]),
        ("type: f32, unit: kW", [0x3C75, 0xC28F]),
        ("type: u16", [15]),
        ("type: i16, scale: 0.1", [150]),
        ("type: i16, scale: -0.1", [0xFF6A]),
        ("type: u32, scale: 0.01, word_order: little", [1500, 0]),
        ("type: i32, scale: 0.1", [0, 150]),
        ("type: u64, unit: mW", [0, 0, 0, 15_000]),
        ("type: f64", [0x402E, 0, 0, 0]),
        ("type: bits, bits: [4, 11]", [0x00F0]),
    ],
)
def test_fifteen_watts_in_every_type(tmp_path: Path, entry: str, words: list[int]):
    one = unit(tmp_path, f"registers:\n  power_w: {{address: 100, {entry}}}\n")
    assert list(one.words(3, 100, len(words))) == words


def test_what_a_register_cannot_show_it_shows_as_near_as_it_can(tmp_path: Path):
    one = unit(tmp_path, "registers:\n  power_w: {address: 0, type: u16, unit: mW}\n", power_w=100.0)
    assert list(one.words(3, 0, 1)) == [0xFFFF]


def test_nan_is_shown_by_the_device_s_own_word_for_it(tmp_path: Path):
    one = unit(
        tmp_path,
        "registers:\n  power_w: {address: 0, type: f32}\n  current_a: {address: 4, type: u16}\n"
        "  energy_j: {address: 2, type: u32, not_available: [4294967295]}\n",
    )
    one.fault = Fault.NAN
    first, second, *rest = one.words(3, 0, 5)
    assert math.isnan(struct.unpack(">f", struct.pack(">HH", first, second))[0])
    assert rest == [0xFFFF, 0xFFFF, 0]


def test_a_load_on_three_phases_is_shared_by_them(tmp_path: Path):
    text = "registers:\n" + "".join(
        f"  power_l{n}_w: {{address: {n}, type: i16}}\n  voltage_l{n}_v: {{address: {10 + n}, type: u16, scale: 0.1}}\n"
        for n in (1, 2, 3)
    )
    one = unit(tmp_path, text, power_w=300.0)
    assert list(one.words(3, 1, 3)) == [100, 100, 100]
    assert list(one.words(3, 11, 3)) == [2300] * 3


def test_a_single_phase_carries_all_of_it(tmp_path: Path):
    one = unit(tmp_path, "registers:\n  power_l1_w: {address: 1, type: i16}\n", power_w=300.0)
    assert list(one.words(3, 1, 1)) == [300]


def test_all_quantities_of_a_load_agree():
    for phases in (1, 3):
        values = shown(300.0, 1000.0, phases)
        whole = values[Quantity.VOLTAGE_V] * values[Quantity.CURRENT_A]
        each = [values[Quantity(f"voltage_l{n}_v")] * values[Quantity(f"current_l{n}_a")] for n in (1, 2, 3)]
        assert whole == pytest.approx(values[Quantity.APPARENT_VA])
        assert sum(each) == pytest.approx(values[Quantity.APPARENT_VA])
        assert whole * values[Quantity.POWER_FACTOR] == pytest.approx(300.0)
        assert sum(values[Quantity(f"power_l{n}_w")] for n in (1, 2, 3)) == pytest.approx(300.0)


LIMITED = """\
block: {max: 4, gap: 2}
registers:
  power_w: {address: 10, type: u16}
  current_a: {address: 13, type: u16}
  voltage_v: {address: 17, type: u16, function: 4}
  energy_j: {address: 20, type: u32}
"""


def test_unused_words_are_there_as_far_as_the_profile_says_they_may_be_skipped(tmp_path: Path):
    one = unit(tmp_path, LIMITED)
    assert list(one.words(3, 10, 4))[:3] == [15, 0, 0]
    for function, address, count in [(3, 9, 1), (3, 13, 2), (3, 17, 1), (4, 10, 1), (3, 14, 1)]:
        with pytest.raises(Refusal) as caught:
            one.words(function, address, count)
        assert caught.value.code == 2


def test_more_words_than_the_profile_allows_are_refused(tmp_path: Path):
    with pytest.raises(Refusal) as caught:
        unit(tmp_path, LIMITED).words(3, 10, 5)
    assert caught.value.code == 3


def test_spans_are_those_of_both_functions(tmp_path: Path):
    assert list(unit(tmp_path, LIMITED).spans) == [range(10, 14), range(17, 18), range(20, 22)]


def test_outlets_repeat_from_stride_to_stride(tmp_path: Path):
    text = "outlets: {count: 2, stride: 10}\nregisters:\n  power_w: {address: 5, type: i16, scale_register: 6}\n"
    one = unit(tmp_path, text)
    one.override(2, Quantity.POWER_W, 40.0)
    assert (list(one.words(3, 5, 2)), list(one.words(3, 15, 2))) == ([15, 0], [40, 0])


def test_it_says_what_it_is(tmp_path: Path):
    one = unit(
        tmp_path,
        "identify: [{address: 40, type: string, words: 4, expect: [ABC-1]}, {address: 50, expect: [1648, 1649]}]\n"
        "require: [{address: 60, expect: [7], because: b}]\nregisters:\n  power_w: {address: 0, type: u16}\n",
    )
    assert struct.pack(">4H", *one.words(3, 40, 4)) == b"ABC-1\0\0\0"
    assert [*one.words(3, 50, 1), *one.words(3, 60, 1)] == [1648, 7]


def test_a_profile_that_cannot_be_shown_says_why(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"registers\.power_w: banana: no quantity or no type"):
        load(tmp_path, "registers:\n  power_w: {address: 0, type: banana}\n")
    with pytest.raises(ConfigError, match=r"profile: not to be shown: .*registers"):
        load(tmp_path, "sunspec: []\n")
    with pytest.raises(ConfigError, match="unreadable"):
        load_map(tmp_path / "none.yaml")
