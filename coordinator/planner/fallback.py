"""A plan without a solver, in a fraction of a second: jobs and requests where they are cheapest now, within all limits.

Batteries rest unless they must be filled, generators rest. It stands until the solver has found something better, and
where the solver fails.
"""

from dataclasses import dataclass, field
from typing import Final

from coordinator.planner.account import stated
from coordinator.planner.instance import Batch, Candidate, Inference, Instance, Job, Site, candidates, outage
from coordinator.planner.plan import Placement, Plan, SitePlan

Routes = dict[str, dict[str, list[float]]]

STARTS_TRIED: Final = 20_000


def trivial_bound(instance: Instance) -> float:
    """An upper bound on any plan's objective: all work done for nothing, all connections used at their best."""
    hours = instance.slot_h
    total = sum(max(0.0, job.value) for job in instance.jobs)
    for item in instance.inference:
        best = max((item.revenue_per_unit_h - network for network in item.sites.values()), default=0.0)
        total += hours * max(0.0, best) * sum(item.demand)
    for batch in instance.batch:
        best = max((batch.value_per_gpu_h - transfer for transfer in batch.sites.values()), default=0.0)
        total += max(0.0, best) * max(batch.arrived_gpu_h)
    for site in instance.sites:
        sold = site.grid.export_max_kw * sum(max(0.0, price) for price in site.sell_price_per_kwh)
        bought = site.grid.import_max_kw * sum(max(0.0, -price) for price in site.buy_price_per_kwh)
        total += hours * (sold + bought)
        if site.generator:
            total += hours * instance.slots * site.generator.max_kw * max(0.0, -site.generator.cost_per_kwh)
    return total


def fallback_plan(instance: Instance) -> Plan:
    """A plan by rules alone; bound, gap and time are left open."""
    return _Rules(instance).plan()


@dataclass(slots=True)
class _Room:
    """What is left at one site, a slot each; powers at the bus."""

    site: Site
    gpus: list[float]
    renewable_kw: list[float]
    import_kw: list[float]
    imported_kw: list[float]
    unserved_kw: list[float]
    charge_kw: list[float] = field(default_factory=list)


class _Rules:
    """One pass: idle power and running jobs, batteries, then jobs by value per GPU-hour, then requests and batch."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._hours = instance.slot_h
        budget = instance.carbon_budget_kg
        self._kg_left = float("inf") if budget is None else budget * (1 - 1e-9)
        self._rooms = {site.id: self._room(site) for site in instance.sites}
        self._placed: list[Placement] = []
        self._routed = _idle(instance.slots, {item.id: item.sites for item in instance.inference})
        self._worked = _idle(instance.slots, {batch.id: batch.sites for batch in instance.batch})

    def plan(self) -> Plan:
        """The pass, as a plan."""
        instance = self._instance
        for room in self._rooms.values():
            for slot in range(instance.slots):
                self._draw(room, slot, room.site.pue[slot] * room.site.idle_kw, forced=True)
            self._fill(room)
        self._respond()
        for job in sorted(instance.jobs, key=_eagerness):
            self._place(job)
        for batch in instance.batch:
            self._work_off(batch)
        for item in sorted(instance.inference, key=_density, reverse=True):
            self._route(item)
        return self._assembled()

    def _room(self, site: Site) -> _Room:
        slots = self._instance.slots
        most = [0.0 if outage(site, slot) else site.grid.import_max_kw for slot in range(slots)]
        for signal in self._instance.demand_response:
            if signal.site == site.id and signal.direction == "down" and signal.firm:
                for slot in range(signal.start_slot, min(signal.end_slot, slots)):
                    most[slot] = min(most[slot], signal.limit_kw)
        zero = [0.0] * slots
        return _Room(
            site, [site.gpus] * slots, list(site.renewable_kw), most, list(zero), list(zero), charge_kw=list(zero)
        )

    def _draw(self, room: _Room, slot: int, power_kw: float, forced: bool = False) -> None:
        """Take power at the bus: renewable, then imported; what is forced beyond both goes unserved."""
        own = min(power_kw, room.renewable_kw[slot])
        bought = min(power_kw - own, room.import_kw[slot])
        room.renewable_kw[slot] -= own
        room.import_kw[slot] -= bought
        room.imported_kw[slot] += bought
        self._kg_left -= self._hours * bought * room.site.carbon_kg_per_kwh[slot]
        if forced:
            room.unserved_kw[slot] += power_kw - own - bought

    def _fill(self, room: _Room) -> None:
        """Charge what the battery's least and final energy ask for, as early as there is power."""
        battery = room.site.battery
        if battery is None:
            return
        missing = max(battery.final_min_kwh, battery.min_kwh) - battery.initial_kwh
        for slot in range(self._instance.slots):
            if missing <= 1e-9:
                return
            most = min(battery.power_kw, missing / battery.charge_efficiency / self._hours)
            power_kw = min(most, room.renewable_kw[slot] + room.import_kw[slot])
            self._draw(room, slot, power_kw)
            room.charge_kw[slot] = power_kw
            missing -= self._hours * battery.charge_efficiency * power_kw

    def _respond(self) -> None:
        """Where a firm signal asks for import, import instead of using own renewable power."""
        for signal in self._instance.demand_response:
            if signal.direction == "up" and signal.firm:
                room = self._rooms[signal.site]
                for slot in range(signal.start_slot, min(signal.end_slot, self._instance.slots)):
                    used = room.site.renewable_kw[slot] - room.renewable_kw[slot]
                    swap = max(0.0, min(used, room.import_kw[slot], signal.limit_kw - room.imported_kw[slot]))
                    room.renewable_kw[slot] += swap
                    room.import_kw[slot] -= swap
                    room.imported_kw[slot] += swap
                    self._kg_left -= self._hours * swap * room.site.carbon_kg_per_kwh[slot]

    def _place(self, job: Job) -> None:
        """The job's start of most value less energy, if any fits and pays."""
        best: tuple[float, int, Candidate] | None = None
        forced = job.running_site is not None
        ways = candidates(job, self._instance.slots)
        tries = max(1, STARTS_TRIED // (len(self._instance.jobs) * max(1, len(ways))))
        for way in ways:
            stride = -(-(way.last_start - way.first_start + 1) // tries)
            for start in range(way.first_start, way.last_start + 1, stride):
                worth = self._worth(job, way, start)
                if worth is not None and (best is None or worth > best[0]):
                    best = (worth, start, way)
            if forced and best is None:
                best = (0.0, 0, way)
        if best is None or (best[0] <= 0 and not (forced or job.must_run)):
            return
        _, start, way = best
        room = self._rooms[way.site]
        for slot in range(start, start + way.slots):
            room.gpus[slot] -= job.gpus
            self._draw(room, slot, room.site.pue[slot] * way.power_kw, forced=True)
        self._placed.append(Placement(id=job.id, site=way.site, start_slot=start, level=way.level))

    def _worth(self, job: Job, way: Candidate, start: int) -> float | None:
        """Value less energy of one start, or None where it does not fit."""
        room = self._rooms[way.site]
        site = room.site
        cost, emitted = 0.0, 0.0
        for slot in range(start, start + way.slots):
            bought = max(0.0, site.pue[slot] * way.power_kw - room.renewable_kw[slot])
            if room.gpus[slot] < job.gpus or bought > room.import_kw[slot]:
                return None
            cost += self._hours * bought * site.buy_price_per_kwh[slot]
            emitted += self._hours * bought * site.carbon_kg_per_kwh[slot]
        if emitted > self._kg_left:
            return None
        late = job.lateness_per_slot * (start - job.release_slot)
        return job.value - job.transfer_cost.get(way.site, 0.0) - late - cost

    def _route(self, item: Inference) -> None:
        for slot, demand in enumerate(item.demand):
            left = demand
            for name in sorted(item.sites, key=lambda site: self._unit_cost(item, site, slot)):
                if left <= 0:
                    break
                room = self._rooms[name]
                spare = self._spare(room, slot, item.gpus_per_unit, item.kw_per_unit)
                units = min(left, item.max_units.get(name, left), spare)
                if self._unit_cost(item, name, slot) < item.revenue_per_unit_h + item.drop_penalty_per_unit_h:
                    self._take(room, slot, units, item.gpus_per_unit, item.kw_per_unit)
                    self._routed[item.id][name][slot] = units
                    left -= units

    def _unit_cost(self, item: Inference, site: str, slot: int) -> float:
        room = self._rooms[site]
        power_kw = room.site.pue[slot] * item.kw_per_unit
        return item.sites[site] + power_kw * (0.0 if room.renewable_kw[slot] > 0 else room.site.buy_price_per_kwh[slot])

    def _spare(self, room: _Room, slot: int, gpus: float, power_kw: float) -> float:
        """How many units still fit: GPUs, power and carbon."""
        at_bus_kw = room.site.pue[slot] * power_kw
        fits = room.gpus[slot] / gpus if gpus > 0 else float("inf")
        if at_bus_kw > 0:
            kg_per_kw = self._hours * room.site.carbon_kg_per_kwh[slot]
            clean = max(0.0, self._kg_left) / kg_per_kw if kg_per_kw > 0 else float("inf")
            fits = min(fits, (room.renewable_kw[slot] + min(room.import_kw[slot], clean)) / at_bus_kw)
        return max(0.0, fits)

    def _take(self, room: _Room, slot: int, units: float, gpus: float, power_kw: float) -> None:
        room.gpus[slot] -= units * gpus
        self._draw(room, slot, units * room.site.pue[slot] * power_kw)

    def _work_off(self, batch: Batch) -> None:
        """Work as soon as it has arrived, at the sites in order of transfer cost."""
        done = 0.0
        for slot, arrived in enumerate(batch.arrived_gpu_h):
            left = min(batch.max_gpus, (arrived - done) / self._hours)
            for name in sorted(batch.sites, key=batch.sites.__getitem__):
                room = self._rooms[name]
                gpus = max(0.0, min(left, self._spare(room, slot, 1.0, batch.kw_per_gpu)))
                self._take(room, slot, gpus, 1.0, batch.kw_per_gpu)
                self._worked[batch.id][name][slot] = gpus
                left -= gpus
                done += self._hours * gpus

    def _assembled(self) -> Plan:
        instance = self._instance
        routing = {item.id: _frozen(self._routed[item.id]) for item in instance.inference}
        dropped = {
            item.id: tuple(
                demand - sum(units[slot] for units in routing[item.id].values())
                for slot, demand in enumerate(item.demand)
            )
            for item in instance.inference
        }
        plan = Plan(
            instance=instance.name,
            objective=0.0,
            bound=None,
            gap=None,
            method="rules",
            wall_s=0.0,
            emissions_kg=0.0,
            shadow_carbon_price=None,
            jobs=tuple(self._placed),
            routing=routing,
            dropped={name: tuple(max(0.0, units) for units in series) for name, series in dropped.items()},
            sites={name: self._site_plan(room) for name, room in self._rooms.items()},
            batch={item.id: _frozen(self._worked[item.id]) for item in instance.batch},
        )
        return stated(instance, plan)

    def _site_plan(self, room: _Room) -> SitePlan:
        site, slots = room.site, self._instance.slots
        zero = (0.0,) * slots
        exported, used = [], []
        for slot in range(slots):
            sells = site.sell_price_per_kwh[slot] > 0 and not outage(site, slot) and room.imported_kw[slot] <= 0
            surplus = min(room.renewable_kw[slot], site.grid.export_max_kw) if sells else 0.0
            exported.append(surplus)
            used.append(site.renewable_kw[slot] - room.renewable_kw[slot] + surplus)
        soc, energy = [], site.battery.initial_kwh if site.battery else 0.0
        for power_kw in room.charge_kw:
            energy += self._hours * (site.battery.charge_efficiency if site.battery else 0.0) * power_kw
            soc.append(energy)
        return SitePlan(
            renewable_kw=tuple(used),
            generator_kw=zero,
            generator_on=(0,) * slots,
            import_kw=tuple(room.imported_kw),
            export_kw=tuple(exported),
            charge_kw=tuple(room.charge_kw),
            discharge_kw=zero,
            soc_kwh=tuple(soc),
            unserved_kw=tuple(room.unserved_kw) if max(room.unserved_kw) > 1e-9 else (),
        )


def _idle(slots: int, sites: dict[str, dict[str, float]]) -> Routes:
    """Nothing yet, for each flow and each of its sites."""
    return {name: {site: [0.0] * slots for site in eligible} for name, eligible in sites.items()}


def _frozen(routes: dict[str, list[float]]) -> dict[str, tuple[float, ...]]:
    return {site: tuple(units) for site, units in routes.items()}


def _eagerness(job: Job) -> tuple[bool, bool, float]:
    size = max(1e-9, job.gpus * job.slots)
    return (job.running_site is None, not job.must_run, -job.value / size)


def _density(item: Inference) -> float:
    return (item.revenue_per_unit_h + item.drop_penalty_per_unit_h) / max(1e-9, item.kw_per_unit)
