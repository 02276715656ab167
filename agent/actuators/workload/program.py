"""One program under supervision: made to run, to pause and to stop, started again when it fails, and its story told."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Final

from agent.actuators.workload.config import WorkloadConfig
from hil.clock import Clock
from hil.devices import WorkloadState

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0
PASSED_ON: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "USER")

_log = logging.getLogger(__name__)


class ProgramFailed(Exception):
    """The program could not be started; says why."""


class Program:
    """A program and its keeper. What it should do is remembered, so that a restart waits while it is paused."""

    def __init__(self, config: WorkloadConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._wanted = WorkloadState.STOPPED
        self._keeper: Process | None = None
        self._group: int | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._may_run = asyncio.Event()
        self._exit_code: int | None = None
        self._restarts = 0

    @property
    def group(self) -> int | None:
        """The number of its process group while it lives."""
        return self._group

    @property
    def story(self) -> str:
        """What became of it, for people: ``running, 2 restarts``, ``ended with 0``."""
        if self._group is not None:
            word = "paused" if self._wanted is WorkloadState.PAUSED else f"running as {self._group}"
        elif self._exit_code is None:
            word = "not started"
        else:
            word = f"ended with {self._exit_code}" if self._exit_code >= 0 else f"ended by {_signal(-self._exit_code)}"
        return f"{word}, {self._restarts} restarts" if self._restarts else word

    async def run(self) -> None:
        """Let it run: start it if it was not, go on if it was paused. Raises ProgramFailed or OSError."""
        if self._supervisor is None:
            self._exit_code, self._restarts = None, 0
            await self._launch()
            self._supervisor = asyncio.create_task(self._supervise(), name=f"workload {self._config.name}")
        self._wanted = WorkloadState.RUNNING
        self._may_run.set()
        self._send(signal.SIGCONT)

    async def pause(self) -> None:
        """Take its processors away; one that does not run will not be started meanwhile."""
        self._wanted = WorkloadState.PAUSED
        self._may_run.clear()
        self._send(signal.SIGSTOP)

    async def stop(self) -> None:
        """End it, with its whole group; harmless when repeated."""
        self._wanted = WorkloadState.STOPPED
        if self._supervisor is None:
            return
        if self._keeper is not None and self._group is not None:
            with contextlib.suppress(ProcessLookupError):
                self._keeper.terminate()
        else:
            self._supervisor.cancel()
        await asyncio.wait([self._supervisor])
        self._supervisor = None

    async def state(self) -> WorkloadState:
        """What it does, as the kernel sees it; one that ended by itself does what it was made to."""
        if self._group is None or self._wanted is WorkloadState.STOPPED:
            return self._wanted
        halted = await asyncio.to_thread(_halted, self._group)
        return WorkloadState.PAUSED if halted else WorkloadState.RUNNING

    async def _launch(self) -> None:
        config = self._config
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | config.env
        keeper = [sys.executable, "-I", "-m", "agent.actuators.workload.keeper", str(os.getpid()), str(config.grace_s)]
        self._keeper = await asyncio.create_subprocess_exec(
            *keeper,
            *config.argv,
            stdin=DEVNULL,
            stdout=PIPE,
            cwd=config.folder,
            env=environment,
            start_new_session=True,  # so that Ctrl-C on the agent's terminal does not reach it
        )
        try:
            word, said = await _word(self._keeper)
        except asyncio.CancelledError:
            self._keeper.terminate()
            raise
        if word != "started":
            await self._keeper.wait()
            raise ProgramFailed(said or "its keeper ended at once")
        self._group = int(said)

    async def _supervise(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            self._exit_code = await self._outcome()
            if self._exit_code == 0 or self._wanted is WorkloadState.STOPPED or self._config.restart == "never":
                return
            _log.warning("%s: %s; starting it again in %g s", self._config.name, self.story, wait_s)
            await self._clock.sleep_until(self._clock.monotonic() + wait_s)
            wait_s = min(LONGEST_WAIT_S, 2 * wait_s)
            await self._may_run.wait()
            self._restarts += 1
            try:
                await self._launch()
            except (ProgramFailed, OSError) as error:
                _log.error("%s: not started again: %s", self._config.name, error)
                return

    async def _outcome(self) -> int | None:
        assert self._keeper is not None  # noqa: S101  # launched before it is supervised
        _, code = await _word(self._keeper)
        await self._keeper.wait()
        self._group = None
        return int(code) if code else None

    def _send(self, number: signal.Signals) -> None:
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError):  # it is just ending
                os.killpg(self._group, number)


async def _word(keeper: Process) -> tuple[str, str]:
    assert keeper.stdout is not None  # noqa: S101  # it was made with a pipe
    word, _, said = (await keeper.stdout.readline()).decode(errors="replace").strip().partition(" ")
    return word, said


def _halted(group: int) -> bool:
    """Whether every process of a group is paused; the kernel's word, see proc_pid_stat(5)."""
    processes = map(_state_and_group, Path("/proc").glob("[0-9]*/stat"))
    states = [state for state, its_group in processes if its_group == group]
    return bool(states) and all(state in {"T", "t", "Z", "X"} for state in states)


def _state_and_group(stat: Path) -> tuple[str, int]:
    try:
        # The name before it may hold spaces and brackets.
        fields = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:  # it ended while we looked
        return "", 0
    return fields[0], int(fields[2])


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
