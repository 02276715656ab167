"""The start columns: one for each way, site and slot in which a job may begin."""

from dataclasses import dataclass

import numpy as np

from coordinator.planner.instance import Candidate, Instance, Job, candidates
from coordinator.planner.matrix import Floats, Ints


@dataclass(frozen=True, slots=True)
class Starts:
    """Parallel arrays, one entry a start; ``way`` numbers ``ways``, the candidates in order."""

    job: Ints
    site: Ints
    slot: Ints
    length: Ints
    gpus: Floats
    power_kw: Floats
    value: Floats
    way: Ints
    ways: tuple[Candidate, ...]

    def __len__(self) -> int:
        return len(self.job)


def starts_of(instance: Instance) -> Starts:
    """All starts of all jobs; the value is that of the finished job less lateness and transfer."""
    site_number = {site.id: number for number, site in enumerate(instance.sites)}
    ways = [(number, job, way) for number, job in enumerate(instance.jobs) for way in candidates(job, instance.slots)]
    counts = np.array([way.last_start - way.first_start + 1 for _, _, way in ways], dtype=np.int64)
    way_of = np.repeat(np.arange(len(ways)), counts)
    first = np.array([way.first_start for _, _, way in ways], dtype=np.int64)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    slot = first[way_of] + within
    base, lateness = _values([(job, way) for _, job, way in ways])
    release = np.array([job.release_slot if job.running_site is None else 0 for _, job, _ in ways], dtype=np.int64)
    return Starts(
        np.array([number for number, _, _ in ways], dtype=np.int64)[way_of],
        np.array([site_number[way.site] for _, _, way in ways], dtype=np.int64)[way_of],
        slot,
        np.array([way.slots for _, _, way in ways], dtype=np.int64)[way_of],
        np.array([job.gpus for _, job, _ in ways], dtype=float)[way_of],
        np.array([way.power_kw for _, _, way in ways], dtype=float)[way_of],
        base[way_of] - lateness[way_of] * (slot - release[way_of]),
        way_of,
        tuple(way for _, _, way in ways),
    )


def _values(ways: list[tuple[Job, Candidate]]) -> tuple[Floats, Floats]:
    base = [job.value - job.transfer_cost.get(way.site, 0.0) for job, way in ways]
    return np.array(base, dtype=float), np.array([job.lateness_per_slot for job, _ in ways], dtype=float)
