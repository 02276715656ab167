"""The virtual environment that a service runs from, and where Wattloop comes from to go into it."""

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from hil.install.steps import InstallFailed, Run, Step
from hil.places import data_path, source_tree

MARKER = "wattloop-install"
# ProtectHome= and PrivateTmp= hide these from the service.
HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 - names, not files of ours

_PROBE = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))"


def is_hidden(path: Path) -> bool:
    """Whether a hardened service could not see this path."""
    return any(path.resolve().is_relative_to(place) for place in HIDDEN)


def service_python(asked: Path | None) -> Path:
    """A Python from 3.11 on, with venv, that a service can see: the one asked for, ours, or the system's.

    Raises InstallFailed with what to do when there is none.
    """
    if asked is not None:
        if not _fits(asked):
            raise InstallFailed(f"{asked} is not a Python from 3.11 on with venv, in a place that a service can see")
        return asked
    ours = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    for candidate in (ours, Path("/usr/bin/python3"), Path("/usr/local/bin/python3")):
        if _fits(candidate):
            return candidate
    raise InstallFailed(
        "no Python from 3.11 on, with venv, outside of home directories (services cannot see those); "
        "install one (Debian, Ubuntu: apt install python3 python3-venv) or name one with --python"
    )


def _fits(python: Path) -> bool:
    if is_hidden(python):
        return False
    try:
        return subprocess.run([python, "-I", "-c", _PROBE], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class MakeEnvironment:
    """A virtual environment at ``prefix``; refuses a directory that holds anything else."""

    prefix: Path
    python: Path

    def tell(self) -> str:
        """The command as one would type it."""
        return f"run        {self.python} -m venv {self.prefix}"

    def do(self) -> str:
        """Make it, or leave one of ours that works. Raises InstallFailed."""
        marker = self.prefix / MARKER
        if self.prefix.exists() and any(self.prefix.iterdir()):
            if not marker.is_file():
                raise InstallFailed(f"{self.prefix} is not empty and not made by this program; choose another --prefix")
            if _fits(self.prefix / "bin" / "python"):
                return f"unchanged  {self.prefix}"
            shutil.rmtree(self.prefix)  # left behind by an interrupted run or an upgrade of the system's Python
        self.prefix.mkdir(parents=True, exist_ok=True)
        marker.write_text("Made by the install command of Wattloop, which removes it again with --uninstall.\n")
        Run([self.python, "-I", "-m", "venv", self.prefix]).do()
        return f"made       {self.prefix}"


@dataclass(frozen=True, slots=True)
class InstallTree:
    """Wattloop from a source tree, built from a copy: a build leaves files behind and packs what earlier ones left."""

    prefix: Path
    tree: Path

    def tell(self) -> str:
        """The command as one would type it."""
        return f"run        {self.prefix}/bin/python -m pip install --no-deps {shlex.quote(str(self.tree))}"

    def do(self) -> str:
        """Build and install. Raises InstallFailed."""
        with tempfile.TemporaryDirectory(prefix="wattloop-") as scratch:
            copy = Path(scratch, "wattloop")
            copy_sources(self.tree, copy)
            _pip(self.prefix, ["--no-index", "--no-build-isolation", "--force-reinstall", copy]).do()
        return f"installed  {self.tree} into {self.prefix}"


def copy_sources(tree: Path, copy: Path) -> None:
    """What a build of the tree reads, and nothing else that may lie there."""
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(tree / name, copy)
    for name in ("agent", "coordinator", "hil", "scenarios", "systemd", "requirements"):
        shutil.copytree(tree / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))


def environment_steps(prefix: Path, python: Path, wheel: Path | None) -> Iterable[Step]:
    """What makes ``prefix`` hold this version of Wattloop and its pinned dependencies."""
    yield MakeEnvironment(prefix, python)
    yield _pip(prefix, ["--require-hashes", "-r", data_path("requirements") / "base.lock"])
    tree = source_tree()
    if wheel is not None:
        yield _pip(prefix, ["--no-index", "--force-reinstall", wheel])
    elif tree is not None:
        yield InstallTree(prefix, tree)
    else:
        yield _pip(prefix, [f"wattloop=={version('wattloop')}"])


def _pip(prefix: Path, what: list[str | Path]) -> Run:
    pip: list[str | Path] = [prefix / "bin" / "python", "-I", "-m", "pip"]
    return Run([*pip, "install", "--quiet", "--disable-pip-version-check", "--no-deps", *what])
