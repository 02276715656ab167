from pathlib import Path

import pytest

from agent.meters.modbus.profile import FOLDER, load_profile, shipped
from agent.meters.modbus.quantities import Quantity
from hil.yamlfile import ConfigError

HEAD = "profile: x\nvendor: v\nmodel: m\nstatus: guess\nsource: s\n"
TABLE = "registers: {power_w: {address: 0, type: u16}}\n"


def write(tmp_path: Path, rest: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(HEAD + rest)
    return path


def faults(tmp_path: Path, rest: str) -> list[str]:
    path = write(tmp_path, rest)
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    return [str(fault).removeprefix(f"{path}:") for fault in caught.value.faults]


def test_shipped_profiles_can_be_read_and_bear_their_file_s_name():
    assert "wattloop-pdu" in shipped()
    for name in shipped():
        assert load_profile(FOLDER / f"{name}.yaml").profile == name


def test_faults_name_file_line_key_value_and_what_was_expected(tmp_path: Path):
    found = faults(
        tmp_path,
        "function: 5\nword_order: middle\nregisters:\n"
        "  power_w: {address: 0, type: f33, scale: .nan}\n  volts_v: {address: 3, type: f32}\n",
    )
    assert found == [
        "6: function: 5: expected one of 3, 4",
        "7: word_order: middle: expected one of big, little",
        "9: registers.power_w.type: f33: expected one of u16, i16, u32, i32, u64, i64, f32, f64, bits",
        "9: registers.power_w.scale: nan: expected a finite number",
        "10: registers.volts_v: {'address': 3, 'type': 'f32'}: unknown key, did you mean voltage_v?",
    ]


def test_an_address_below_zero_is_a_fault(tmp_path: Path):
    (fault,) = faults(tmp_path, "registers: {power_w: {address: -1, type: u16}}\n")
    assert fault.startswith("6: registers.power_w.address: -1: expected")


def test_a_profile_without_power_is_none(tmp_path: Path):
    (fault,) = faults(tmp_path, "registers: {energy_j: {address: 0, type: u32}}\n")
    assert fault.startswith("6: registers: ")
    assert fault.endswith(": expected power_w, or power_l1_w and so on to add up to it")


def test_a_unit_must_fit_its_quantity(tmp_path: Path):
    assert faults(tmp_path, "registers: {power_w: {address: 0, type: u32, unit: kWh}}\n") == [
        "6: registers.power_w.unit: kWh: expected one of W, kW, mW"
    ]


@pytest.mark.parametrize("entry", ["scale: 0", "range: [5, 5]", "range: [5, 1]", "range: [1]"])
def test_figures_that_mean_nothing_are_refused(tmp_path: Path, entry: str):
    assert len(faults(tmp_path, f"registers: {{power_w: {{address: 0, type: u32, {entry}}}}}\n")) == 1


@pytest.mark.parametrize(
    ("function", "address", "meant"),
    [(3, 40001, 0), (3, 43060, 3059), (4, 30053, 52), (3, 400053, 52), (4, 365536, 65535)],
)
def test_a_manual_s_numbers_are_refused_with_the_address_they_probably_mean(
    tmp_path: Path, function: int, address: int, meant: int
):
    text = f"function: {function}\nregisters: {{power_w: {{address: {address}, type: u16}}}}\n"
    (fault,) = faults(tmp_path, text)
    assert f"expected the address on the wire: {meant}?" in fault


@pytest.mark.parametrize(("function", "address"), [(3, 32786), (4, 40960), (3, 40000), (3, 50000), (3, 65535)])
def test_addresses_of_the_other_kind_of_register_are_no_manual_numbers(tmp_path: Path, function: int, address: int):
    load_profile(write(tmp_path, f"function: {function}\nregisters: {{power_w: {{address: {address}, type: u16}}}}\n"))


def test_a_profile_can_vouch_for_its_addresses(tmp_path: Path):
    text = "addresses: wire\nregisters: {power_w: {address: 40960, type: u32}}\n"
    assert load_profile(write(tmp_path, text)).registers.power_w.address == 40960
    assert len(faults(tmp_path, text.replace("40960", "400960"))) == 1


@pytest.mark.parametrize(
    "rest",
    [
        "registers: {power_w: {address: 65535, type: u32}}\n",
        "registers: {power_w: {address: 70000, type: u16}}\n",
        "outlets: {count: 10, stride: 7000}\nregisters: {power_w: {address: 5000, type: u16}}\n",
    ],
)
def test_every_word_must_be_on_the_wire(tmp_path: Path, rest: str):
    (fault,) = faults(tmp_path, rest)
    assert "expected an address on the wire, 0 to 65535 with all of the value's words" in fault


def test_a_scale_register_s_address_is_checked_too(tmp_path: Path):
    (fault,) = faults(tmp_path, "registers: {power_w: {address: 5, type: i16, scale_register: 40006}}\n")
    assert fault.startswith("6: registers.power_w.scale_register: 40006: looks like a manual's number")


def test_so_are_those_of_questions(tmp_path: Path):
    text = "identify: [{address: 43020, expect: [7]}]\nrequire: [{address: 65535, type: u32, expect: [7]}]\n"
    first, second = faults(tmp_path, text + TABLE)
    assert first.startswith("6: identify[0].address: 43020: looks like a manual's number, expected the address on the")
    assert second.startswith("7: require[0].address: 65535: expected an address on the wire")


def test_registers_and_sunspec_exclude_each_other(tmp_path: Path):
    tables = "sunspec: {tables: [{models: [203], registers: {power_w: {address: 18, type: i16}}}]}\n"
    assert "expected either registers or sunspec" in faults(tmp_path, TABLE + tables)[0]
    assert "expected either registers or sunspec" in faults(tmp_path, "")[0]
    assert load_profile(write(tmp_path, tables)).sunspec is not None
    assert "expected no outlets" in faults(tmp_path, tables + "outlets: {count: 2, stride: 9}\n")[0]


def test_units_of_a_sunspec_table_are_checked(tmp_path: Path):
    tables = "sunspec: {tables: [{models: [203], registers: {power_w: {address: 18, type: i16, unit: V}}}]}\n"
    (fault,) = faults(tmp_path, tables)
    assert fault == "6: sunspec.tables[0].registers.power_w.unit: V: expected one of W, kW, mW"


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("{address: 1}", "expected values to expect, or to refuse"),
        ("{address: 1, type: string, expect: [A]}", "expected words with type string"),
        ("{address: 1, words: 3, expect: [1]}", "expected words with type string"),
        ("{address: 1, type: string, words: 3, expect: [1]}", "expected texts of a string"),
        ("{address: 1, expect: [A]}", "expected texts of a string"),
        ("{address: 1, type: bits, expect: [1]}", "expected bits with type bits"),
        ("{address: 1, type: f32, expect: [1]}", "expected one of u16"),
    ],
)
def test_questions_that_mean_nothing_are_refused(tmp_path: Path, entry: str, complaint: str):
    (fault,) = faults(tmp_path, f"identify: [{entry}]\n{TABLE}")
    assert complaint in fault


def test_what_goes_for_the_line_is_kept(tmp_path: Path):
    text = "silence_ms: 100\nturnaround_ms: 5\nline: {baudrate: 2400, parity: E}\nunchecked: [phases, product]\n"
    profile = load_profile(write(tmp_path, text + TABLE))
    assert (profile.silence_ms, profile.turnaround_ms) == (100, 5)
    assert profile.line is not None
    assert (profile.line.baudrate, profile.line.parity, profile.line.stopbits) == (2400, "E", 1)
    assert set(profile.unchecked) == {"phases", "product"}


@pytest.mark.parametrize("text", ["silence_ms: -1\n", "line: {baudrate: 50}\n", "unchecked: [everything]\n"])
def test_figures_of_the_line_that_cannot_be_are_refused(tmp_path: Path, text: str):
    assert len(faults(tmp_path, text + TABLE)) == 1


def test_a_fixture_s_words_and_readings_are_checked(tmp_path: Path):
    text = "fixtures: [{source: s, words: {0: [1, 65536]}, expect: {power_q: 1}}]\n"
    found = faults(tmp_path, text + TABLE)
    assert [fault.partition(": ")[2] for fault in found] == [
        "fixtures[0].words.0[1]: 65536: expected int <= 65535",
        "fixtures[0].expect.power_q: power_q: expected one of " + ", ".join(Quantity),
    ]
