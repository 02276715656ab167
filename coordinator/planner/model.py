"""The mixed-integer program of an instance: columns, rows, and where each part stands in the solution vector.

Start-indexed jobs feed the sites' occupied GPUs and power through difference rows, ``W[t] − W[t−1] = starts −
finishes``, so that a start costs two entries however long the job. Hard limits carry a slack priced above all value.
Formulation after Zhang et al., "Carbon-Aware Compute–Power Scheduling for AI Data Centers", arXiv 2605.03751.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from coordinator.planner.exclusivity import battery_may_cheat, grid_may_cheat
from coordinator.planner.hardprices import HardPrices, hard_prices
from coordinator.planner.instance import Battery, Generator, Instance, Site, outage
from coordinator.planner.matrix import Bools, Builder, Floats, Ints, Problem
from coordinator.planner.starts import Starts, starts_of

INF: Final = np.inf


@dataclass(frozen=True, slots=True)
class SiteColumns:
    """Column numbers of one site, one a slot; None where the site has no such device."""

    occupied: Ints
    work_kw: Ints
    renewable: Ints
    imported: Ints
    exported: Ints
    unserved: Ints
    generated: Ints | None
    on: Ints | None
    charge: Ints | None
    discharge: Ints | None
    soc: Ints | None


@dataclass(frozen=True, slots=True)
class Model:
    """A problem and the meaning of its columns. ``routed`` and ``batch`` map (class, site number) to columns."""

    instance: Instance
    problem: Problem
    starts: Starts
    start_columns: Ints
    sites: tuple[SiteColumns, ...]
    routed: dict[tuple[int, int], Ints]
    dropped: tuple[Ints, ...]
    batch: dict[tuple[int, int], Ints]
    hard: Ints
    gpu_rows: Ints
    job_rows: Ints
    carbon_row: int | None


def build(instance: Instance) -> Model:
    """The model of an instance, with every part that the instance uses."""
    return _Assembly(instance).model()


class _Assembly:
    """One build: adds the parts one after the other, each in its own method."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.slots, self.hours = instance.slots, instance.slot_h
        self.prices: HardPrices = hard_prices(instance)
        self.matrix = Builder()
        self.starts = starts_of(instance)
        self.number = {site.id: index for index, site in enumerate(instance.sites)}
        self.hard: list[Ints] = []
        self.routed: dict[tuple[int, int], Ints] = {}
        self.batch: dict[tuple[int, int], Ints] = {}
        shape = (len(instance.sites), self.slots)
        self.gpu_rows = self.matrix.rows(shape, -INF, [[site.gpus] * self.slots for site in instance.sites])
        pue = np.array([site.pue for site in instance.sites])
        idle = np.array([[site.idle_kw] for site in instance.sites])
        self.pue = pue
        self.power_rows = self.matrix.rows(shape, pue * idle, pue * idle)
        self.carbon_row = self._carbon_row()

    def model(self) -> Model:
        """Everything added, as a Model."""
        start_columns, job_rows = self._jobs()
        dropped = tuple(self._inference(index) for index in range(len(self.instance.inference)))
        for index in range(len(self.instance.batch)):
            self._batch(index)
        sites = tuple(self._site(index, site) for index, site in enumerate(self.instance.sites))
        self._occupation(start_columns, sites)
        self._demand_response(sites)
        hard = np.concatenate([columns.ravel() for columns in self.hard]) if self.hard else np.empty(0, np.int64)
        return Model(
            self.instance, self.matrix.problem(), self.starts, start_columns, sites, self.routed, dropped, self.batch,
            hard, self.gpu_rows, job_rows, self.carbon_row,
        )  # fmt: skip

    def _slack(self, shape: tuple[int, ...], upper: float | Floats, price: float | Floats, hard: bool = True) -> Ints:
        columns = self.matrix.columns(shape, upper, -np.asarray(price))
        if hard:
            self.hard.append(columns)
        return columns

    def _carbon_row(self) -> int | None:
        budget = self.instance.carbon_budget_kg
        if budget is None:
            return None
        row = self.matrix.rows((1,), -INF, budget)
        soft = self.instance.carbon_excess_price_per_kg
        most = sum(self._most_carbon_kg(site) for site in self.instance.sites)
        excess = self._slack((1,), most, self.prices.per_kg if soft is None else soft, hard=soft is None)
        self.matrix.add(row, excess, -1.0)
        return int(row[0])

    def _most_carbon_kg(self, site: Site) -> float:
        generator = site.generator
        own = generator.max_kw * generator.carbon_kg_per_kwh * self.slots if generator else 0.0
        return self.hours * (own + site.grid.import_max_kw * sum(site.carbon_kg_per_kwh))

    def _emits(self, columns: Ints, kg_per_kwh: float | Floats) -> None:
        if self.carbon_row is not None:
            self.matrix.add(self.carbon_row, columns, np.multiply(self.hours, kg_per_kwh))

    def _jobs(self) -> tuple[Ints, Ints]:
        columns = self.matrix.columns((len(self.starts),), 1.0, self.starts.value, integer=True)
        jobs = self.instance.jobs
        due = [float(job.must_run or job.running_site is not None) for job in jobs]
        rows = self.matrix.rows((len(jobs),), due, 1.0)
        self.matrix.add(rows[self.starts.job], columns, 1.0)
        needed = [index for index, job in enumerate(jobs) if job.must_run and job.running_site is None]
        prices = np.array([self.prices.job(jobs[index], self.hours) for index in needed])
        self.matrix.add(rows[needed], self._slack((len(needed),), 1.0, prices), 1.0)
        return columns, rows

    def _occupation(self, columns: Ints, sites: tuple[SiteColumns, ...]) -> None:
        """Difference rows of occupied GPUs and of the jobs' power."""
        starts, shape = self.starts, (len(sites), self.slots)
        ends = starts.slot + starts.length
        inside = ends < self.slots
        for numbers, amount in (
            (np.array([site.occupied for site in sites]), starts.gpus),
            (np.array([site.work_kw for site in sites]), starts.power_kw),
        ):
            rows = self.matrix.rows(shape, 0.0, 0.0)
            self.matrix.add(rows, numbers, 1.0)
            self.matrix.add(rows[:, 1:], numbers[:, :-1], -1.0)
            self.matrix.add(rows[starts.site, starts.slot], columns, -amount)
            self.matrix.add(rows[starts.site[inside], ends[inside]], columns[inside], amount[inside])

    def _inference(self, index: int) -> Ints:
        """Route one class; its dropped units' columns."""
        item, shape = self.instance.inference[index], (self.slots,)
        demand = np.array(item.demand)
        dropped = self.matrix.columns(shape, demand, -self.hours * item.drop_penalty_per_unit_h)
        rows = self.matrix.rows(shape, demand, demand)
        self.matrix.add(rows, dropped, 1.0)
        for name, network in item.sites.items():
            site = self.number[name]
            most = np.minimum(demand, item.max_units.get(name, INF))
            columns = self.matrix.columns(shape, most, self.hours * (item.revenue_per_unit_h - network))
            self.matrix.add(rows, columns, 1.0)
            self._draws(site, columns, item.gpus_per_unit, item.kw_per_unit)
            self.routed[index, site] = columns
        return dropped

    def _draws(self, site: int, columns: Ints, gpus: float, power_kw: float) -> None:
        self.matrix.add(self.gpu_rows[site], columns, gpus)
        self.matrix.add(self.power_rows[site], columns, -self.pue[site] * power_kw)

    def _batch(self, index: int) -> None:
        """Fluid work: what is done by each slot's end lies between what has arrived and what is due."""
        item, shape = self.instance.batch[index], (self.slots,)
        done = self.matrix.columns(shape, item.arrived_gpu_h)
        rows = self.matrix.rows(shape, 0.0, 0.0)
        self.matrix.add(rows, done, 1.0)
        self.matrix.add(rows[1:], done[:-1], -1.0)
        parallel = self.matrix.rows(shape, -INF, item.max_gpus)
        for name, transfer in item.sites.items():
            site = self.number[name]
            columns = self.matrix.columns(shape, item.max_gpus, self.hours * (item.value_per_gpu_h - transfer))
            self.matrix.add(rows, columns, -self.hours)
            self.matrix.add(parallel, columns, 1.0)
            self._draws(site, columns, 1.0, item.kw_per_gpu)
            self.batch[index, site] = columns
        late = self._slack((1,), max(item.due_gpu_h), self.prices.per_gpu_h)
        due = self.matrix.rows(shape, item.due_gpu_h, INF)
        self.matrix.add(due, done, 1.0)
        self.matrix.add(due, late, 1.0)

    def _site(self, index: int, site: Site) -> SiteColumns:
        shape, work = (self.slots,), self.starts.site == index
        running = sum(job.gpus for job in self.instance.jobs if job.running_site == site.id)
        occupied = self.matrix.columns(shape, max(site.gpus, running))
        work_kw = self.matrix.columns(shape, self._most_work_kw(work, max(site.gpus, running)))
        self.matrix.add(self.gpu_rows[index], occupied, 1.0)
        self.matrix.add(self.power_rows[index], work_kw, -self.pue[index])
        if running > site.gpus:
            over = self._slack(shape, running, self.hours * self.prices.per_gpu_h)
            self.matrix.add(self.gpu_rows[index], over, -1.0)
        renewable = self.matrix.columns(shape, site.renewable_kw)
        most_kw = self.pue[index] * (site.idle_kw + self._most_work_kw(work, max(site.gpus, running)))
        unserved = self._slack(shape, most_kw, self.hours * self.prices.per_kwh)
        self.matrix.add(self.power_rows[index], renewable, 1.0)
        self.matrix.add(self.power_rows[index], unserved, 1.0)
        imported, exported = self._grid(index, site)
        generated, on = self._generator(index, site.generator) if site.generator else (None, None)
        charge, discharge, soc = self._battery(index, site, site.battery) if site.battery else (None, None, None)
        return SiteColumns(
            occupied, work_kw, renewable, imported, exported, unserved, generated, on, charge, discharge, soc
        )

    def _most_work_kw(self, here: Bools, gpus: float) -> float:
        """Above what jobs can draw at once: the hungriest job's kW per GPU on all GPUs."""
        starts = self.starts
        power, each = starts.power_kw[here], starts.gpus[here]
        if not len(power):
            return 0.0
        free = {int(job): float(kw) for job, kw, g in zip(starts.job[here], power, each, strict=True) if g <= 0}
        dense = power[each > 0] / each[each > 0]
        return gpus * float(dense.max(initial=0.0)) + sum(free.values())

    def _grid(self, index: int, site: Site) -> tuple[Ints, Ints]:
        shape, grid = (self.slots,), site.grid
        away = np.array([outage(site, slot) for slot in range(self.slots)])
        import_kw, export_kw = (np.where(away, 0.0, most) for most in (grid.import_max_kw, grid.export_max_kw))
        carbon = np.array(site.carbon_kg_per_kwh)
        buy = np.array(site.buy_price_per_kwh) + self.instance.carbon_price_per_kg * carbon
        imported = self.matrix.columns(shape, import_kw, -self.hours * buy)
        exported = self.matrix.columns(shape, export_kw, self.hours * np.array(site.sell_price_per_kwh))
        self.matrix.add(self.power_rows[index], imported, 1.0)
        self.matrix.add(self.power_rows[index], exported, -1.0)
        self._emits(imported, carbon)
        self._exclusive(grid_may_cheat(self.instance, site), imported, import_kw, exported, export_kw)
        if grid.demand_charge_per_kw > 0:
            most = max(0.0, grid.import_max_kw - grid.peak_so_far_kw)
            above = self.matrix.columns((1,), most, -grid.demand_charge_per_kw)
            rows = self.matrix.rows(shape, -INF, grid.peak_so_far_kw)
            self.matrix.add(rows, imported, 1.0)
            self.matrix.add(rows, above, -1.0)
        return imported, exported

    def _exclusive(self, where: Bools, one: Ints, one_most: Floats, other: Ints, other_most: Floats) -> None:
        """In the slots of ``where``, only one of the two may be above 0."""
        count = int(where.sum())
        if not count:
            return
        first = self.matrix.columns((count,), 1.0, integer=True)
        rows = self.matrix.rows((count,), -INF, 0.0)
        self.matrix.add(rows, one[where], 1.0)
        self.matrix.add(rows, first, -one_most[where])
        rows = self.matrix.rows((count,), -INF, other_most[where])
        self.matrix.add(rows, other[where], 1.0)
        self.matrix.add(rows, first, other_most[where])

    def _generator(self, index: int, generator: Generator) -> tuple[Ints, Ints]:
        shape = (self.slots,)
        per_kwh = generator.cost_per_kwh + self.instance.carbon_price_per_kg * generator.carbon_kg_per_kwh
        generated = self.matrix.columns(shape, generator.max_kw, -self.hours * per_kwh)
        on = self.matrix.columns(shape, 1.0, integer=True)
        started = self.matrix.columns(shape, 1.0, -generator.start_cost)
        self.matrix.add(self.power_rows[index], generated, 1.0)
        self._emits(generated, generator.carbon_kg_per_kwh)
        for limit_kw, side in ((generator.max_kw, 1.0), (generator.min_kw, -1.0)):
            rows = self.matrix.rows(shape, -INF, 0.0)
            self.matrix.add(rows, generated, side)
            self.matrix.add(rows, on, -side * limit_kw)
        before = np.zeros(self.slots)
        before[0] = float(generator.initially_on)
        rows = self.matrix.rows(shape, -INF, before)
        self.matrix.add(rows, on, 1.0)
        self.matrix.add(rows[1:], on[:-1], -1.0)
        self.matrix.add(rows, started, -1.0)
        if generator.ramp_kw_per_slot is not None:
            self._ramp(generator, generator.ramp_kw_per_slot, generated, on, started)
        return generated, on

    def _ramp(self, generator: Generator, ramp_kw: float, generated: Ints, on: Ints, started: Ints) -> None:
        """Between running slots at most the ramp; a start reaches the minimum at once, a stop comes from anywhere."""
        rows = self.matrix.rows((self.slots - 1,), -INF, ramp_kw)
        self.matrix.add(rows, generated[1:], 1.0)
        self.matrix.add(rows, generated[:-1], -1.0)
        self.matrix.add(rows, started[1:], -generator.min_kw)
        rows = self.matrix.rows((self.slots - 1,), -INF, ramp_kw)
        self.matrix.add(rows, generated[:-1], 1.0)
        self.matrix.add(rows, generated[1:], -1.0)
        self.matrix.add(rows, on[:-1], -generator.max_kw)
        self.matrix.add(rows, on[1:], generator.max_kw)
        self.matrix.add(rows, started[1:], -generator.max_kw)
        for other in (on[1:], None):  # a start is one only where the slot is on and the one before was off
            rows = self.matrix.rows((self.slots - 1,), -INF, 0.0 if other is not None else 1.0)
            self.matrix.add(rows, started[1:], 1.0)
            self.matrix.add(rows, on[:-1] if other is None else other, 1.0 if other is None else -1.0)

    def _battery(self, index: int, site: Site, battery: Battery) -> tuple[Ints, Ints, Ints]:
        shape = (self.slots,)
        wear = -self.hours * battery.wear_per_kwh
        charge = self.matrix.columns(shape, battery.power_kw, wear)
        discharge = self.matrix.columns(shape, battery.power_kw, wear)
        floor = min(battery.min_kwh, battery.initial_kwh)
        soc = self.matrix.columns(shape, battery.capacity_kwh, lower=floor)
        self.matrix.add(self.power_rows[index], charge, -1.0)
        self.matrix.add(self.power_rows[index], discharge, 1.0)
        before = np.zeros(self.slots)
        before[0] = battery.initial_kwh
        rows = self.matrix.rows(shape, before, before)
        self.matrix.add(rows, soc, 1.0)
        self.matrix.add(rows[1:], soc[:-1], -1.0)
        self.matrix.add(rows, charge, -self.hours * battery.charge_efficiency)
        self.matrix.add(rows, discharge, self.hours / battery.discharge_efficiency)
        short = self._slack((1,), battery.capacity_kwh, self.prices.per_kwh)
        final = self.matrix.rows((1,), battery.final_min_kwh, INF)
        self.matrix.add(final, soc[-1:], 1.0)
        self.matrix.add(final, short, 1.0)
        if floor < battery.min_kwh:
            below = self._slack(shape, battery.min_kwh, self.prices.per_kwh)
            rows = self.matrix.rows(shape, battery.min_kwh, INF)
            self.matrix.add(rows, soc, 1.0)
            self.matrix.add(rows, below, 1.0)
        power = np.full(self.slots, battery.power_kw)
        self._exclusive(battery_may_cheat(self.instance, site), charge, power, discharge, power)
        return charge, discharge, soc

    def _demand_response(self, sites: tuple[SiteColumns, ...]) -> None:
        for signal in self.instance.demand_response:
            within = slice(signal.start_slot, min(signal.end_slot, self.slots))
            imported = sites[self.number[signal.site]].imported[within]
            price = self.prices.per_kwh if signal.firm else signal.price_per_kwh
            down = signal.direction == "down"
            most = max(signal.limit_kw, self.instance.sites[self.number[signal.site]].grid.import_max_kw)
            beside = self._slack(imported.shape, most, self.hours * price, hard=signal.firm)
            rows = self.matrix.rows(imported.shape, -INF if down else signal.limit_kw, signal.limit_kw if down else INF)
            self.matrix.add(rows, imported, 1.0)
            self.matrix.add(rows, beside, -1.0 if down else 1.0)
