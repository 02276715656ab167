"""HiGHS on a Problem, one thread: a linear relaxation with its certified bound, or the whole program.

Status is checked each time, for HiGHS may return without a solution. Its sign of duals differs between its simplex and
its interior point without crossover, so both signs are tried: weak duality holds for either.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import highspy
import numpy as np

from coordinator.planner.matrix import Floats, Problem

IPM_COLUMNS: Final = 8_000

OnSolution = Callable[[Floats], None]
OnBound = Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class Relaxed:
    """A linear relaxation: its point, its duals, and an upper bound that the duals prove by themselves."""

    x: Floats
    duals: Floats
    bound: float


@dataclass(frozen=True, slots=True)
class Solved:
    """What the whole program gave: the best point found, if any, and the least proved upper bound."""

    x: Floats | None
    bound: float


class SolverFailed(Exception):
    """HiGHS ended without anything that can be used."""


def relax(problem: Problem, time_limit_s: float) -> Relaxed:
    """The linear relaxation. Raises SolverFailed where the time or the solver does not suffice."""
    highs = _loaded(problem, integer=False, time_limit_s=time_limit_s)
    if problem.columns > IPM_COLUMNS:
        highs.setOptionValue("solver", "ipm")
        highs.setOptionValue("run_crossover", "off")
    highs.run()
    solution = highs.getSolution()
    if not (solution.value_valid and solution.dual_valid):
        raise SolverFailed(f"no relaxation: {highs.modelStatusToString(highs.getModelStatus())}")
    x, duals = np.array(solution.col_value), np.array(solution.row_dual)
    bounds = {problem.dual_bound(side): side for side in (duals, -duals)}
    bound = min(bounds)
    return Relaxed(x, bounds[bound], bound)


def solve(
    problem: Problem,
    time_limit_s: float,
    gap: float,
    start: Floats | None = None,
    on_solution: OnSolution | None = None,
    on_bound: OnBound | None = None,
) -> Solved:
    """The program by branch and bound. ``on_bound`` hears the bound now and then and ends the search by True."""
    if not problem.columns:
        return Solved(np.empty(0), problem.offset)
    highs = _loaded(problem, integer=True, time_limit_s=time_limit_s)
    highs.setOptionValue("mip_rel_gap", gap)
    if start is not None:
        known = highspy.HighsSolution()
        known.col_value = list(start)
        highs.setSolution(known)
    if on_solution is not None:
        hear: OnSolution = on_solution
        highs.cbMipImprovingSolution.subscribe(lambda event: hear(np.array(event.data_out.mip_solution)))
    if on_bound is not None:
        judge: OnBound = on_bound

        def interrupt(event: Any) -> None:
            bound = float(event.data_out.mip_dual_bound)
            if math.isfinite(bound) and judge(bound):
                event.interrupt()

        highs.cbMipInterrupt.subscribe(interrupt)
    highs.run()
    return _solved(problem, highs)


def _solved(problem: Problem, highs: Any) -> Solved:
    info = highs.getInfo()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    x = np.array(highs.getSolution().col_value) if feasible else None
    if x is not None and not problem.integer.any():
        bound = float(info.objective_function_value) if _optimal(highs) else math.inf
    else:
        bound = float(info.mip_dual_bound)
    if highs.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        return Solved(None, -math.inf)
    return Solved(x, bound if math.isfinite(bound) else math.inf)


def _optimal(highs: Any) -> bool:
    return bool(highs.getModelStatus() == highspy.HighsModelStatus.kOptimal)


def _loaded(problem: Problem, integer: bool, time_limit_s: float) -> Any:
    highs: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    highs.setOptionValue("time_limit", max(0.01, time_limit_s))
    highs.passModel(highs_model(problem, integer))
    return highs


def highs_model(problem: Problem, integer: bool = True) -> Any:
    """The problem as HiGHS takes it."""
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = problem.columns, problem.rows
    model.col_cost_, model.col_lower_, model.col_upper_ = problem.cost, problem.lower, problem.upper
    model.row_lower_, model.row_upper_ = problem.row_lower, problem.row_upper
    model.sense_, model.offset_ = highspy.ObjSense.kMaximize, problem.offset
    matrix = model.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kColwise
    matrix.start_, matrix.index_, matrix.value_ = problem.start, problem.index, problem.value
    if integer:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model.integrality_ = [kinds[flag] for flag in problem.integer.tolist()]
    return model


def write_mps(problem: Problem, path: str) -> None:
    """Write the program as MPS, as a minimisation of the negated objective, for another solver."""
    highs: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    highs.setOptionValue("output_flag", False)
    model = highs_model(problem)
    model.sense_, model.col_cost_, model.offset_ = highspy.ObjSense.kMinimize, -problem.cost, -problem.offset
    highs.passModel(model)
    if highs.writeModel(path) == highspy.HighsStatus.kError:
        raise SolverFailed(f"cannot write {path}")
