"""How good plans get and how fast: certified gap and time, beside HiGHS alone on the same matrix in the same time.

    python bench/planner.py [--case NAME …] [--plain]

prints one JSON line. One solver thread. ``ours`` ends at the gap asked for, ``plain`` is branch and bound on the whole
matrix, given the time limit of the case; ``accepted`` counts deadlines from 1 s up whose plan the check accepts.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from coordinator.planner.generate import Size, generate
from coordinator.planner.highs import solve as plain_solve
from coordinator.planner.instance import Instance
from coordinator.planner.instancefile import load_instance
from coordinator.planner.model import build
from coordinator.planner.plan import certified_gap
from coordinator.planner.solve import solve

DATA = Path(__file__).parent.parent / "tests" / "data"


@dataclass(frozen=True)
class Case:
    """An instance by file or size, the gap asked for, and the time allowed."""

    name: str
    gap: float
    limit_s: float
    size: Size | None = None

    def instance(self) -> Instance:
        return generate(self.size, seed=1) if self.size else load_instance(DATA / f"{self.name}.json")


CASES = (
    Case("plan-paper-size", 0.001, 3.0),
    Case("plan-medium", 0.001, 15.0),
    Case("10-96-200-12", 0.001, 20.0, Size(10, 96, 200, 12)),
    Case("10-96-200-12-load-1.8", 0.005, 30.0, Size(10, 96, 200, 12, load=1.8)),
    Case("20-96-1000-20", 0.01, 120.0, Size(20, 96, 1000, 20)),
)


@dataclass(frozen=True)
class Result:
    """One case: gap and seconds of ours and of plain branch and bound, None where there was no plan."""

    name: str
    gap: float | None
    wall_s: float
    method: str
    accepted: bool
    deadline_1_s_accepted: bool
    deadline_1_s_wall_s: float
    plain_gap: float | None
    plain_wall_s: float | None


def measure(case: Case, plain: bool) -> Result:
    instance = case.instance()
    began = time.monotonic()
    soon = solve(instance, 1.0, case.gap)
    soon_s = time.monotonic() - began
    outcome = solve(instance, case.limit_s, case.gap)
    gap, seconds = plain_highs(instance, case) if plain else (None, None)
    plan = outcome.plan
    return Result(
        case.name,
        plan.gap,
        plan.wall_s,
        plan.method,
        not outcome.verdict.findings,
        not soon.verdict.findings,
        round(soon_s, 3),
        gap,
        seconds,
    )


def plain_highs(instance: Instance, case: Case) -> tuple[float | None, float]:
    began = time.monotonic()
    problem = build(instance).problem
    solved = plain_solve(problem, case.limit_s, case.gap)
    seconds = round(time.monotonic() - began, 3)
    if solved.x is None or not math.isfinite(solved.bound):
        return None, seconds
    return certified_gap(solved.bound, float(problem.cost @ solved.x + problem.offset)), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [case.name for case in CASES]
    parser.add_argument("--case", nargs="+", choices=names, default=names)
    parser.add_argument("--plain", action="store_true", help="also HiGHS alone; this takes minutes")
    arguments = parser.parse_args()
    results = [measure(case, arguments.plain) for case in CASES if case.name in arguments.case]
    print(json.dumps({"bench": "planner", "cases": [asdict(result) for result in results]}))


if __name__ == "__main__":
    main()
