"""What a plan earns, costs and emits, by plain arithmetic over the instance: the model has no part in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from coordinator.planner.instance import DemandResponse, Instance, Job, Site
from coordinator.planner.plan import Placement, Plan, SitePlan


@dataclass(frozen=True, slots=True)
class Account:
    """Currency unless the name says otherwise; costs and penalties are ≥ 0 where they cost."""

    job_value: float
    inference_value: float
    batch_value: float
    drop_penalty: float
    import_cost: float
    export_revenue: float
    demand_charge: float
    generation_cost: float
    wear_cost: float
    carbon_cost: float
    response_cost: float
    emissions_kg: float
    jobs_run: int
    delay_slots: int
    units_asked: float
    units_served: float
    renewable_kwh: float
    renewable_offered_kwh: float

    @property
    def compute_value(self) -> float:
        """What finished and served work is worth, in currency."""
        return self.job_value + self.inference_value + self.batch_value

    @property
    def energy_cash(self) -> float:
        """What energy earns (+) or costs (−), in currency."""
        return self.export_revenue - self.import_cost - self.demand_charge - self.generation_cost - self.wear_cost

    @property
    def penalties(self) -> float:
        """What dropped requests, carbon and refused signals cost, in currency."""
        return self.drop_penalty + self.carbon_cost + self.response_cost

    @property
    def benefit(self) -> float:
        """The objective, in currency."""
        return self.compute_value + self.energy_cash - self.penalties

    @property
    def served_share(self) -> float:
        """Requests served, 0..1; 1 where none came."""
        return self.units_served / self.units_asked if self.units_asked else 1.0


def account_of(instance: Instance, plan: Plan) -> Account:
    """The account of a plan whose names and lengths fit the instance."""
    hours = instance.slot_h
    jobs = {job.id: job for job in instance.jobs}
    sites = [(site, plan.sites[site.id]) for site in instance.sites]
    emitted = sum(emissions_kg(site, use, hours) for site, use in sites)
    asked = sum(sum(item.demand) for item in instance.inference)
    return Account(
        job_value=sum(job_value(jobs[placed.id], placed) for placed in plan.jobs),
        inference_value=sum(
            hours * (item.revenue_per_unit_h - network) * sum(plan.routing.get(item.id, {}).get(site, ()))
            for item in instance.inference
            for site, network in item.sites.items()
        ),
        batch_value=sum(
            hours * (item.value_per_gpu_h - transfer) * sum(plan.batch.get(item.id, {}).get(site, ()))
            for item in instance.batch
            for site, transfer in item.sites.items()
        ),
        drop_penalty=sum(
            hours * item.drop_penalty_per_unit_h * sum(plan.dropped[item.id]) for item in instance.inference
        ),
        import_cost=hours * sum(_dot(site.buy_price_per_kwh, use.import_kw) for site, use in sites),
        export_revenue=hours * sum(_dot(site.sell_price_per_kwh, use.export_kw) for site, use in sites),
        demand_charge=sum(
            site.grid.demand_charge_per_kw * max(0.0, max(use.import_kw) - site.grid.peak_so_far_kw)
            for site, use in sites
        ),
        generation_cost=sum(_generation_cost(site, use, hours) for site, use in sites),
        wear_cost=sum(
            hours * site.battery.wear_per_kwh * (sum(use.charge_kw) + sum(use.discharge_kw))
            for site, use in sites
            if site.battery
        ),
        carbon_cost=_carbon_cost(instance, emitted),
        response_cost=sum(
            signal.price_per_kwh * beside_kwh(signal, plan.sites[signal.site].import_kw, hours)
            for signal in instance.demand_response
            if not signal.firm
        ),
        emissions_kg=emitted,
        jobs_run=len(plan.jobs),
        delay_slots=sum(max(0, placed.start_slot - jobs[placed.id].release_slot) for placed in plan.jobs),
        units_asked=hours * asked,
        units_served=hours * (asked - sum(sum(units) for units in plan.dropped.values())),
        renewable_kwh=hours * sum(sum(use.renewable_kw) for _, use in sites),
        renewable_offered_kwh=hours * sum(sum(site.renewable_kw) for site, _ in sites),
    )


def stated(instance: Instance, plan: Plan) -> Plan:
    """The plan with the objective and the emissions that its account shows."""
    account = account_of(instance, plan)
    return msgspec.structs.replace(plan, objective=account.benefit, emissions_kg=account.emissions_kg)


def job_value(job: Job, placed: Placement) -> float:
    """What the job is worth there and then: value less lateness and transfer, in currency."""
    late = 0 if job.running_site is not None else placed.start_slot - job.release_slot
    return job.value - job.transfer_cost.get(placed.site, 0.0) - job.lateness_per_slot * late


def emissions_kg(site: Site, use: SitePlan, hours: float) -> float:
    """Carbon of a site's imports and generation, in kg."""
    own = site.generator.carbon_kg_per_kwh * sum(use.generator_kw) if site.generator else 0.0
    return hours * (_dot(site.carbon_kg_per_kwh, use.import_kw) + own)


def beside_kwh(signal: DemandResponse, import_kw: Sequence[float], hours: float) -> float:
    """Energy imported beyond (``down``) or short of (``up``) a signal's limit, in kWh."""
    within = import_kw[signal.start_slot : signal.end_slot]
    sign = 1.0 if signal.direction == "down" else -1.0
    return hours * sum(max(0.0, sign * (power_kw - signal.limit_kw)) for power_kw in within)


def generator_starts(site: Site, use: SitePlan) -> int:
    """How often the generator goes from off to on."""
    before = int(site.generator.initially_on) if site.generator else 0
    states = (before, *use.generator_on)
    return sum(later > earlier for earlier, later in pairwise(states))


def _generation_cost(site: Site, use: SitePlan, hours: float) -> float:
    if site.generator is None:
        return 0.0
    fuel = hours * site.generator.cost_per_kwh * sum(use.generator_kw)
    return fuel + site.generator.start_cost * generator_starts(site, use)


def _carbon_cost(instance: Instance, emitted_kg: float) -> float:
    cost = instance.carbon_price_per_kg * emitted_kg
    if instance.carbon_budget_kg is not None and instance.carbon_excess_price_per_kg is not None:
        cost += instance.carbon_excess_price_per_kg * max(0.0, emitted_kg - instance.carbon_budget_kg)
    return cost


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
