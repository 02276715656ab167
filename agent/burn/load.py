"""The whole load: a process for each core, watched until all have ended."""

import itertools
import multiprocessing
import os
import resource
import signal
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import FrameType

from agent.burn.core import burn
from agent.burn.profile import BurnProfile
from agent.burn.schedule import SLICE_S, duties


@dataclass(frozen=True, slots=True)
class Burned:
    """What a load came to: processor time in s over all cores, and time that passed."""

    cores: int
    busy_s: float
    wall_s: float


class Interrupted(Exception):
    """A signal ended the load; ``number`` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run_load(profile: BurnProfile, duration_s: float | None) -> Burned:
    """Burn, for ``duration_s`` at most, and say what it came to; on the main thread. Raises Interrupted."""
    available = sorted(os.sched_getaffinity(0))
    cores = available if profile.cores == "all" else available[: profile.cores]
    slices = None if duration_s is None else max(1, round(duration_s / SLICE_S))
    context = multiprocessing.get_context("fork")  # at once, and a few hundred kB a core
    workers: list[BaseProcess] = [
        context.Process(target=burn, args=(itertools.islice(duties(profile, index), slices), core, os.getpid()))
        for index, core in enumerate(cores)
    ]
    before, began = _children_s(), time.monotonic()
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _end(workers)
    return Burned(len(cores), _children_s() - before, time.monotonic() - began)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def _end(workers: list[BaseProcess]) -> None:
    for worker in workers:
        if worker.pid is not None:
            worker.kill()
    for worker in workers:
        if worker.pid is not None:
            worker.join()


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
