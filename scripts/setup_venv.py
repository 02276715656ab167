"""Makes .venv/NAME what requirements/NAME.lock says, with Wattloop itself installed from this tree; once.

A stamp in the environment says what it was made from. While that still holds nothing is run and no network is needed.
Setups of the same tree take turns, so that two ``make`` at once do not meet in one environment. Standard library only,
and all output on stderr.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import time
import venv
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAST_LINES = 6
LINE_WIDTH = 200


class SetupFailed(Exception):
    """Carries what to tell the user."""


def main(arguments: list[str]) -> int:
    """Exit status 0 once the environment named by the only argument is ready."""
    if len(arguments) != 1 or not lock_file(arguments[0]).is_file():
        say("usage: scripts/setup demo|dev")
        return 2
    name = arguments[0]
    try:
        if not is_ready(name):
            with turn():
                if not is_ready(name):  # the one before us may have done it
                    make(name)
    except (SetupFailed, OSError) as error:
        say(f"wattloop: {error}")
        return 1
    except KeyboardInterrupt:
        say("\nwattloop: setup interrupted; the next make goes on with it")
        return 130
    return 0


def say(text: str) -> None:
    """Tell the user."""
    print(text, file=sys.stderr, flush=True)


def lock_file(name: str) -> Path:
    """The pinned packages of an environment."""
    return ROOT / "requirements" / f"{name}.lock"


def environment(name: str) -> Path:
    """Where an environment lives."""
    return ROOT / ".venv" / name


def python(name: str) -> Path:
    """An environment's interpreter."""
    return environment(name) / "bin" / "python"


def stamp(name: str) -> str:
    """What the environment would be made from now. The tree's path counts: scripts carry it in their first line."""
    digest = hashlib.sha256()
    for file in (lock_file(name), ROOT / "pyproject.toml", Path(__file__)):
        digest.update(file.read_bytes())
    digest.update(bytes(ROOT))
    return digest.hexdigest()


def is_ready(name: str) -> bool:
    """Whether the environment was made from what lies here now."""
    try:
        made_from = (environment(name) / "wattloop.stamp").read_text()
    except FileNotFoundError:
        return False
    fits = is_our_version(name) or not os.environ.get("PYTHON")  # any will do unless one was asked for
    return made_from == stamp(name) and python(name).exists() and fits


def is_our_version(name: str) -> bool:
    """Whether the environment is of the Python that runs this."""
    try:
        settings = (environment(name) / "pyvenv.cfg").read_text()
    except FileNotFoundError:
        return False
    return f"version = {sys.version_info.major}.{sys.version_info.minor}." in settings


@contextmanager
def turn() -> Iterator[None]:
    """Wait for other setups in this tree."""
    (ROOT / ".venv").mkdir(exist_ok=True)
    with (ROOT / ".venv" / "setup.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another setup is running in this folder; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make(name: str) -> None:
    """Create or update the environment, and stamp it."""
    started = time.monotonic()
    count = len(pins(lock_file(name)))
    say(f"Setting up .venv/{name}, once: {count} pinned packages and Wattloop itself")
    (environment(name) / "wattloop.stamp").unlink(missing_ok=True)
    if not is_usable(name):
        venv.create(environment(name), clear=True, symlinks=True, with_pip=True)
    pip(name, ["--require-hashes", "--no-deps", "-r", str(lock_file(name))], expected=count)
    pip(name, ["--no-index", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    (environment(name) / "wattloop.stamp").write_text(stamp(name))
    say(f"Ready after {time.monotonic() - started:.0f} s")


def pins(file: Path) -> list[str]:
    """The lock's entries, but for those of other systems."""
    lines = file.read_text().splitlines()
    return [line for line in lines if line[:1].isalnum() and "sys_platform == 'win32'" not in line]


def is_usable(name: str) -> bool:
    """Whether there is an environment here that pip can be run in, of our own version and made for this path."""
    scripts = [file.read_bytes()[:4096] for file in environment(name).glob("bin/pip")]
    if not is_our_version(name) or not any(bytes(environment(name)) in script for script in scripts):
        return False
    probe = subprocess.run([python(name), "-I", "-m", "pip", "--version"], capture_output=True, check=False)
    return probe.returncode == 0


def pip(name: str, arguments: list[str], expected: int = 0) -> None:
    """Run ``pip install``, showing how far it is; on failure its last words. Raises SetupFailed."""
    command: list[str | Path] = [
        python(name),
        "-I",
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        *arguments,
    ]
    # The user's mirrors, proxies and certificates apply; what would change versions or the target does not.
    settings = os.environ | {"PIP_CONSTRAINT": os.devnull, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    last: deque[str] = deque(maxlen=LAST_LINES)
    collected = 0
    with subprocess.Popen(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        for line in process.stdout:
            last.append(line.rstrip()[:LINE_WIDTH])
            if expected and line.startswith(("Collecting ", "Requirement already satisfied: ")):
                collected += 1
                progress(f"  {collected}/{expected} {line.partition('==')[0].split()[-1]}")
            elif line.startswith("Installing collected packages"):
                progress("  unpacking")
    progress("")
    if process.returncode:
        say("\n".join(last))
        what = "download and install the pinned packages" if expected else "install Wattloop from this folder"
        hint = "; this first setup needs the network" if expected else ""
        raise SetupFailed(f"pip could not {what} (its last words are above){hint}")


def progress(text: str) -> None:
    """Rewrite the terminal's last line; nothing in a log file."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
