import calendar
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coordinator.controllers.usercode import UserCodeError, construct, load_class

GOOD = """
class Saving:
    def __init__(self, node, limit_w=7.5):
        if limit_w < 0:
            raise ValueError("a limit is not negative")
        self.node = node

    def step(self, seen):
        return []
"""


def write(folder: Path, name: str, text: str = GOOD) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def load(folder: Path, spec: str, args: Mapping[str, Any] | None = None) -> Any:
    return construct(load_class(spec, folder), {"node": "a"} if args is None else args)


def told(folder: Path, spec: str, args: Mapping[str, Any] | None = None) -> str:
    with pytest.raises(UserCodeError) as raised:
        load(folder, spec, args)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_beside_the_scenario(tmp_path: Path) -> None:
    write(tmp_path, "mine.py")
    assert load(tmp_path, "mine:Saving", {"node": "jetson-1"}).node == "jetson-1"


def test_a_file_in_a_folder_beside_the_scenario(tmp_path: Path) -> None:
    write(tmp_path, "mine/night.py")
    assert load(tmp_path, "mine.night:Saving").node == "a"


def test_a_file_that_is_called_like_an_installed_module(tmp_path: Path) -> None:
    write(tmp_path, "calendar.py")
    write(tmp_path, "agent.py")
    assert load(tmp_path, "calendar:Saving").node == "a"
    assert load(tmp_path, "agent:Saving").node == "a"
    assert sys.modules["calendar"] is calendar


def test_an_installed_module() -> None:
    rules = load_class("coordinator.controllers.rules:Rules", Path("/nowhere"))
    assert rules.__module__ == "coordinator.controllers.rules"


def test_two_scenarios_may_have_modules_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path, "one/mine.py")
    write(tmp_path, "two/mine.py", GOOD.replace("Saving", "Other"))
    load(tmp_path / "one", "mine:Saving")
    load(tmp_path / "two", "mine:Other")
    load(tmp_path / "one", "mine:Saving")


def test_dataclasses_and_neighbours_work(tmp_path: Path) -> None:
    write(tmp_path, "neighbour_of_mine.py", "LIMIT_W = 7.5\n")
    write(
        tmp_path,
        "mine.py",
        """
from __future__ import annotations
from dataclasses import dataclass
from neighbour_of_mine import LIMIT_W

@dataclass
class Saving:
    node: str
    limit_w: float = LIMIT_W

    def step(self, seen):
        return []
""",
    )
    path = list(sys.path)
    assert load(tmp_path, "mine:Saving").limit_w == 7.5
    assert sys.path == path
    del sys.modules["neighbour_of_mine"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("mine", "mine: expected module:Class"),
        ("mine:", "expected module:Class"),
        ("../mine:Saving", "expected module:Class"),
        ("os;x:Saving", "expected module:Class"),
        ("absent_module:Saving", "no file {folder}/absent_module.py and no installed module absent_module"),
        ("json.absent:Saving", "no file {folder}/json/absent.py and no installed module json.absent"),
        ("mine:Savings", "mine has no class Savings; did you mean Saving?"),
        ("mine:Quite", "mine has no class Quite; it has Saving"),
        ("mine:LIMIT_W", "mine has no class LIMIT_W"),
        ("stepless:Saving", "expected a class with a method step(self, seen)"),
        ("broken:Saving", "broken failed to load: invalid syntax ({folder}/broken.py:1)"),
        ("failing:Saving", "failing failed to load: ZeroDivisionError: division by zero ({folder}/failing.py:2)"),
        ("needy:Saving", "needy failed to load: ModuleNotFoundError: No module named 'absent_module'"),
    ],
)
def test_code_that_cannot_be_loaded_is_told_in_one_line(tmp_path: Path, spec: str, expected: str) -> None:
    write(tmp_path, "mine.py", GOOD + "\nLIMIT_W = 7.5\n")
    write(tmp_path, "stepless.py", "class Saving: pass\n")
    write(tmp_path, "broken.py", "class Saving(:\n")
    write(tmp_path, "failing.py", "x = 1\nx / 0\n")
    write(tmp_path, "needy.py", "import absent_module\n")
    assert expected.format(folder=tmp_path) in told(tmp_path, spec)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, "missing a required argument: 'node'; Saving takes (node, limit_w=7.5)"),
        ({"node": "a", "limit": 3}, "unexpected keyword argument 'limit'"),
        ({"node": "a", "limit_w": -1}, "Saving failed: ValueError: a limit is not negative"),
        ({"node": "a", "limit_w": "x"}, "Saving failed: TypeError"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, args: dict[str, Any], expected: str) -> None:
    write(tmp_path, "mine.py")
    assert expected in told(tmp_path, "mine:Saving", args)
