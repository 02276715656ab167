"""A plan for an instance by a hard deadline, with a certified gap: there is always a plan.

The solver runs in a process of its own. Each plan that it reports is checked by arithmetic of our own before it is
taken; where it crashes, overruns or finds nothing in time, the best plan so far stands, and the plan's flags say so.
"""

import contextlib
import math
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Final

import msgspec

from coordinator.planner.fallback import fallback_plan, trivial_bound
from coordinator.planner.hardprices import hard_prices
from coordinator.planner.instance import Instance
from coordinator.planner.plan import Plan, certified_gap
from coordinator.planner.reports import BoundProved, Failed, Finished, PlanFound, Report, Request
from coordinator.planner.verify import Verdict, verify

WORKER: Final = (sys.executable, "-m", "coordinator.planner.worker")
DEFAULT_GAP: Final = 0.001
DEFAULT_TIME_LIMIT_S: Final = 60.0

_WRAP_UP_S: Final = 0.15
_START_UP_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the search is: seconds since its start, worth of the best plan, bound, gap, and what found the plan."""

    wall_s: float
    worth: float
    bound: float
    gap: float
    method: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The best plan, complete with bound and gap, and the check that it passed."""

    plan: Plan
    verdict: Verdict


def solve(
    instance: Instance,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    gap: float = DEFAULT_GAP,
    on_progress: Callable[[Progress], None] | None = None,
    worker: Sequence[str] = WORKER,
) -> Outcome:
    """The best plan found in ``time_limit_s`` seconds, or sooner where the gap asked for is proved."""
    search = _Best(instance, time.monotonic(), on_progress)
    deadline_s = search.began_s + time_limit_s
    request = Request(instance, max(0.1, time_limit_s - _WRAP_UP_S - _START_UP_S), gap)
    with _process(worker, msgspec.json.encode(request)) as reports:
        search.offer(fallback_plan(instance))
        search.follow(reports, deadline_s - _WRAP_UP_S)
    return search.outcome()


class _Best:
    """The best plan and bound so far."""

    def __init__(self, instance: Instance, began_s: float, on_progress: Callable[[Progress], None] | None) -> None:
        self.began_s = began_s
        self._instance = instance
        self._on_progress = on_progress
        self._bound = trivial_bound(instance)
        self._best: tuple[float, Plan, Verdict] | None = None
        self._flags: list[str] = []

    def follow(self, reports: "queue.Queue[Report | None]", deadline_s: float) -> None:
        """Take what the solver reports until it ends or the time is over."""
        while True:
            try:
                first = reports.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                self._flags.append("stopped at the time limit")
                return
            batch = [first, *_waiting(reports)]
            plans = [report.plan for report in batch if isinstance(report, PlanFound)]
            for report in batch:
                self._hear(report)
            for plan in reversed(plans):
                if self.offer(plan):
                    break
            self._progress()
            if any(report is None or isinstance(report, Finished) for report in batch):
                return

    def _hear(self, report: Report | None) -> None:
        if isinstance(report, BoundProved):
            self._bound = min(self._bound, report.bound)
        elif isinstance(report, Failed):
            self._flags.append(f"the solver gave up: {report.reason}")
        elif report is None:
            self._flags.append("the solver's process ended early")

    def offer(self, plan: Plan) -> bool:
        """Take a plan if it can be carried out and is better; whether it can be carried out."""
        verdict = verify(self._instance, plan)
        if not verdict.possible:
            return False
        worth = plan.objective - breach_cost(self._instance, verdict)
        if self._best is None or worth > self._best[0]:
            self._best = (worth, plan, verdict)
        return True

    def _progress(self) -> None:
        if self._on_progress is not None and self._best is not None:
            worth, plan, _ = self._best
            gap = certified_gap(self._bound, worth)
            self._on_progress(Progress(time.monotonic() - self.began_s, worth, self._bound, gap, plan.method))

    def outcome(self) -> Outcome:
        """The best plan, complete."""
        if self._best is None:
            raise RuntimeError(f"not even rules made a plan for {self._instance.name}")
        worth, plan, verdict = self._best
        gap = certified_gap(self._bound, worth)
        plan = msgspec.structs.replace(
            plan,
            bound=self._bound,
            gap=gap if math.isfinite(gap) else None,
            wall_s=round(time.monotonic() - self.began_s, 3),
            broken=verdict.broken,
            flags=tuple(self._flags),
        )
        return Outcome(plan, verdict)


def breach_cost(instance: Instance, verdict: Verdict) -> float:
    """What the broken hard limits are priced at, in currency."""
    prices = hard_prices(instance)
    hours = instance.slot_h
    must_run = [prices.job(job, hours) for job in instance.jobs if job.must_run]
    per_unit = {
        "kW": hours * prices.per_kwh,
        "kWh": prices.per_kwh,
        "kg": prices.per_kg,
        "GPUs": hours * prices.per_gpu_h,
        "GPU-h": prices.per_gpu_h,
        "job": max(must_run, default=0.0),
    }
    return sum(per_unit[broken.unit] * broken.amount for broken in verdict.broken)


def _waiting(reports: "queue.Queue[Report | None]") -> Iterator[Report | None]:
    with contextlib.suppress(queue.Empty):
        while True:
            yield reports.get_nowait()


@contextlib.contextmanager
def _process(command: Sequence[str], request: bytes) -> Iterator["queue.Queue[Report | None]"]:
    """The worker's reports as they come, then None; the process is gone afterwards."""
    reports: queue.Queue[Report | None] = queue.Queue()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None  # noqa: S101  # both pipes were asked for
    assert process.stdout is not None  # noqa: S101
    writer = threading.Thread(target=_write, args=(process.stdin, request), daemon=True)
    reader = threading.Thread(target=_read, args=(process.stdout, reports), daemon=True)
    writer.start()
    reader.start()
    try:
        yield reports
    finally:
        process.kill()
        process.wait()
        writer.join()
        reader.join()
        process.stdout.close()


def _write(pipe: IO[bytes], request: bytes) -> None:
    with contextlib.suppress(OSError), pipe:
        pipe.write(request)


def _read(pipe: IO[bytes], reports: "queue.Queue[Report | None]") -> None:
    """Reports up to the end of the pipe; what a killed process left half written is dropped."""
    for line in pipe:
        try:
            reports.put(msgspec.json.decode(line, type=Report))
        except msgspec.DecodeError:
            break
    reports.put(None)
