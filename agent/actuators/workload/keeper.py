"""Keeps one program, and ends it and all its descendants when told to, or when the agent dies.

    python -m agent.actuators.workload.keeper PARENT_PID GRACE_S PROGRAM [ARGUMENT…]

A process of its own, because only a parent is told for certain how a program ended, because it may itself never be
paused, and because it outlives a killed agent by as long as it takes to clean up: it is sent SIGTERM when the agent is
gone (``PR_SET_PDEATHSIG``), and it inherits every descendant that loses its parent (``PR_SET_CHILD_SUBREAPER``, both
prctl(2)), so that none can escape by leaving the process group.

On its standard output it says ``started PID`` or ``failed REASON``, and in the end ``ended CODE``: the exit code, or
the negative number of the signal. The program's own output goes to standard error.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from hil.tether import die_with

_PR_SET_CHILD_SUBREAPER: Final = 36


class _Ended(Exception):
    """We were told to end."""


def main(arguments: Sequence[str]) -> int:
    """Keep the program until it ends or we are told to end it; exit status 0, or 1 if it could not be started."""
    parent, grace_s, *command = arguments
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = None
    try:
        signal.signal(signal.SIGTERM, _end)
        die_with(int(parent), signal.SIGTERM)
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, process_group=0)
        _say(f"started {program.pid}")
        program.wait()
    except (_Ended, ProcessLookupError):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except OSError as error:
        _say(f"failed {command[0]}: {error.strerror}")
        return 1
    if program is None:
        return 1
    _clean_up(program, float(grace_s))
    _say(f"ended {program.returncode}")
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _Ended


def _say(word: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the agent is gone
        os.write(1, f"{word}\n".encode())


def _clean_up(program: "subprocess.Popen[bytes]", grace_s: float) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if program.poll() is None:
        _send(program.pid, signal.SIGTERM)
        _send(program.pid, signal.SIGCONT)  # a paused program gets its chance, too
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(grace_s)
    _send(program.pid, signal.SIGKILL)
    program.wait()
    while strays := _children():
        for stray in strays:
            os.kill(stray, signal.SIGKILL)  # our own children: unreaped, so the numbers are still theirs
        for stray in strays:
            os.waitpid(stray, 0)


def _send(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _children() -> list[int]:
    path = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    try:
        return [int(pid) for pid in path.read_text(encoding="ascii").split()]
    except OSError:  # a kernel that does not list them
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
