"""The wheel, installed elsewhere: complete, and deaf to modules of the same names where it is run."""

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from hil.install.environment import copy_sources

pytestmark = pytest.mark.system

ROOT = Path(__file__).parent.parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PYPROJECT["project"]["version"]
PACKAGES = ("agent", "coordinator", "hil")
PROGRAMS = ("wattloop-agent", "wattloop-coordinator", "wattloop-hil")


def run(argv: Sequence[str | Path], cwd: Path) -> str:
    """A command's output; the test fails when the command does."""
    result = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, f"{argv}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from the same copy as the install command builds it from."""
    work = tmp_path_factory.mktemp("wheel")
    copy = work / "tree"
    copy_sources(ROOT, copy)
    pip = [sys.executable, "-I", "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    run([*pip, "--wheel-dir", work, copy], cwd=work)
    return next(work.glob("wattloop-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; the dependencies are borrowed from ours, so that no network is needed."""
    home = tmp_path_factory.mktemp("installed")
    run([sys.executable, "-I", "-m", "venv", "--without-pip", home], cwd=home)
    python = home / "bin" / "python"
    site_packages = Path(
        run([python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], home).strip()
    )
    # A .pth file inside a borrowed folder is not read: our own editable Wattloop stays out.
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-I", "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    run([*pip, "--ignore-installed", wheel], cwd=home)
    return home


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    """A folder whose modules have our packages' names."""
    for name in PACKAGES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the decoy {name} was imported')\n")
    return tmp_path


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run_among_decoys(environment: Path, decoys: Path, program: str) -> None:
    version = run([environment / "bin" / program, "--version"], cwd=decoys)
    assert version.split() == [program, VERSION]
    assert "usage: " + program in run([environment / "bin" / program, "--help"], cwd=decoys)


def test_wheel_brings_its_files(environment: Path, decoys: Path) -> None:
    declared: dict[str, list[str]] = PYPROJECT["tool"]["setuptools"]["data-files"]
    names = [Path(target).name for target in declared]
    code = f"from hil.places import data_path, source_tree; print(source_tree(), *map(data_path, {names}), sep='\\n')"
    tree, *places = run([environment / "bin" / "python", "-I", "-c", code], cwd=decoys).splitlines()
    assert tree == "None"
    for (target, patterns), place in zip(declared.items(), map(Path, places), strict=True):
        assert place == environment / target
        ours = {path.name for pattern in patterns for path in ROOT.glob(pattern) if not path.name.startswith(".")}
        assert {path.name for path in place.iterdir() if path.is_file()} == ours != set()


def test_wheel_holds_our_packages_whole_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"wattloop-{VERSION}"
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, f"{info}.data", f"{info}.dist-info"}
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in modules} <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert f"{info}.dist-info/licenses/LICENSE" in names
