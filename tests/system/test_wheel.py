"""The wheel, installed elsewhere: complete, and deaf to modules of the same names where it is run."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ("wattloop-agent", "wattloop-coordinator", "wattloop-hil")


def run(argv: Sequence[str | Path], cwd: Path) -> str:
    """A command's output; the test fails when the command does."""
    result = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, f"{argv}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from a copy: builds leave files behind and pack what earlier ones left."""
    work = tmp_path_factory.mktemp("wheel")
    copy = work / "tree"
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "tests")
    shutil.copytree(ROOT, copy, ignore=hidden)
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
    for name in ("agent", "coordinator", "hil"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the decoy {name} was imported')\n")
    return tmp_path


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run_among_decoys(environment: Path, decoys: Path, program: str) -> None:
    version = run([environment / "bin" / program, "--version"], cwd=decoys)
    assert version.split() == [program, "0.1.0"]
    assert "usage: " + program in run([environment / "bin" / program, "--help"], cwd=decoys)


def test_wheel_brings_its_files(environment: Path, decoys: Path) -> None:
    code = "from hil.places import data_path, source_tree; print(source_tree(), *map(data_path, {names!r}), sep='\\n')"
    names = ("scenarios", "systemd", "requirements")
    tree, *places = run([environment / "bin" / "python", "-I", "-c", code.format(names=names)], cwd=decoys).splitlines()
    assert tree == "None"
    for name, place in zip(names, map(Path, places), strict=True):
        assert place == environment / "share" / "wattloop" / name
        shipped = {path.name for path in place.iterdir() if path.is_file()}
        ours = {path.name for path in (ROOT / name).iterdir() if path.is_file() and not path.name.startswith(".")}
        assert shipped == (ours if name != "requirements" else {"base.lock"})


def test_wheel_holds_our_packages_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"agent", "coordinator", "hil", "wattloop-0.1.0.data", "wattloop-0.1.0.dist-info"}
    assert {f"{package}/py.typed" for package in ("agent", "coordinator", "hil")} <= set(names)
    assert "wattloop-0.1.0.dist-info/licenses/LICENSE" in names
