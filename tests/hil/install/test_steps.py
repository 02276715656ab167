"""Steps: what they tell, what they do, and that doing them again does no harm."""

import sys
from pathlib import Path

import pytest

from hil.install.steps import InstallFailed, MakeDirectory, RemoveFile, RemoveTree, Run, WriteFile


def test_directory_gets_its_mode_and_keeps_the_users(tmp_path: Path) -> None:
    step = MakeDirectory(tmp_path / "a" / "credentials", 0o700)
    assert step.do().startswith("made")
    assert step.path.stat().st_mode & 0o777 == 0o700
    step.path.chmod(0o750)
    assert step.do().startswith("unchanged")
    assert step.path.stat().st_mode & 0o777 == 0o750


def test_file_is_written_then_unchanged_then_replaced(tmp_path: Path) -> None:
    target = tmp_path / "etc" / "unit"
    assert WriteFile(target, "one").do().startswith("written")
    assert WriteFile(target, "one").do().startswith("unchanged")
    assert WriteFile(target, "two").do().startswith("written")
    assert target.read_text() == "two"
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["unit"]


def test_kept_file_stays_the_users(tmp_path: Path) -> None:
    target = tmp_path / "agent.yaml"
    step = WriteFile(target, "template", keep=True)
    assert step.tell().startswith("file ")
    assert step.do().startswith("written")
    target.write_text("mine")
    assert step.tell().startswith("keep")
    assert step.do().startswith("kept")
    assert target.read_text() == "mine"


def test_file_is_removed_once(tmp_path: Path) -> None:
    target = tmp_path / "unit"
    target.write_text("x")
    assert RemoveFile(target).do().startswith("removed")
    assert RemoveFile(target).do().startswith("not there")


def test_only_a_marked_tree_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "opt"
    tree.mkdir()
    (tree / "something").write_text("of the user")
    assert RemoveTree(tree, "ours").do().startswith("kept")
    (tree / "ours").write_text("")
    assert RemoveTree(tree, "ours").do().startswith("removed")
    assert RemoveTree(tree, "ours").do().startswith("not there")


def test_failing_command_says_its_last_words() -> None:
    step = Run([sys.executable, "-c", "import sys; sys.exit('no such luck')"])
    with pytest.raises(InstallFailed, match="status 1\nno such luck"):
        step.do()


def test_failing_command_may_be_allowed_to() -> None:
    assert Run([sys.executable, "-c", "raise SystemExit(1)"], may_fail=True).do().startswith("failed")
    assert Run(["no-such-program"], may_fail=True).do() == "not there  no-such-program"


def test_command_that_is_not_there_is_named() -> None:
    with pytest.raises(InstallFailed, match="no-such-program is not on this machine"):
        Run(["no-such-program", "x"]).do()


def test_command_is_told_as_one_would_type_it() -> None:
    assert Run(["rm", "a b"]).tell() == "run        rm 'a b'"
