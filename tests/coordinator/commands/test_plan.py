"""The plan command's forms and exit codes."""

import json
from pathlib import Path

import pytest

from coordinator.cli import main


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    path = tmp_path / "instance.json"
    assert main(["plan", "generate", "--sites", "2", "--slots", "12", "--jobs", "3", "--out", str(path)]) == 0
    return path


def test_a_plan_is_written_checked_and_explained(instance: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = instance.with_name("plan.json")
    assert main(["plan", str(instance), "--time-limit", "10", "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    plan = json.loads(out.read_text())
    assert plan["schema"] == "wattloop/plan/1"
    assert plan["gap"] == summary["gap"] <= 0.001
    assert main(["plan", "check", str(instance), str(out)]) == 0
    assert "keeps every constraint" in capsys.readouterr().out
    assert main(["plan", "explain", str(instance), str(out), "job-000", "--time-limit", "10"]) == 0
    assert "job-000" in capsys.readouterr().out
    assert main(["plan", "explain", str(instance), str(out), "nobody"]) == 1


def test_check_ends_with_1_where_a_limit_is_broken(instance: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = instance.with_name("plan.json")
    main(["plan", str(instance), "--out", str(out)])
    tight = json.loads(instance.read_text()) | {"carbon_budget_kg": 0.001}
    instance.write_text(json.dumps(tight))
    assert main(["plan", "check", str(instance), str(out)]) == 1
    assert "broken: carbon budget" in capsys.readouterr().out
    assert main(["plan", str(instance), "--time-limit", "3"]) == 1
    assert "broken: carbon budget" in capsys.readouterr().out


def test_a_malformed_instance_ends_with_2(instance: Path, capsys: pytest.CaptureFixture[str]) -> None:
    instance.write_text("{}")
    assert main(["plan", str(instance)]) == 2
    assert "sites: missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["check", "one"], ["check", "a", "b", "--gap", "0.1"], ["generate", "x"], ["a", "b"]]
)
def test_words_and_options_that_do_not_fit_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *words])
    assert ended.value.code == 2
