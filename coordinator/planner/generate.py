"""Seeded planning instances of any size, alike in kind to published studies of joint compute and power scheduling.

``load`` 1 occupies some 28 % of all GPUs over the horizon if everything is done; from about 2 on, jobs contend.
The same arguments give the same instance on every machine.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from coordinator.planner.account import account_of
from coordinator.planner.fallback import fallback_plan
from coordinator.planner.instance import (
    SCHEMA,
    Batch,
    Battery,
    CapLevel,
    DemandResponse,
    Generator,
    Grid,
    Inference,
    Instance,
    Job,
    Site,
    Window,
)

JOB_SHARE: Final = 0.09
INFERENCE_SHARE: Final = 0.19
IDLE_KW_PER_GPU: Final = 0.105
ACTIVE_KW_PER_GPU: Final = 0.56
HORIZON_H: Final = 24.0

_SIZES: Final = (8, 16, 32, 64, 128, 256)
_SIZE_WEIGHTS: Final = (25, 30, 20, 14, 9, 2)


@dataclass(frozen=True, slots=True)
class Size:
    """How large an instance is to be, and how it is to be made."""

    sites: int = 3
    slots: int = 24
    jobs: int = 6
    classes: int = 3
    load: float = 1.0
    budget_share: float | None = 0.85
    battery: float = 1.0
    renewables: float = 1.0
    price_spread: float = 1.0
    negative_prices: bool = False
    extras: bool = False


def generate(size: Size, seed: int, name: str | None = None) -> Instance:
    """The instance of that size and seed."""
    draw = _Draw(size, random.Random(seed))
    instance = draw.instance(name or f"{size.sites}-{size.slots}-{size.jobs}-{size.classes}-seed-{seed}")
    if size.budget_share is None:
        return instance
    unbound = account_of(instance, fallback_plan(instance)).emissions_kg
    return msgspec.structs.replace(instance, carbon_budget_kg=_round(unbound * size.budget_share))


class _Draw:
    """One instance drawn, part by part, always in the same order."""

    def __init__(self, size: Size, rng: random.Random) -> None:
        self._size, self._rng = size, rng
        self._slot_h = HORIZON_H / size.slots
        self._names = [f"site-{number}" for number in range(size.sites)]

    def instance(self, name: str) -> Instance:
        """All parts together; the carbon budget is still open."""
        jobs = tuple(self._job(number) for number in range(self._size.jobs))
        largest = max((job.gpus for job in jobs), default=8.0)
        work = sum(job.gpus * job.slots for job in jobs) / self._size.slots
        total = max(work / (JOB_SHARE * self._size.load), 100.0 * self._size.sites)
        weights = [self._rng.uniform(0.6, 1.4) for _ in self._names]
        gpus = [max(largest, round(total * weight / sum(weights))) for weight in weights]
        sites = tuple(self._site(site, float(size)) for site, size in zip(self._names, gpus, strict=True))
        share = sum(gpus) * INFERENCE_SHARE * self._size.load / max(1, self._size.classes)
        return Instance(
            schema=SCHEMA,
            name=name,
            slot_h=self._slot_h,
            slots=self._size.slots,
            sites=sites,
            jobs=jobs,
            inference=tuple(self._class(number, share) for number in range(self._size.classes)),
            carbon_budget_kg=None,
            batch=(self._batch(sum(gpus)),) if self._size.extras else (),
            demand_response=self._signals(sites) if self._size.extras else (),
        )

    def _job(self, number: int) -> Job:
        slots, rng = self._size.slots, self._rng
        gpus = float(rng.choices(_SIZES, _SIZE_WEIGHTS)[0])
        length = min(max(1, round(rng.lognormvariate(1.1, 0.6) / self._slot_h)), max(1, slots // 2))
        slack = min(round(rng.expovariate(1 / 5.0) / self._slot_h), slots - length)
        release = rng.randint(0, slots - length - slack)
        value = gpus * length * self._slot_h * rng.uniform(0.3, 1.2)
        power_kw = gpus * rng.uniform(0.47, 0.69)
        eligible = sorted(rng.sample(self._names, rng.randint(max(1, len(self._names) // 2), len(self._names))))
        levels: tuple[CapLevel, ...] = ()
        if self._size.extras and rng.random() < 0.3:
            levels = (CapLevel(name="cap-70", slots=math.ceil(length * 1.2), power_kw=_round(0.7 * power_kw)),)
        return Job(
            id=f"job-{number:03}",
            gpus=gpus,
            slots=length,
            release_slot=release,
            deadline_slot=release + length + slack,
            value=_round(value),
            lateness_per_slot=_round(value * 0.0042 * self._slot_h),
            power_kw=_round(power_kw),
            sites=tuple(eligible),
            levels=levels,
        )

    def _class(self, number: int, share: float) -> Inference:
        rng = self._rng
        gpus_per_unit = rng.uniform(0.06, 0.4)
        revenue = gpus_per_unit * rng.uniform(0.8, 1.9)
        mean = share / gpus_per_unit * rng.uniform(0.5, 1.5)
        served = sorted(rng.sample(self._names, rng.randint(1, len(self._names))))
        return Inference(
            id=f"class-{number:02}",
            demand=self._day(mean, 0.7, noise=0.08),
            gpus_per_unit=_round(gpus_per_unit),
            kw_per_unit=_round(gpus_per_unit * ACTIVE_KW_PER_GPU),
            revenue_per_unit_h=_round(revenue),
            drop_penalty_per_unit_h=_round(revenue / 2),
            sites={site: _round(revenue * rng.uniform(0.001, 0.02)) for site in served},
        )

    def _site(self, name: str, gpus: float) -> Site:
        rng, size = self._rng, self._size
        peak_kw = 1.3 * gpus * (IDLE_KW_PER_GPU + ACTIVE_KW_PER_GPU)
        mean_price = rng.uniform(0.06, 0.15)
        buy = self._day(mean_price, 0.25 * size.price_spread, noise=0.08, signed=True)
        if size.negative_prices:
            buy = tuple(_round(price - 1.2 * mean_price * (rng.random() < 0.3)) for price in buy)
        return Site(
            id=name,
            gpus=gpus,
            idle_kw=_round(IDLE_KW_PER_GPU * gpus),
            pue=tuple(_round(1.0 + share) for share in self._day(rng.uniform(0.1, 0.3), 0.3, noise=0.0)),
            buy_price_per_kwh=buy,
            sell_price_per_kwh=tuple(_round(0.7 * price if price > 0 else 1.1 * price) for price in buy),
            carbon_kg_per_kwh=self._day(rng.uniform(0.12, 0.6), 0.3, noise=0.01),
            renewable_kw=self._day(gpus * rng.uniform(0.15, 0.4) * size.renewables, 0.8, noise=0.15),
            generator=self._generator(gpus) if rng.random() < 0.8 else None,
            grid=Grid(
                import_max_kw=_round(peak_kw * 1.68),
                export_max_kw=_round(peak_kw * 0.84),
                demand_charge_per_kw=0.05 if size.extras else 0.0,
            ),
            battery=self._battery(gpus) if size.battery > 0 else None,
            outages=self._outages(),
        )

    def _generator(self, gpus: float) -> Generator:
        most = gpus * 0.455
        return Generator(
            max_kw=_round(most),
            min_kw=_round(0.4 * most),
            cost_per_kwh=0.14,
            start_cost=_round(0.02 * most),
            carbon_kg_per_kwh=0.45,
            ramp_kw_per_slot=_round(0.5 * most) if self._size.extras else None,
        )

    def _battery(self, gpus: float) -> Battery:
        capacity = gpus * self._rng.uniform(0.3, 0.85) * self._size.battery
        return Battery(
            capacity_kwh=_round(capacity),
            power_kw=_round(capacity * self._rng.choice((0.25, 0.5))),
            charge_efficiency=0.95,
            discharge_efficiency=0.95,
            initial_kwh=_round(capacity / 2),
            min_kwh=_round(capacity / 10),
            final_min_kwh=_round(capacity / 2),
            wear_per_kwh=0.004,
        )

    def _outages(self) -> tuple[Window, ...]:
        slots = self._size.slots
        if not self._size.extras or slots < 6 or self._rng.random() < 0.6:
            return ()
        start = self._rng.randint(1, slots - 3)
        return (Window(start_slot=start, end_slot=start + 2),)

    def _batch(self, gpus: int | float) -> Batch:
        """Work that arrives over the first half of the day and is due by its end."""
        slots = self._size.slots
        total = 0.05 * gpus * HORIZON_H
        return Batch(
            id="batch-0",
            kw_per_gpu=0.5,
            max_gpus=0.3 * gpus,
            value_per_gpu_h=0.4,
            arrived_gpu_h=tuple(_round(total * min(1.0, 2 * (slot + 1) / slots)) for slot in range(slots)),
            due_gpu_h=tuple(_round(total * max(0.0, (2 * (slot + 1) - slots) / slots)) for slot in range(slots)),
            sites=dict.fromkeys(self._names, 0.01),
        )

    def _signals(self, sites: Sequence[Site]) -> tuple[DemandResponse, ...]:
        slots = self._size.slots
        start = self._rng.randint(0, max(0, slots - 3))
        site = sites[self._rng.randrange(len(sites))]
        limit_kw = _round(0.2 * site.grid.import_max_kw)
        return (
            DemandResponse(
                id="signal-0",
                site=site.id,
                start_slot=start,
                end_slot=min(slots, start + 3),
                direction="down",
                limit_kw=limit_kw,
                price_per_kwh=0.8,
                firm=False,
            ),
        )

    def _day(self, mean: float, swing: float, noise: float, signed: bool = False) -> tuple[float, ...]:
        """A series with one swing a day at a random hour, and noise; not below 0 unless signed."""
        peak = self._rng.random()
        values = []
        for slot in range(self._size.slots):
            wave = 1.0 + swing * math.sin(2 * math.pi * (slot / self._size.slots - peak))
            values.append(mean * (wave + self._rng.gauss(0.0, noise)))
        return tuple(_round(value if signed else max(0.0, value)) for value in values)


def _round(value: float) -> float:
    return round(value, 6)
