"""What a plan is worth beside simpler ways to run the same sites: each baseline plans, all are scored by one account.

Those that leave something out plan on a reduced instance, and the full instance scores what they planned: a baseline
without a budget is charged nothing for breaking it, but the table says so. Benefit stands beside completed work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from coordinator.planner.account import Account, stated
from coordinator.planner.fallback import fallback_plan
from coordinator.planner.instance import Inference, Instance, Job, Site, outage
from coordinator.planner.plan import Plan, SitePlan
from coordinator.planner.solve import solve
from coordinator.planner.verify import verify


@dataclass(frozen=True, slots=True)
class Scored:
    """One row of the comparison: a plan and its account on the full instance."""

    name: str
    plan: Plan
    account: Account
    keeps_limits: bool


@dataclass(frozen=True, slots=True)
class Baseline:
    """A way to plan: its name, what it is, and the instance as it sees it; None: rules without a solver."""

    name: str
    about: str
    sees: Callable[[Instance], Instance] | None
    passive_energy: bool = False


def flat_energy(instance: Instance) -> Instance:
    """The instance at one mean price, without storage, generation, export or carbon budget."""
    prices = [price for site in instance.sites for price in site.buy_price_per_kwh]
    mean = sum(prices) / len(prices)
    flat = tuple(
        replace(
            site,
            buy_price_per_kwh=(mean,) * instance.slots,
            sell_price_per_kwh=(0.0,) * instance.slots,
            renewable_kw=(0.0,) * instance.slots,
            generator=None,
        )
        for site in no_battery(no_export(instance)).sites
    )
    return replace(no_carbon(instance), sites=flat)


def no_battery(instance: Instance) -> Instance:
    """The instance with its batteries at rest."""
    return _each_site(instance, lambda site: replace(site, battery=None))


def no_export(instance: Instance) -> Instance:
    """The instance without export."""
    return _each_site(instance, lambda site: replace(site, grid=replace(site.grid, export_max_kw=0.0)))


def no_generation(instance: Instance) -> Instance:
    """The instance without local generators."""
    return _each_site(instance, lambda site: replace(site, generator=None))


def no_carbon(instance: Instance) -> Instance:
    """The instance without carbon budget or carbon price."""
    return replace(instance, carbon_budget_kg=None, carbon_price_per_kg=0.0, carbon_excess_price_per_kg=None)


def no_routing(instance: Instance) -> Instance:
    """The instance with each request class at its nearest site only, the one of least network cost."""
    return replace(instance, inference=tuple(_nearest(item) for item in instance.inference))


def run_now(instance: Instance) -> Instance:
    """The instance with each job at its release or not at all."""
    return replace(instance, jobs=tuple(_at_release(job) for job in instance.jobs))


def fixed_compute(instance: Instance) -> Instance:
    """The instance with jobs at release and requests at the nearest site."""
    return run_now(no_routing(instance))


def carbon_greedy(instance: Instance) -> Instance:
    """The instance with carbon intensity in place of the price, scaled to the same mean."""
    prices = [price for site in instance.sites for price in site.buy_price_per_kwh]
    carbon = [kg for site in instance.sites for kg in site.carbon_kg_per_kwh]
    scale = sum(map(abs, prices)) / max(1e-9, sum(carbon))
    return _each_site(
        instance, lambda site: replace(site, buy_price_per_kwh=tuple(scale * kg for kg in site.carbon_kg_per_kwh))
    )


BASELINES: Final = (
    Baseline("compute-only", "places work at a flat price; energy follows passively", flat_energy, True),
    Baseline("energy-only", "jobs at release, requests at the nearest site; energy optimised", fixed_compute),
    Baseline("no-battery", "joint, batteries at rest", no_battery),
    Baseline("no-generation", "joint, generators off", no_generation),
    Baseline("no-export", "joint, nothing sold", no_export),
    Baseline("no-routing", "joint, requests at the nearest site", no_routing),
    Baseline("no-carbon", "joint, no budget", no_carbon),
    Baseline("run-now", "joint, jobs at release", run_now),
    Baseline("carbon-greedy", "joint, led by carbon in place of price", carbon_greedy),
    Baseline("price-greedy", "rules: cheapest fitting start, batteries at rest", None),
)


def score(instance: Instance, baseline: Baseline, time_limit_s: float, gap: float) -> Scored | None:
    """The baseline's plan on the full instance, scored; None where it cannot be carried out."""
    if baseline.sees is None:
        plan = fallback_plan(instance)
    else:
        plan = _with_batteries(instance, solve(baseline.sees(instance), time_limit_s, gap).plan)
    return scored(baseline.name, instance, passive(instance, plan) if baseline.passive_energy else plan)


def scored(name: str, instance: Instance, plan: Plan) -> Scored | None:
    """A plan scored on an instance; None where it cannot be carried out."""
    plan = stated(instance, plan)
    verdict = verify(instance, plan)
    if verdict.account is None or not verdict.possible:
        return None
    return Scored(name, plan, verdict.account, not verdict.broken)


def passive(instance: Instance, plan: Plan) -> Plan:
    """The plan's work with energy as it comes: own renewable power first, then import; surplus sold where that pays."""
    return replace(plan, sites={site.id: _passive_site(instance, site, plan) for site in instance.sites})


def _passive_site(instance: Instance, site: Site, plan: Plan) -> SitePlan:
    use = plan.sites[site.id]
    renewable, imported, exported, unserved = [], [], [], []
    for slot in range(instance.slots):
        supply = use.renewable_kw[slot] + use.generator_kw[slot] + use.import_kw[slot] + use.discharge_kw[slot]
        asked = supply + (use.unserved_kw[slot] if use.unserved_kw else 0.0)
        draw = max(0.0, asked - use.export_kw[slot] - use.charge_kw[slot])
        connected = not outage(site, slot)
        own = min(draw, site.renewable_kw[slot])
        bought = min(draw - own, site.grid.import_max_kw if connected else 0.0)
        sells = connected and site.sell_price_per_kwh[slot] > 0 and bought <= 0
        sold = min(site.renewable_kw[slot] - own, site.grid.export_max_kw) if sells else 0.0
        renewable.append(own + sold)
        imported.append(bought)
        exported.append(sold)
        unserved.append(max(0.0, draw - own - bought))
    zero = (0.0,) * instance.slots
    return SitePlan(
        renewable_kw=tuple(renewable),
        generator_kw=zero,
        generator_on=(0,) * instance.slots,
        import_kw=tuple(imported),
        export_kw=tuple(exported),
        charge_kw=zero,
        discharge_kw=zero,
        soc_kwh=_resting(instance, site),
        unserved_kw=tuple(unserved) if max(unserved) > 1e-6 else (),
    )


def _with_batteries(instance: Instance, plan: Plan) -> Plan:
    """The plan with the batteries that it did not know at rest."""
    sites = dict(plan.sites)
    for site in instance.sites:
        use = sites[site.id]
        if not any(use.charge_kw) and not any(use.discharge_kw):
            sites[site.id] = replace(use, soc_kwh=_resting(instance, site))
    return replace(plan, sites=sites)


def _resting(instance: Instance, site: Site) -> tuple[float, ...]:
    return (site.battery.initial_kwh if site.battery else 0.0,) * instance.slots


def _each_site(instance: Instance, change: Callable[[Site], Site]) -> Instance:
    return replace(instance, sites=tuple(change(site) for site in instance.sites))


def _nearest(item: Inference) -> Inference:
    if not item.sites:
        return item
    site = min(item.sites, key=item.sites.__getitem__)
    return replace(item, sites={site: item.sites[site]})


def _at_release(job: Job) -> Job:
    longest = max([job.slots, *(level.slots for level in job.levels)])
    return replace(job, deadline_slot=min(job.deadline_slot, job.release_slot + longest))
