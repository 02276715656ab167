"""Why a job runs there and then, and what it would have cost elsewhere: the rest of the plan adapts, by the solver."""

from dataclasses import dataclass

from msgspec.structs import replace

from coordinator.planner.account import job_value
from coordinator.planner.instance import Candidate, Instance, Job, candidates
from coordinator.planner.plan import Placement, Plan
from coordinator.planner.solve import breach_cost, solve


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way for one job: what the whole plan would lose by it, in currency; below 0 it would gain."""

    site: str | None
    start_slot: int | None
    level: str | None
    loss: float
    broken: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a job runs in a plan, what it is worth there, and its alternatives, the least loss first."""

    job: Job
    placed: Placement | None
    worth: float
    alternatives: tuple[Alternative, ...]


def explain(instance: Instance, plan: Plan, job_id: str, time_limit_s: float) -> Explanation:
    """The explanation of one job; KeyError where the instance has no such job.

    All other jobs are held where the plan has them; requests, batteries, generators and grid adapt.
    """
    job = next((job for job in instance.jobs if job.id == job_id), None)
    if job is None:
        raise KeyError(job_id)
    placed = next((placement for placement in plan.jobs if placement.id == job_id), None)
    held = _held(instance, plan, job_id)
    choices = _choices(job, placed, instance.slots)
    share_s = max(0.5, time_limit_s / (len(choices) + 1))
    here, _ = _value(_forced(held, job, _way(job, placed, instance.slots), placed), share_s)
    found = []
    for way, start in choices:
        value, broken = _value(_forced(held, job, way, start), share_s)
        name, slot = (None, None) if start is None else (start.site, start.start_slot)
        found.append(Alternative(name, slot, None if start is None else start.level, here - value, broken))
    worth = job_value(job, placed) if placed else 0.0
    return Explanation(job, placed, worth, tuple(sorted(found, key=lambda other: other.loss)))


def _choices(job: Job, placed: Placement | None, slots: int) -> list[tuple[Candidate | None, Placement | None]]:
    """Other ways: each site at the planned slot, or at its nearest allowed one; earliest and latest; not at all."""
    wanted: dict[Placement, Candidate] = {}
    for way in candidates(job, slots):
        near = way.first_start if placed is None else min(max(placed.start_slot, way.first_start), way.last_start)
        for slot in dict.fromkeys((near, way.first_start, way.last_start)):
            if way.level is None or slot == near:
                wanted[Placement(id=job.id, site=way.site, start_slot=slot, level=way.level)] = way
    choices: list[tuple[Candidate | None, Placement | None]] = [
        (way, start) for start, way in wanted.items() if start != placed
    ]
    return choices if placed is None else [*choices, (None, None)]


def _way(job: Job, placed: Placement | None, slots: int) -> Candidate | None:
    if placed is None:
        return None
    return next(way for way in candidates(job, slots) if (way.site, way.level) == (placed.site, placed.level))


def _held(instance: Instance, plan: Plan, free: str) -> Instance:
    """The instance in which every other job stands where the plan has it, or is gone."""
    jobs = {job.id: job for job in instance.jobs}
    kept = []
    for placed in plan.jobs:
        job = jobs[placed.id]
        if job.id != free:
            way = _way(job, placed, instance.slots)
            kept.append(job if way is None else _pinned(job, way, placed))
    return replace(instance, jobs=tuple(kept))


def _pinned(job: Job, way: Candidate, placed: Placement) -> Job:
    """A job with one way and one start, worth what it is worth there, that must run."""
    if job.running_site is not None:
        return job
    return replace(
        job,
        sites=(way.site,),
        slots=way.slots,
        power_kw=way.power_kw,
        levels=(),
        release_slot=placed.start_slot,
        deadline_slot=placed.start_slot + way.slots,
        value=job_value(job, placed) + job.transfer_cost.get(way.site, 0.0),
        must_run=True,
    )


def _forced(held: Instance, job: Job, way: Candidate | None, start: Placement | None) -> Instance:
    if way is None or start is None:
        return held
    return replace(held, jobs=(*held.jobs, _pinned(job, way, start)))


def _value(instance: Instance, time_limit_s: float) -> tuple[float, int]:
    """What the instance's best plan is worth once broken limits are paid, and how many it breaks."""
    outcome = solve(instance, time_limit_s, gap=1e-5)
    return outcome.plan.objective - breach_cost(instance, outcome.verdict), len(outcome.plan.broken)
