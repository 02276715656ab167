"""docs/reference/{profiles,meters}.md name every key, every quantity and every shipped profile."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.meters.base import MeterConfig
from agent.meters.modbus.config import ModbusMeterConfig
from agent.meters.modbus.encoding import NumberType
from agent.meters.modbus.endpoint import SerialConfig
from agent.meters.modbus.fixes import FIXES
from agent.meters.modbus.fixture import Fixture
from agent.meters.modbus.nameplate import NameplateConfig
from agent.meters.modbus.oddity import Check
from agent.meters.modbus.probe import ProbeConfig
from agent.meters.modbus.profile import FOLDER, BlockLimits, LineConfig, Outlets, Profile, load_profile, shipped
from agent.meters.modbus.quantities import TRAITS
from agent.meters.modbus.sunspec import ModelTable, SunSpecConfig
from agent.meters.modbus.table import Rating, RegisterConfig

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
PROFILES = (REFERENCE / "profiles.md").read_text(encoding="utf-8")
QUANTITIES = PROFILES.partition("| Quantity | Units | Of |")[2].partition("\n\n")[0].splitlines()
METERS = (REFERENCE / "meters.md").read_text(encoding="utf-8")

PROFILE_SECTIONS = [
    Profile,
    BlockLimits,
    LineConfig,
    Outlets,
    Rating,
    NameplateConfig,
    ProbeConfig,
    RegisterConfig,
    SunSpecConfig,
    ModelTable,
    Fixture,
]


def words(text: str) -> set[str]:
    code = " ".join(re.findall(r"`+([^`]+)`+", text))
    return set(re.findall(r"[a-z0-9_-]+", code))


def keys(section: Any) -> set[str]:
    return {info.encode_name for info in msgspec.structs.fields(section)}


@pytest.mark.parametrize("section", PROFILE_SECTIONS, ids=lambda section: section.__name__)
def test_every_key_of_a_profile_is_explained(section: Any):
    assert keys(section) <= words(PROFILES)


@pytest.mark.parametrize(
    "section", [MeterConfig, ModbusMeterConfig, SerialConfig], ids=lambda section: section.__name__
)
def test_every_key_of_a_meter_is_explained(section: Any):
    assert keys(section) <= words(METERS)


def test_types_fixes_and_checks_are_named():
    assert {*NumberType.__args__, *FIXES, *Check} <= words(PROFILES)


def test_every_quantity_is_there_with_its_units():
    for quantity, trait in TRAITS.items():
        row = quantity.replace("l2", "l1").replace("l3", "l1")
        lines = [line for line in QUANTITIES if f"`{row}`" in line]
        assert len(lines) == 1
        assert all(re.search(rf"(?<!\w){re.escape(unit)}(?!\w)", lines[0]) for unit in trait.units)


def test_the_table_of_shipped_profiles_is_complete_and_says_their_status():
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|.*\| (verified|transcribed|guess) \|$", PROFILES, re.MULTILINE)
    assert dict(rows) == {name: load_profile(FOLDER / f"{name}.yaml").status for name in shipped()}
