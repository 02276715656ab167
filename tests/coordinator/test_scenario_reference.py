"""docs/reference/scenario.md names every key that a scenario may have."""

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from coordinator import config
from coordinator.controllers import rules
from hil.brokerconfig import BrokerConfig

REFERENCE = Path(__file__).parents[2] / "docs/reference/scenario.md"
SECTIONS: list[type[msgspec.Struct]] = [
    config.ScenarioConfig,
    config.ForecastFile,
    *get_args(config.SignalConfig),
    config.MicrogridConfig,
    *get_args(config.ActorConfig),
    config.LosslessConfig,
    config.GridConfig,
    config.PolicyConfig,
    config.ControllerConfig,
    config.CommandsConfig,
    rules.Rule,
    rules.Condition,
    rules.Band,
    rules.Window,
    *get_args(rules.AnyDo),
    BrokerConfig,
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_and_kind_is_explained(section: Any) -> None:
    code = " ".join(re.findall(r"`+([^`]+)`+", REFERENCE.read_text(encoding="utf-8")))
    words = set(re.findall(r"[a-z_]+", code))
    names = [info.encode_name for info in msgspec.structs.fields(section)]
    tag = section.__struct_config__.tag
    assert {*names, *([tag] if tag else [])} <= words
