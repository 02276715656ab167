"""Runs a command that dies with its parent.

    python -m hil.tether [--kill] PARENT_PID COMMAND [ARGUMENT…]

It asks the kernel (``PR_SET_PDEATHSIG``, prctl(2)) to be sent SIGTERM, with ``--kill`` SIGKILL, when the parent is
gone, checks that it is not gone already, and becomes the command. The kernel means the *thread* that started the
process, so start it from one that lives as long as the process should: the main thread. A command that changes its user
loses the tether. Doing this here and not in ``preexec_fn`` keeps Python code out of the gap between fork and exec.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
EXIT_USAGE = 2
EXIT_ORPHANED = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


def tethered(command: Sequence[str], *, kill: bool = False) -> list[str]:
    """The argument vector that runs ``command`` tethered to this process.

    SIGTERM lets the command tidy up; ``kill`` is for one that has nothing to tidy, and also ends it when it is stopped.
    """
    # Run by path and isolated: neither the working directory nor PYTHON* variables can get between us and the command.
    wrapper = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    return [*wrapper, *(["--kill"] if kill else []), str(os.getpid()), *command]


def die_with(parent: int, sent: signal.Signals) -> None:
    """Have ``sent`` delivered to this process when ``parent`` ends. Raises ProcessLookupError when it has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(sent), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent:  # it ended before the kernel knew of our wish
        raise ProcessLookupError(f"process {parent} has ended")


def become(command: list[str]) -> int:
    """Never returns where the command can be run; else an exit code as a shell gives it."""
    try:
        os.execvp(command[0], command)  # noqa: S606  # no shell is wanted
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE


def main(arguments: Sequence[str]) -> int:
    """Become the command that ``arguments`` names; an exit code where that fails."""
    kill = arguments[:1] == ["--kill"]
    operands = arguments[1:] if kill else arguments
    if len(operands) < 2 or not operands[0].isdigit():
        print("usage: python -m hil.tether [--kill] PARENT_PID COMMAND [ARGUMENT…]", file=sys.stderr)
        return EXIT_USAGE
    try:
        die_with(int(operands[0]), signal.SIGKILL if kill else signal.SIGTERM)
    except ProcessLookupError:
        return EXIT_ORPHANED
    return become(list(operands[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
