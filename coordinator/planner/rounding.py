"""Whole starts from a linear relaxation: each job where its prices make it worth most and GPUs are free."""

import numpy as np

from coordinator.planner.highs import Relaxed
from coordinator.planner.matrix import Floats, Ints
from coordinator.planner.model import Model

_PREFERENCE = 1e-3


def scores(model: Model, relaxed: Relaxed) -> Floats:
    """What each start is worth in currency once the relaxation's prices of GPUs, power and carbon are paid."""
    reduced = model.problem.reduced_costs(relaxed.duals)[model.start_columns]
    return reduced + relaxed.duals[model.job_rows[model.starts.job]]


def rounded(model: Model, relaxed: Relaxed) -> Ints:
    """Numbers of the chosen starts: one pass beside the relaxation's inference, one that displaces it."""
    starts = model.starts
    score = scores(model, relaxed)
    mass = relaxed.x[model.start_columns]
    per_job = np.bincount(starts.job, weights=mass, minlength=len(model.instance.jobs)).astype(float)
    wish = score + _PREFERENCE * np.maximum(1.0, np.abs(starts.value)) * mass
    order = np.lexsort((-wish, starts.job))
    first = np.searchsorted(starts.job[order], np.arange(len(model.instance.jobs) + 1))
    used = np.zeros((len(model.instance.sites), model.instance.slots))
    limits = np.array([site.gpus for site in model.instance.sites])[:, None] * np.ones_like(used)
    beside = limits - _elastic_gpus(model, relaxed.x)
    chosen: dict[int, int] = {}
    for free in (beside, limits):
        for job in _sequence(model, per_job):
            if job in chosen:
                continue
            compelled = model.instance.jobs[job].must_run or model.instance.jobs[job].running_site is not None
            number = _best_fit(model, order[first[job] : first[job + 1]], free - used, score, compelled, free is limits)
            if number is not None:
                chosen[job] = number
                site, slot = starts.site[number], starts.slot[number]
                used[site, slot : slot + starts.length[number]] += starts.gpus[number]
    return np.array(sorted(chosen.values()), dtype=np.int64)


def _sequence(model: Model, mass: Floats) -> list[int]:
    """Jobs in the order of choice: running and must-run ones, then by the relaxation's mass, then by size."""
    jobs = model.instance.jobs
    return sorted(
        range(len(jobs)),
        key=lambda n: (
            jobs[n].running_site is None,
            not jobs[n].must_run,
            -round(float(mass[n]), 3),
            -jobs[n].gpus * jobs[n].slots,
        ),
    )


def _elastic_gpus(model: Model, x: Floats) -> Floats:
    """GPUs that inference and batch take in the relaxation, by site and slot."""
    taken = np.zeros((len(model.instance.sites), model.instance.slots))
    for (part, site), columns in model.routed.items():
        taken[site] += model.instance.inference[part].gpus_per_unit * x[columns]
    for (_, site), columns in model.batch.items():
        taken[site] += x[columns]
    return taken


def _best_fit(model: Model, numbers: Ints, free: Floats, score: Floats, compelled: bool, last: bool) -> int | None:
    """The most wanted start that fits and pays; a running job is placed whether it fits or not."""
    starts = model.starts
    for number in numbers:
        if score[number] < -1e-9 and not compelled:
            continue
        slot = starts.slot[number]
        room = free[starts.site[number], slot : slot + starts.length[number]].min()
        running = last and model.instance.jobs[starts.job[number]].running_site is not None
        if running or room >= starts.gpus[number] - 1e-6:
            return int(number)
    return None
