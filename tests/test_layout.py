"""Promises about the project itself: its layout, its pins, and what the agent's daemon loads."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("agent", "coordinator", "hil")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"base": [], "demo": ["demo"], "dev": ["demo", "dev"]}


def pins(lock: str) -> dict[str, str]:
    """Name to version of everything that a lock file pins."""
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, flags=re.MULTILINE))


def wanted(extras: list[str]) -> list[Requirement]:
    """What pyproject.toml asks for, with these extras and the build backend."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    return [requirement for line in [*lines, *build] if (requirement := Requirement(line)).name != "wattloop"]


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_answers_pyproject(lock: str) -> None:
    pinned = pins(lock)
    for requirement in wanted(LOCKS[lock]):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"requirements/{lock}.lock lacks {name}: run make lock"
        assert requirement.specifier.contains(pinned[name]), f"{lock}.lock has {name} {pinned[name]}: run make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_hashes_everything_and_names_no_index(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
    assert entries
    for entry in entries:
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text
    assert "index" not in text


def test_locks_agree() -> None:
    tested = pins("dev")
    for lock in ("base", "demo"):
        assert pins(lock).items() <= tested.items()


def test_version_is_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{PROJECT['version']}]" in changelog or f"Becomes {PROJECT['version']}" in changelog


def test_modules_are_named_for_what_they_hold() -> None:
    empty_words = re.compile(r"(^|_)(utils?|helpers?|managers?|common|misc|base_?classes)(_|$)")
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert modules
    assert [str(path.relative_to(ROOT)) for path in modules if empty_words.search(path.stem)] == []


def test_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def loaded_by(module: str) -> set[str]:
    """The modules that a fresh interpreter holds after importing one."""
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize("module", ["agent.agent", "hil.rig"])
def test_agent_and_hil_stay_light(module: str) -> None:
    heavy = {"numpy", "pandas", "scipy", "numba", "pydantic"}
    assert loaded_by(module) & heavy == set()


def test_daemon_loads_neither_terminal_nor_server() -> None:
    loaded = loaded_by("agent.agent")
    assert not any(name == "rich" or name.startswith(("rich.", "pymodbus.server")) for name in loaded)
