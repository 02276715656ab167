"""scripts/setup in a tree of its own: in a path with spaces, twice at once, and the second time without doing anything.

The tree has an empty lock and a build backend of its own in place of Wattloop, so that no network is needed.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "stand-in"
version = "1"
"""

BACKEND = """
import pathlib, zipfile

def build_editable(directory, config_settings=None, metadata_directory=None):
    with pathlib.Path("builds").open("a") as builds:
        builds.write("x")
    name = "stand_in-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory, name), "w") as wheel:
        info = "stand_in-1.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: stand-in\\nVersion: 1\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree in a path with spaces, set up by two at once."""
    root = tmp_path_factory.mktemp("a bare clone") / "watt loop"
    (root / "requirements").mkdir(parents=True)
    (root / "requirements" / "demo.lock").write_text("# nothing\n")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)
    shutil.copytree(SCRIPTS, root / "scripts")
    both = [start(root), start(root)]
    results = [finish(process) for process in both]
    assert [status for status, _, _ in results] == [0, 0], results
    assert builds(root) == 1, "one should have waited and found the work done"
    return root


def start(root: Path, **environment: str) -> subprocess.Popen[str]:
    """A setup on its way, without any network."""
    settings = os.environ | {"PYTHON": sys.executable, "PIP_NO_INDEX": "1"} | environment
    settings.pop("PIP_FIND_LINKS", None)
    argv = ["sh", root / "scripts" / "setup", "demo"]
    return subprocess.Popen(argv, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Status, stdout and stderr of a setup."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def setup(root: Path, **environment: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of one setup alone."""
    return finish(start(root, **environment))


def builds(root: Path) -> int:
    """How often the tree was installed."""
    return len((root / "builds").read_text())


def test_environment_holds_the_project(tree: Path) -> None:
    pip = [tree / ".venv" / "demo" / "bin" / "pip", "list"]
    assert "stand-in" in subprocess.run(pip, capture_output=True, text=True, check=True).stdout


def test_second_time_is_silent_and_quick(tree: Path) -> None:
    before = builds(tree)
    began = time.monotonic()
    assert setup(tree) == (0, "", "")
    assert time.monotonic() - began < 5.0
    assert builds(tree) == before


def test_changed_lock_updates_in_place(tree: Path) -> None:
    keepsake = tree / ".venv" / "demo" / "keepsake"
    keepsake.write_text("")
    (tree / "requirements" / "demo.lock").write_text("# still nothing\n")
    before = builds(tree)
    status, out, err = setup(tree)
    assert (status, out) == (0, "")
    assert "Setting up .venv/demo" in err
    assert builds(tree) == before + 1
    assert keepsake.exists()


def test_moved_tree_gets_a_new_environment(tree: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tree, moved, symlinks=True)
    assert setup(moved)[0] == 0
    assert str(moved) in (moved / ".venv" / "demo" / "bin" / "pip").read_text()


def test_failing_pip_is_a_plain_line_and_the_next_try_goes_on(tree: Path) -> None:
    lock = tree / "requirements" / "demo.lock"
    good = lock.read_text()
    lock.write_text("no-such-package==1 --hash=sha256:" + "0" * 64 + "\n")
    status, out, err = setup(tree)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("wattloop: pip could not download")
    assert "Traceback" not in err
    lock.write_text(good)
    assert setup(tree)[0] == 0


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
def test_unusable_python_is_a_plain_line(tree: Path, python: str) -> None:
    status, out, err = setup(tree, PYTHON=python)
    assert (status, out) == (1, "")
    assert err.startswith(f"wattloop: PYTHON={python} does not run")


def test_unknown_environment_is_refused(tree: Path) -> None:
    argv = ["sh", tree / "scripts" / "setup", "nonsense"]
    result = subprocess.run(argv, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert "usage" in result.stderr
