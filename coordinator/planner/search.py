"""From a model to ever better plans with an ever tighter bound: relaxation, rounding, repair, neighbourhoods, exact.

Reduced costs prune exactly: a start whose loss under the relaxation's prices exceeds bound − best cannot be part of any
better plan. What remains is given to branch and bound where it is small enough, whose bound then holds for everything.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from coordinator.planner.extract import chosen_starts
from coordinator.planner.highs import Relaxed, solve
from coordinator.planner.matrix import Bools, Floats, Ints, Problem
from coordinator.planner.model import Model
from coordinator.planner.plan import certified_gap
from coordinator.planner.relaxation import best_of_each, relaxation
from coordinator.planner.rounding import rounded, scores

EXACT_STARTS: Final = 2_500
NEIGHBOURHOOD_S: Final = 6.0
COLUMNS_PER_JOB: Final = 40
SUB_GAP: Final = 2e-5
BROKEN: Final = 1e-4

Found = Callable[[Floats, str, float | None], None]
Bound = Callable[[float, str], None]

log = logging.getLogger(__name__)


class Search:
    """One search over one model. ``found`` and ``bounded`` hear each improvement; ``x`` and ``bound`` are the best."""

    def __init__(
        self, model: Model, deadline_s: float, gap: float, found: Found, bounded: Bound, exact_only: bool = False
    ) -> None:
        self._model = model
        self._problem = model.problem
        self._deadline_s, self._gap = deadline_s, gap
        self._found, self._bounded = found, bounded
        self._exact_only = exact_only
        self._random = np.random.default_rng(7)
        self._relaxed: Relaxed | None = None
        self._value = -math.inf
        self.x: Floats | None = None
        self.bound = math.inf

    @property
    def left_s(self) -> float:
        """Time to the deadline, in s."""
        return self._deadline_s - time.monotonic()

    @property
    def done(self) -> bool:
        """Whether the gap asked for is proved, or the time is over."""
        return self.left_s <= 0.02 or (self.x is not None and certified_gap(self.bound, self._value) <= self._gap)

    def run(self) -> None:
        """Search until done. Raises SolverFailed where not even a relaxation can be had."""
        self._prove(self._problem.dual_bound(np.zeros(self._problem.rows)), "trivial")
        relaxed = relaxation(self._model, lambda: self.left_s, self._round)
        self._round(relaxed)
        stale = 0
        while not self.done:
            keep = self._worthwhile(relaxed)
            if self._exact_only or int(keep.sum()) <= EXACT_STARTS or stale >= 6:
                self._exact(keep, self.left_s)
                if stale >= 6:
                    stale = 0
                if self._exact_only or not self._open(keep):
                    return
            stale = 0 if self._neighbourhood(relaxed, keep) else stale + 1

    def _round(self, relaxed: Relaxed) -> None:
        """Use a relaxation: its bound, and the plan that it suggests."""
        self._relaxed = relaxed
        self._prove(relaxed.bound, "relaxation")
        self._dispatch(rounded(self._model, relaxed), "rounding")

    def _open(self, keep: Bools) -> bool:
        """Whether branch and bound left something to be found: it ended by its limit, not by proof."""
        return not self.done and certified_gap(self.bound, self._value) > SUB_GAP and bool(keep.any())

    def _prove(self, bound: float, method: str) -> None:
        if bound < self.bound:
            self.bound = max(bound, self._value)
            self._bounded(self.bound, method)

    def _offer(self, x: Floats, method: str) -> bool:
        """Take a point of the whole problem if it is better; whether it was."""
        value = float(self._problem.cost @ x + self._problem.offset)
        if value <= self._value + 1e-9 * max(1.0, abs(value)):
            return False
        self._value, self.x = value, x
        relaxed = self._relaxed
        price = None
        if relaxed is not None and self._model.carbon_row is not None:
            price = max(0.0, float(relaxed.duals[self._model.carbon_row]))
        self._found(x, method, price)
        return True

    def _dispatch(self, chosen: Ints, method: str) -> bool:
        """Everything but the jobs, for these starts; whether that was better than before."""
        x = np.zeros(self._problem.columns)
        x[self._model.start_columns[chosen]] = 1.0
        keep = np.ones(self._problem.columns, bool)
        keep[self._model.start_columns] = False
        return self._solve_part(keep, x, self.left_s, method, start=None)

    def _solve_part(self, keep: Bools, x: Floats, limit_s: float, method: str, start: Floats | None) -> bool:
        part = self._problem.restricted(keep, x)

        def hear(better: Floats) -> None:
            whole = x.copy()
            whole[keep] = better
            self._offer(whole, method)

        solved = solve(part, min(limit_s, self.left_s), SUB_GAP, start, hear if part.integer.any() else None)
        if solved.x is None:
            return False
        before = self._value
        whole = x.copy()
        whole[keep] = solved.x
        self._offer(self._polished(whole), method)
        return self._value > before + 1e-7 * abs(before)

    def _polished(self, x: Floats) -> Floats:
        """The point with whole integers and the best continuous part beside them."""
        integer = self._problem.integer
        whole = np.where(integer, np.round(x), x)
        if np.abs(whole - x).max(initial=0.0) < 1e-12:
            return x
        solved = solve(self._problem.restricted(~integer, whole), max(1.0, self.left_s), 0.0)
        if solved.x is None:
            return x
        whole[~integer] = solved.x
        return whole

    def _worthwhile(self, relaxed: Relaxed) -> Bools:
        """Starts that a better plan could make."""
        reduced = self._problem.reduced_costs(relaxed.duals)[self._model.start_columns]
        room = relaxed.bound - self._value
        return reduced > -(room + 1e-7 * abs(relaxed.bound))

    def _unbroken(self) -> bool:
        """Whether the best plan so far keeps all hard limits."""
        return self.x is not None and float(self.x[self._model.hard].sum()) <= BROKEN

    def _strict(self) -> Problem:
        """The problem without slack on hard limits where that is known to be possible."""
        if not self._unbroken():
            return self._problem
        upper = self._problem.upper.copy()
        upper[self._model.hard] = 0.0
        p = self._problem
        return Problem(p.cost, p.lower, upper, p.integer, p.row_lower, p.row_upper, p.start, p.index, p.value, p.offset)

    def _exact(self, keep_starts: Bools, limit_s: float) -> None:
        """Branch and bound over all that is worthwhile; its bound holds for the whole problem."""
        keep = np.ones(self._problem.columns, bool)
        keep[self._model.start_columns] = keep_starts
        held = np.zeros(self._problem.columns)
        part = self._strict().restricted(keep, held)
        start = None
        if self.x is not None and not (self.x[~keep] > 0.5).any():
            start = np.minimum(self.x[keep], part.upper)

        def hear(better: Floats) -> None:
            whole = held.copy()
            whole[keep] = better
            self._offer(whole, "branch and bound")

        def judge(bound: float) -> bool:
            self._prove(max(bound, self._value), "branch and bound")
            return self.done

        solved = solve(part, min(limit_s, self.left_s), self._gap / 2, start, hear, judge)
        if solved.x is not None:
            whole = held.copy()
            whole[keep] = solved.x
            self._offer(self._polished(whole), "branch and bound")
        if solved.bound < math.inf:
            self._prove(max(solved.bound, self._value), "branch and bound")

    def _neighbourhood(self, relaxed: Relaxed, keep_starts: Bools) -> bool:
        """Let some jobs move, hold the others; whether that was better."""
        if self.x is None or self.left_s < 0.05:
            return False
        model, starts = self._model, self._model.starts
        free_jobs = self._free_jobs(relaxed)
        score = np.where(keep_starts, scores(model, relaxed), -np.inf)
        current = np.zeros(len(starts), bool)
        current[chosen_starts(model, self.x)] = True
        free = free_jobs[starts.job] & (best_of_each(starts.job, score, COLUMNS_PER_JOB) | current)
        keep = np.ones(self._problem.columns, bool)
        keep[model.start_columns] = free
        x = self.x.copy()
        return self._solve_part(keep, x, min(NEIGHBOURHOOD_S, self.left_s), "neighbourhood search", x[keep])

    def _free_jobs(self, relaxed: Relaxed) -> Bools:
        """Jobs that may move: those of a few sites in a window of time, and those whose place the relaxation doubts."""
        assert self.x is not None  # noqa: S101  # the caller looked
        model, starts = self._model, self._model.starts
        slots, sites = model.instance.slots, len(model.instance.sites)
        doubt = np.abs(relaxed.x[model.start_columns] - self.x[model.start_columns])
        doubts = np.bincount(starts.job, weights=doubt, minlength=len(model.instance.jobs))
        width = max(4, slots // 3)
        begin = int(self._random.integers(0, max(1, slots - width // 2)))
        some = self._random.permutation(sites)[: max(2, sites // 3)]
        touched = np.isin(starts.site, some) & (starts.slot < begin + width) & (starts.slot + starts.length > begin)
        present = (self.x[model.start_columns] > 0.5) | (relaxed.x[model.start_columns] > 0.05)
        near = np.bincount(starts.job[touched & present], minlength=len(model.instance.jobs)) > 0
        weight = doubts * (1.0 + 2.0 * near) + 0.3 * near + 1e-3
        count = min(len(weight), 40)
        picked = self._random.choice(len(weight), count, replace=False, p=weight / weight.sum())
        free = np.zeros(len(weight), bool)
        free[picked] = True
        return free
