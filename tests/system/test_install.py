"""The install commands, into a directory tree; tests/system/test_units.py has the whole machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from hil.install.environment import service_python
from hil.install.steps import InstallFailed

pytestmark = pytest.mark.system

PROGRAMS = {
    "wattloop-agent": {
        "etc/systemd/system/wattloop-agent.service",
        "etc/sysusers.d/wattloop-agent.conf",
        "etc/tmpfiles.d/wattloop-agent.conf",
        "etc/udev/rules.d/70-wattloop-meters.rules",
        "etc/wattloop/agent.yaml",
    },
    "wattloop-coordinator": {
        "etc/systemd/system/wattloop-coordinator@.service",
        "etc/sysusers.d/wattloop-coordinator.conf",
        "etc/wattloop/coordinator/lab.yaml",
    },
}
CONFIG = {"wattloop-agent": "etc/wattloop/agent.yaml", "wattloop-coordinator": "etc/wattloop/coordinator/lab.yaml"}


def install(program: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """What ``PROGRAM install`` did."""
    argv = [Path(sys.executable).parent / program, "install", *options]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def files(root: Path) -> dict[str, str]:
    """Every file below a directory, with its text."""
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("program", PROGRAMS)
def test_install_puts_its_files_and_nothing_else(program: str, tmp_path: Path) -> None:
    result = install(program, "--root", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert files(tmp_path).keys() == PROGRAMS[program]
    assert (tmp_path / "etc/wattloop/credentials").stat().st_mode & 0o777 == 0o700
    for path in tmp_path.rglob("*"):
        assert path.name == "credentials" or path.stat().st_mode & 0o444 == 0o444, path


@pytest.mark.parametrize("program", PROGRAMS)
def test_second_install_changes_nothing_and_keeps_the_configuration(program: str, tmp_path: Path) -> None:
    install(program, "--root", tmp_path)
    (tmp_path / CONFIG[program]).write_text("# mine\n")
    before = files(tmp_path)
    result = install(program, "--root", tmp_path)
    assert result.returncode == 0
    assert files(tmp_path) == before
    assert "written" not in result.stdout
    assert f"kept       {tmp_path / CONFIG[program]}" in result.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_uninstall_leaves_the_configuration(program: str, tmp_path: Path) -> None:
    install(program, "--root", tmp_path)
    result = install(program, "--root", tmp_path, "--uninstall")
    assert result.returncode == 0
    assert files(tmp_path).keys() == {CONFIG[program]}
    assert install(program, "--root", tmp_path, "--uninstall").returncode == 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_dry_run_tells_every_file_and_command_and_changes_nothing(program: str, tmp_path: Path) -> None:
    result = install(program, "--root", tmp_path, "--dry-run")
    assert result.returncode == 0
    assert list(tmp_path.iterdir()) == []
    for file in PROGRAMS[program]:
        assert str(tmp_path / file) in result.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_dry_run_for_the_whole_machine_tells_its_commands(program: str) -> None:
    try:
        service_python(None)
    except InstallFailed as error:
        pytest.skip(str(error))
    whole = install(program, "--dry-run").stdout
    for command in ("-m venv /opt/wattloop", "pip install", "base.lock", "systemd-sysusers", f"runuser -u {program}"):
        assert command in whole


@pytest.mark.parametrize("program", PROGRAMS)
def test_prefix_goes_into_the_unit(program: str, tmp_path: Path) -> None:
    install(program, "--root", tmp_path, "--prefix", "/srv/watt")
    unit = next(text for name, text in files(tmp_path).items() if name.endswith(".service"))
    assert f"ExecStart=/srv/watt/bin/{program} run " in unit
    assert "/opt/wattloop" not in unit


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--prefix", "opt/wattloop"], "expected an absolute path"),
        (["--prefix", "/opt/a b"], "expected an absolute path"),
        (["--prefix", "/home/ann/wattloop"], "cannot see into home"),
        (["--wheel", "/no/such.whl"], "no such file"),
        (["--python", "/no/such/python"], "is not a Python"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(options: list[str], complaint: str) -> None:
    result = install("wattloop-agent", "--dry-run", *options)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert complaint in result.stderr


def test_unwritable_root_is_a_plain_line(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file where a directory should be")
    result = install("wattloop-agent", "--root", tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("wattloop-agent install: ")
    assert "Traceback" not in result.stderr
