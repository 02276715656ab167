"""A planning instance's file: all faults at once, by id; what is well formed, loads."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator.planner.generate import Size, generate
from coordinator.planner.instancefile import load_instance, parse_instance
from hil.yamlfile import ConfigError

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def raw() -> Any:
    return json.loads((DATA / "plan-paper-size.json").read_text())


def faults(raw: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_instance(raw)
    return {fault.key: fault.expected for fault in caught.value.faults}


@pytest.mark.parametrize("name", ["plan-paper-size", "plan-medium"])
def test_reference_instances_load(name: str) -> None:
    assert load_instance(DATA / f"{name}.json").name == name


def test_every_fault_is_told_at_once_by_id(raw: Any) -> None:
    raw["sites"][1]["buy_price_per_kwh"][3] = float("nan")
    raw["sites"][2]["renewable_kw"].pop()
    raw["jobs"][0]["gpus"] = 1e6
    raw["jobs"][1]["deadline_slot"] = raw["jobs"][1]["release_slot"]
    raw["jobs"][2]["sites"].append("atlantis")
    raw["inference"][0]["demand"][5] = -1.0
    raw["inference"][1]["sites"] = {"el-dorado": 0.0}
    raw["carbon_budget"] = 3
    found = faults(raw)
    assert found["sites[site-1].buy_price_per_kwh[3]"] == "expected a finite number"
    assert found["sites[site-2].renewable_kw"] == "expected 24, one a slot"
    assert "larger than every site" in found["jobs[job-000].gpus"]
    assert "not after release_slot" in found["jobs[job-001].deadline_slot"]
    assert "unknown site" in found["jobs[job-002].sites"]
    assert ">= 0" in found["inference[class-00].demand[5]"]
    assert "unknown site" in found["inference[class-01].sites"]
    assert "did you mean carbon_budget_kg?" in found["carbon_budget"]
    assert len(found) == 8


def test_ids_are_unique(raw: Any) -> None:
    raw["jobs"][1]["id"] = "job-000"
    assert "given twice" in faults(raw)["jobs[job-000].id"]


def test_curves_of_batch_work_must_not_fall(raw: Any) -> None:
    curve = [1.0] * 23 + [0.5]
    raw["batch"] = [
        {
            "id": "b",
            "kw_per_gpu": 0.5,
            "max_gpus": 10,
            "value_per_gpu_h": 1,
            "arrived_gpu_h": curve,
            "due_gpu_h": [0.0] * 24,
            "sites": {"site-0": 0.0},
        }
    ]
    assert faults(raw) == {"batch[b].arrived_gpu_h": "expected a cumulative curve"}


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"a": 1, "a": 2}', "[" * 100_000])
def test_what_is_no_instance_is_one_plain_fault(tmp_path: Path, text: str) -> None:
    path = tmp_path / "instance.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_instance(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unreadable"):
        load_instance(tmp_path / "none.json")


@pytest.mark.parametrize("extras", [False, True])
def test_generated_instances_are_well_formed_and_repeat(extras: bool) -> None:
    size = Size(4, 48, 20, 5, extras=extras, negative_prices=extras)
    once, again = generate(size, 3), generate(size, 3)
    assert once == again != generate(size, 4)
    assert parse_instance(msgspec.to_builtins(once)) == once
    assert once.carbon_budget_kg is not None
