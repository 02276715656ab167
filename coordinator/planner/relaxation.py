"""The linear relaxation of a model, with few start columns at a time where there are many.

A round solves the relaxation over the starts taken in so far; its duals price all others, and bound the whole problem
by weak duality. Starts that would earn at those prices join, until the bound meets the value. Some three rounds do.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from coordinator.planner.highs import Relaxed, SolverFailed, relax
from coordinator.planner.matrix import Bools, Floats, Ints
from coordinator.planner.model import Model

ALL_AT_ONCE: Final = 6_000
SEEDS_PER_JOB: Final = 8
JOINING_PER_JOB: Final = 10
ROUNDS: Final = 30
MET: Final = 1e-5


def relaxation(model: Model, left_s: Callable[[], float], first: Callable[[Relaxed], None]) -> Relaxed:
    """The relaxation with the least bound found in time; ``first`` hears a rough one where several rounds are needed.

    Raises SolverFailed where not one round ends in time.
    """
    if len(model.starts) <= ALL_AT_ONCE:
        return relax(model.problem, left_s())
    active = _seeds(model)
    best: Relaxed | None = None
    for number in range(ROUNDS):
        try:
            here = _over(model, active, left_s())
        except SolverFailed:
            if best is None:
                raise
            break
        bound, value = model.problem.dual_bound(here.duals), here.bound
        if best is None or bound <= best.bound:
            best = Relaxed(here.x, here.duals, bound)
        if best.bound - value <= MET * abs(best.bound):
            break
        if number == 0:
            first(best)
        reduced = model.problem.reduced_costs(here.duals)[model.start_columns]
        earning = (reduced > 1e-7) & ~active
        if not earning.any():
            break
        active |= best_of_each(model.starts.job, np.where(earning, reduced, -np.inf), JOINING_PER_JOB)
    if best is None:
        raise SolverFailed("no round of the relaxation ended in time")
    return best


def best_of_each(job: Ints, score: Floats, count: int) -> Bools:
    """The ``count`` best starts of each job; those scored −∞ are never among them."""
    order = np.lexsort((-score, job))
    rank = np.arange(len(job)) - np.searchsorted(job[order], job[order])
    best = np.zeros(len(job), bool)
    best[order] = (rank < count) & np.isfinite(score[order])
    return best


def _over(model: Model, active: Bools, time_limit_s: float) -> Relaxed:
    problem = model.problem
    keep = np.ones(problem.columns, bool)
    keep[model.start_columns] = active
    part = relax(problem.restricted(keep, np.zeros(problem.columns)), time_limit_s)
    x = np.zeros(problem.columns)
    x[keep] = part.x
    return Relaxed(x, part.duals, part.bound)


def _seeds(model: Model) -> Bools:
    """Starts to begin with: those of most value less imported energy, and some at random to spread."""
    starts, instance = model.starts, model.instance
    price = np.array([np.multiply(site.buy_price_per_kwh, site.pue) for site in instance.sites])
    summed = np.concatenate([np.zeros((len(price), 1)), np.cumsum(price, axis=1)], axis=1) * instance.slot_h
    end = np.minimum(starts.slot + starts.length, instance.slots)
    energy = starts.power_kw * (summed[starts.site, end] - summed[starts.site, starts.slot])
    chance = np.random.default_rng(1).random(len(starts))
    return best_of_each(starts.job, starts.value - energy, SEEDS_PER_JOB) | best_of_each(
        starts.job, chance, SEEDS_PER_JOB
    )
