from pathlib import Path

import pytest

from agent.meters.modbus import ModbusMeterConfig, plan_of
from agent.meters.modbus.examine import Examination, SunSpecExamination
from agent.meters.modbus.oddity import Check
from agent.meters.modbus.plan import TURNAROUND_S, Plan
from agent.meters.modbus.quantities import Quantity
from hil.yamlfile import ConfigError, Document, load

PROFILE = """\
profile: mine
vendor: v
model: m
status: guess
source: s
block: {max: 50, gap: 4}
silence_ms: 100
turnaround_ms: 35
unchecked: [phases]
registers:
  power_w: {address: 0x34, type: f32}
  energy_j: {address: 0x3A, type: f32, unit: kWh}
  voltage_v: {address: 0, type: f32}
"""


def read(tmp_path: Path, text: str) -> tuple[Plan | None, list[str]]:
    path = tmp_path / "agent.yaml"
    path.write_text("name: m\nkind: modbus\n" + text)
    document: Document[ModbusMeterConfig] = load(path, ModbusMeterConfig)
    plan = plan_of(document.value, document, ())
    return plan, [str(fault).removeprefix(f"{tmp_path}/") for fault in document.faults]


def plan(tmp_path: Path, text: str) -> Plan:
    found, faults = read(tmp_path, "host: h\n" + text)
    assert faults == []
    assert found is not None
    return found


def places(found: Plan) -> dict[Quantity, tuple[int, int]]:
    return {register.quantity: (register.function, register.address) for register in found.registers}


def test_a_shipped_profile_has_its_registers_at_the_outlet(tmp_path: Path):
    found = places(plan(tmp_path, "profile: wattloop-pdu\noutlet: 3\n"))
    assert found[Quantity.POWER_W] == (4, 1040)
    assert found[Quantity.ENERGY_J] == (4, 1052)


def test_a_profile_of_one_s_own_stands_beside_the_configuration(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(PROFILE)
    found = plan(tmp_path, "profile: mine.yaml\n")
    assert places(found)[Quantity.POWER_W] == (3, 0x34)
    assert (found.max_words, found.max_gap) == (50, 4)
    assert (found.silence_s, found.turnaround_s) == (pytest.approx(0.1), pytest.approx(0.035))
    assert found.checks == frozenset(Check) - {Check.PHASES}
    assert found.commission is None


def test_checks_can_be_switched_off_altogether(tmp_path: Path):
    assert plan(tmp_path, "profile: eastron-sdm630\nchecks: false\n").checks == frozenset()


def test_registers_may_stand_in_the_configuration(tmp_path: Path):
    found = plan(
        tmp_path, "registers: {power_w: {address: 5, type: i16, function: 4}, energy_j: {address: 9, type: u32}}\n"
    )
    assert places(found) == {Quantity.POWER_W: (4, 5), Quantity.ENERGY_J: (3, 9)}
    assert (found.silence_s, found.turnaround_s, found.commission) == (0.0, TURNAROUND_S, None)


def test_a_profile_with_questions_has_the_device_examined(tmp_path: Path):
    examination = plan(tmp_path, "profile: carlo-gavazzi-em24-e1\n").commission
    assert isinstance(examination, Examination)
    assert (len(examination.identity), len(examination.requirements)) == (1, 1)


def test_who_insists_is_spared_the_identity_but_not_the_requirements(tmp_path: Path):
    examination = plan(tmp_path, "profile: carlo-gavazzi-em24-e1\nidentify: false\n").commission
    assert isinstance(examination, Examination)
    assert (examination.nameplate, examination.identity, len(examination.requirements)) == (None, (), 1)
    assert plan(tmp_path, "profile: raritan-px-inlet\nidentify: false\n").commission is None


def test_which_model_of_a_sunspec_device_is_its_outlet(tmp_path: Path):
    found = plan(tmp_path, "profile: sunspec-meter\noutlet: 2\n")
    assert isinstance(found.commission, SunSpecExamination)
    assert found.commission.nth == 2
    assert Quantity.POWER_W in places(found)  # not where it will be, but as much of it


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("profile: wattloop-pud\n", "agent.yaml:4: profile: wattloop-pud: expected one of abb-b21, "),
        ("profile: gone.yaml\n", "gone.yaml: file: unreadable: No such file or directory"),
        ("profile: wattloop-pdu\n", "agent.yaml:1: outlet: missing: expected 1 to 48"),
        ("profile: wattloop-pdu\noutlet: 49\n", "agent.yaml:5: outlet: 49: expected 1 to 48"),
        ("profile: mine.yaml\noutlet: 1\n", "agent.yaml:5: outlet: 1: mine has no outlets"),
        ("registers: {power_w: {address: 5, type: i16}}\noutlet: 1\n", "agent.yaml:5: outlet: 1: expected no outlet"),
        (
            "registers: {power_w: {address: 40005, type: i16}}\n",
            "agent.yaml:4: registers.power_w.address: 40005: looks",
        ),
        (
            "registers: {power_w: {address: 5, type: i16, unit: V}}\n",
            "agent.yaml:4: registers.power_w.unit: V: expected",
        ),
    ],
)
def test_what_does_not_fit_is_a_fault_and_there_is_nothing_to_read(tmp_path: Path, text: str, fault: str):
    (tmp_path / "mine.yaml").write_text(PROFILE)
    found, faults = read(tmp_path, "host: h\n" + text)
    assert found is None
    assert len(faults) == 1
    assert faults[0].startswith(fault)


def test_faults_of_a_profile_that_two_meters_use_are_told_once(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(PROFILE.replace("f32", "f33"))
    path = tmp_path / "agent.yaml"
    path.write_text("name: m\nkind: modbus\nhost: h\nprofile: mine.yaml\n")
    document: Document[ModbusMeterConfig] = load(path, ModbusMeterConfig)
    for index in range(2):
        assert plan_of(document.value, document, ("meters", index)) is None
    assert len(document.faults) == 3


SERIAL = "serial: {port: /dev/ttyUSB0, baudrate: 9600}\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("profile: a.yaml\n", "expected either host or serial"),
        ("host: h\n" + SERIAL + "profile: a.yaml\n", "expected either host or serial"),
        (SERIAL + "port: 502\nprofile: a.yaml\n", "expected port and framing only with host"),
        ("host: h\n", "expected either profile or registers"),
        (
            "host: h\nprofile: a.yaml\nregisters: {power_w: {address: 5, type: i16}}\n",
            "expected either profile or registers",
        ),
        (SERIAL + "profile: a.yaml\nunit: 0\n", r"expected a unit from 1 to 247 \(248 for some meters\)"),
        ("host: h\nframing: rtu\nprofile: a.yaml\nunit: 255\n", "expected a unit from 1 to 247"),
        ("host: h\nprofile: a.yaml\nport: 0\n", "port: 0"),
        ("host: h\nprofile: a.yaml\nunit: 256\n", "unit: 256"),
        ("host: h\nprofile: a.yaml\noutlet: 0\n", "outlet: 0"),
        ("host: h\nprofile: a.yaml\ntimeout_s: 0\n", "timeout_s: 0"),
        ("host: h\nprofile: a.yaml\ninterval_s: -1\n", "interval_s: -1"),
        ("host: h\nprofile: a.yaml\nprofil: b\n", r"unknown key, did you mean profile\?"),
    ],
)
def test_bad_configurations_name_the_key(tmp_path: Path, text: str, fault: str):
    with pytest.raises(ConfigError, match=fault):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["host: h\nunit: 255\n", "host: h\nunit: 0\n", SERIAL + "unit: 248\n"])
def test_units_that_gateways_and_some_meters_use_are_allowed(tmp_path: Path, text: str):
    _, faults = read(tmp_path, text + "profile: pzem-004t\n")
    assert faults == []
