"""A tethered command dies with its parent, and is itself in every other way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hil import tether
from hil.tether import tethered

PATIENCE_S = 20.0
SLEEPER = [sys.executable, "-c", "import sys, time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def parent_of(command: list[str], kill: bool) -> subprocess.Popen[str]:
    """A process that starts a tethered command, tells its process id and waits."""
    script = (
        "import subprocess, sys, time\n"
        "from hil.tether import tethered\n"
        f"child = subprocess.Popen(tethered({command!r}, kill={kill}), stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def gone(pid: int) -> bool:
    """Whether the process ends soon; as an orphan it may stay a zombie where nobody reaps."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(("command", "kill"), [(SLEEPER, False), (SLEEPER, True), (STUBBORN, True)])
def test_it_dies_when_its_parent_is_killed(command: list[str], kill: bool) -> None:
    with parent_of(command, kill) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    assert gone(pid)


def test_a_stopped_command_dies_too() -> None:
    with parent_of(SLEEPER, kill=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        parent.kill()
    assert gone(pid)


def test_it_keeps_arguments_directory_environment_output_and_exit_code(tmp_path: Path) -> None:
    script = "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['OWN']); sys.exit(7)"
    directory = tmp_path / "with space"
    directory.mkdir()
    result = subprocess.run(
        tethered([sys.executable, "-c", script, "a b", "", "--kill"]),
        cwd=directory,
        env={**os.environ, "OWN": "value"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (result.returncode, result.stderr) == (7, "")
    assert result.stdout.strip() == f"['a b', '', '--kill'] {directory} value"


def test_its_process_id_is_the_command_s() -> None:
    with subprocess.Popen(tethered(SLEEPER), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert psutil.Process(child.pid).cmdline() == SLEEPER
        child.terminate()


def test_modules_in_the_working_directory_do_not_get_between(tmp_path: Path) -> None:
    for name in ("hil", "ctypes", "signal", "pathlib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a decoy was imported')")
    result = subprocess.run(tethered(["/bin/echo", "through"]), cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "through\n")


def test_a_command_that_cannot_be_run_is_told_in_one_line(tmp_path: Path) -> None:
    script = tmp_path / "not executable"
    script.write_text("")
    for command, code, why in (
        ("/no/such/command", tether.EXIT_NOT_FOUND, "No such file or directory"),
        (str(script), tether.EXIT_NOT_EXECUTABLE, "Permission denied"),
    ):
        result = subprocess.run(tethered([command]), capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (code, f"{command}: {why}\n")


def test_an_orphan_does_not_start() -> None:
    command = [sys.executable, tether.__file__, "1", "/bin/echo", "started"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (tether.EXIT_ORPHANED, "")


@pytest.mark.parametrize("arguments", [[], ["--kill"], ["12"], ["--kill", "12"], ["twelve", "echo"], ["--help"]])
def test_usage(arguments: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", "hil.tether", *arguments], capture_output=True, text=True)
    assert result.returncode == tether.EXIT_USAGE
    assert result.stderr.startswith("usage: python -m hil.tether [--kill] PARENT_PID COMMAND")
