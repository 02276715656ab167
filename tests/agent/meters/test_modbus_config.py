from pathlib import Path

import pytest

from agent.meters.modbus import ModbusMeterConfig, blocks_of
from agent.meters.modbus.blocks import Block
from agent.meters.modbus.quantities import Quantity
from hil.yamlfile import ConfigError, Document, load

PROFILE = """\
profile: mine
vendor: v
model: m
status: guess
source: s
block: {gap: 4}
registers:
  power_w: {address: 0x34, type: f32}
  energy_j: {address: 0x3A, type: f32, unit: kWh}
  voltage_v: {address: 0, type: f32}
"""


def read(tmp_path: Path, text: str) -> tuple[tuple[Block, ...], list[str]]:
    path = tmp_path / "agent.yaml"
    path.write_text("name: m\nkind: modbus\n" + text)
    document: Document[ModbusMeterConfig] = load(path, ModbusMeterConfig)
    blocks = blocks_of(document.value, document, ())
    return blocks, [str(fault).removeprefix(f"{tmp_path}/") for fault in document.faults]


def spans(blocks: tuple[Block, ...]) -> list[tuple[int, int, int]]:
    return [(block.function, block.address, block.count) for block in blocks]


def test_a_shipped_profile_reads_the_outlet_in_one_request(tmp_path: Path):
    blocks, faults = read(tmp_path, "profile: wattloop-pdu\noutlet: 3\n")
    assert faults == []
    assert spans(blocks) == [(4, 1040, 16)]
    assert [register.quantity for register in blocks[0].registers] == [Quantity.POWER_W, Quantity.ENERGY_J]


def test_a_profile_of_one_s_own_stands_beside_the_configuration(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(PROFILE)
    blocks, faults = read(tmp_path, "profile: mine.yaml\n")
    assert faults == []
    assert spans(blocks) == [(3, 0x34, 8)]


def test_registers_may_stand_in_the_configuration(tmp_path: Path):
    blocks, faults = read(
        tmp_path, "registers: {power_w: {address: 5, type: i16, function: 4}, energy_j: {address: 9, type: u32}}\n"
    )
    assert faults == []
    assert spans(blocks) == [(3, 9, 2), (4, 5, 1)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("profile: wattloop-pud\n", "agent.yaml:3: profile: wattloop-pud: expected one of wattloop-pdu"),
        ("profile: gone.yaml\n", "gone.yaml: file: unreadable: No such file or directory"),
        ("profile: wattloop-pdu\n", "agent.yaml:1: outlet: missing: expected 1 to 48"),
        ("profile: wattloop-pdu\noutlet: 49\n", "agent.yaml:4: outlet: 49: expected 1 to 48"),
        ("profile: mine.yaml\noutlet: 1\n", "agent.yaml:4: outlet: 1: mine has no outlets"),
        ("registers: {power_w: {address: 5, type: i16}}\noutlet: 1\n", "agent.yaml:4: outlet: 1: expected no outlet"),
        (
            "registers: {power_w: {address: 40005, type: i16}}\n",
            "agent.yaml:3: registers.power_w.address: 40005: looks",
        ),
        (
            "registers: {power_w: {address: 5, type: i16, unit: V}}\n",
            "agent.yaml:3: registers.power_w.unit: V: expected",
        ),
    ],
)
def test_what_does_not_fit_is_a_fault_and_there_is_nothing_to_read(tmp_path: Path, text: str, fault: str):
    (tmp_path / "mine.yaml").write_text(PROFILE)
    blocks, faults = read(tmp_path, text)
    assert blocks == ()
    assert len(faults) == 1
    assert faults[0].startswith(fault)


def test_faults_of_a_profile_that_two_meters_use_are_told_once(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(PROFILE.replace("f32", "f33"))
    path = tmp_path / "agent.yaml"
    path.write_text("name: m\nkind: modbus\nprofile: mine.yaml\n")
    document: Document[ModbusMeterConfig] = load(path, ModbusMeterConfig)
    for index in range(2):
        assert blocks_of(document.value, document, ("meters", index)) == ()
    assert len(document.faults) == 3


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("host: 10.0.0.1\n", "expected either profile or registers"),
        ("profile: a.yaml\nregisters: {power_w: {address: 5, type: i16}}\n", "expected either profile or registers"),
        ("profile: a.yaml\nport: 0\n", "port: 0"),
        ("profile: a.yaml\nunit: 256\n", "unit: 256"),
        ("profile: a.yaml\noutlet: 0\n", "outlet: 0"),
        ("profile: a.yaml\ntimeout_s: 0\n", "timeout_s: 0"),
        ("profile: a.yaml\ninterval_s: -1\n", "interval_s: -1"),
        ("profile: a.yaml\nprofil: b\n", "unknown key, did you mean profile?"),
    ],
)
def test_bad_configurations_name_the_key(tmp_path: Path, text: str, fault: str):
    with pytest.raises(ConfigError, match=fault.replace("?", r"\?")):
        read(tmp_path, text)
