"""Whether a plan keeps an instance's constraints, one by one, by arithmetic that shares no code with the model.

A *broken* limit is one that a plan may break at a price above all value (a hard carbon budget, unserved power, …);
an *impossible* finding is a plan that contradicts itself or the physics.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from coordinator.planner.account import Account, account_of, beside_kwh
from coordinator.planner.instance import Battery, Generator, Instance, Job, Site, outage
from coordinator.planner.plan import Broken, Placement, Plan, SitePlan

TOLERANCE: Final = 2e-6

_SITE_SERIES: Final = (
    "renewable_kw",
    "generator_kw",
    "generator_on",
    "import_kw",
    "export_kw",
    "charge_kw",
    "discharge_kw",
    "soc_kwh",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One constraint that does not hold: its name, by how much, in which unit; ``broken``: a limit with a slack."""

    constraint: str
    amount: float
    unit: str
    broken: bool = False

    def __str__(self) -> str:
        kind = "broken" if self.broken else "impossible"
        return f"{kind}: {self.constraint}: {self.amount:.6g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings, and the account; no account where names or lengths do not fit the instance."""

    findings: tuple[Finding, ...]
    account: Account | None

    @property
    def possible(self) -> bool:
        """Whether the plan can be carried out, be it with broken limits."""
        return self.account is not None and all(finding.broken for finding in self.findings)

    @property
    def broken(self) -> tuple[Broken, ...]:
        """The hard limits that the plan breaks."""
        return tuple(
            Broken(limit=found.constraint, amount=found.amount, unit=found.unit)
            for found in self.findings
            if found.broken
        )


def verify(instance: Instance, plan: Plan) -> Verdict:
    """Every constraint that the plan does not keep, and what the plan earns."""
    misfits = tuple(_misfits(instance, plan))
    if misfits:
        return Verdict(misfits, None)
    findings = [*_jobs(instance, plan), *_inference(instance, plan), *_batch(instance, plan)]
    for site in instance.sites:
        findings += _site(instance, site, plan)
    account = account_of(instance, plan)
    findings += _carbon(instance, account)
    findings += _responses(instance, plan)
    findings += _claims(plan, account)
    return Verdict(tuple(findings), account)


def _above(name: str, value: float, limit: float, unit: str, scale: float = 0.0, broken: bool = False) -> list[Finding]:
    """A finding where the value exceeds the limit by more than rounding."""
    excess = value - limit
    if excess <= TOLERANCE * max(1.0, abs(limit), scale):
        return []
    return [Finding(name, excess, unit, broken)]


def _misfits(instance: Instance, plan: Plan) -> Iterator[Finding]:
    """Names that the instance lacks, and series of the wrong length or with numbers that are none."""
    if plan.instance != instance.name:
        yield Finding(f"the plan is for instance {plan.instance}, not {instance.name}", 0.0, "")
    jobs = {job.id for job in instance.jobs}
    for name, count in Counter(placed.id for placed in plan.jobs).items():
        if name not in jobs:
            yield Finding(f"unknown job {name}", 0.0, "")
        if count > 1:
            yield Finding(f"job {name} is placed {count} times", 0.0, "")
    sites = {site.id for site in instance.sites}
    yield from (Finding(f"site {name} is missing or unknown", 0.0, "") for name in sites ^ plan.sites.keys())
    yield from (
        Finding(f"dropped requests of class {name} are missing or unknown", 0.0, "")
        for name in {item.id for item in instance.inference} ^ plan.dropped.keys()
    )
    for kind, routes, parts in (
        ("class", plan.routing, {item.id: item.sites.keys() for item in instance.inference}),
        ("batch", plan.batch, {item.id: item.sites.keys() for item in instance.batch}),
    ):
        for name, route in routes.items():
            if name not in parts:
                yield Finding(f"unknown {kind} {name}", 0.0, "")
                continue
            yield from (
                Finding(f"{kind} {name} may not go to site {site}", 0.0, "") for site in route.keys() - parts[name]
            )
    for name, series in _all_series(plan):
        if len(series) != instance.slots or not all(math.isfinite(value) for value in series):
            yield Finding(f"{name}: expected {instance.slots} finite numbers", 0.0, "")


def _all_series(plan: Plan) -> Iterator[tuple[str, Sequence[float]]]:
    for name, use in plan.sites.items():
        for series in _SITE_SERIES:
            yield f"{series} of {name}", getattr(use, series)
        if use.unserved_kw:
            yield f"unserved_kw of {name}", use.unserved_kw
    for name, units in plan.dropped.items():
        yield f"dropped {name}", units
    for routes in (plan.routing, plan.batch):
        for name, route in routes.items():
            for site, units in route.items():
                yield f"{name} at {site}", units


def _negative(name: str, series: Sequence[float], unit: str) -> list[Finding]:
    return _above(f"{name} is negative", -min(series, default=0.0), 0.0, unit, max(map(abs, series), default=0.0))


def _jobs(instance: Instance, plan: Plan) -> Iterator[Finding]:
    placed = {placement.id: placement for placement in plan.jobs}
    for job in instance.jobs:
        placement = placed.get(job.id)
        if placement is not None:
            yield from _placement(instance, job, placement)
        elif job.running_site is not None:
            yield Finding(f"job {job.id} runs already and is left out", 1.0, "job")
        elif job.must_run:
            yield Finding(f"job {job.id} must run and is left out", 1.0, "job", broken=True)


def _placement(instance: Instance, job: Job, placed: Placement) -> Iterator[Finding]:
    if _length(job, placed) is None:
        yield Finding(f"job {job.id} has no level {placed.level}", 0.0, "")
    allowed = [job.running_site] if job.running_site is not None else job.sites
    if placed.site not in allowed:
        yield Finding(f"job {job.id} may not run at site {placed.site}", 0.0, "")
        return
    length = _length(job, placed) or job.slots
    if job.running_site is not None:
        if placed.start_slot != 0:
            yield Finding(f"job {job.id} runs already and starts at slot {placed.start_slot}", 0.0, "")
        return
    if placed.start_slot < job.release_slot:
        yield Finding(f"job {job.id} starts before its release", job.release_slot - placed.start_slot, "slots")
    late = placed.start_slot + length - min(job.deadline_slot, instance.slots)
    if late > 0:
        yield Finding(f"job {job.id} ends after its deadline", late, "slots")


def _length(job: Job, placed: Placement) -> int | None:
    lengths = {None: job.slots} | {level.name: level.slots for level in job.levels}
    return lengths.get(placed.level)


def _power_kw(job: Job, placed: Placement) -> float:
    powers = {None: job.power_kw} | {level.name: level.power_kw for level in job.levels}
    return powers.get(placed.level, job.power_kw)


def _inference(instance: Instance, plan: Plan) -> Iterator[Finding]:
    for item in instance.inference:
        routes = plan.routing.get(item.id, {})
        for site, units in routes.items():
            yield from _negative(f"class {item.id} at {site}", units, "units")
            if site in item.max_units:
                yield from _above(f"transfer limit of {item.id} to {site}", max(units), item.max_units[site], "units")
        yield from _negative(f"dropped requests of {item.id}", plan.dropped[item.id], "units")
        for slot, demand in enumerate(item.demand):
            met = plan.dropped[item.id][slot] + sum(units[slot] for units in routes.values())
            yield from _differs(f"requests of {item.id} in slot {slot}", met, demand, "units")


def _differs(name: str, value: float, wanted: float, unit: str, scale: float = 0.0) -> list[Finding]:
    return _above(name, abs(value - wanted), 0.0, unit, max(abs(wanted), scale))


def _batch(instance: Instance, plan: Plan) -> Iterator[Finding]:
    for item in instance.batch:
        routes = plan.batch.get(item.id, {})
        for site, gpus in routes.items():
            yield from _negative(f"batch {item.id} at {site}", gpus, "GPUs")
        done, late = 0.0, 0.0
        for slot in range(instance.slots):
            gpus_now = sum(gpus[slot] for gpus in routes.values())
            yield from _above(f"batch {item.id} in slot {slot}", gpus_now, item.max_gpus, "GPUs")
            done += instance.slot_h * gpus_now
            yield from _above(
                f"batch {item.id} ahead of arrival in slot {slot}", done, item.arrived_gpu_h[slot], "GPU-h"
            )
            late = max(late, item.due_gpu_h[slot] - done)
        yield from _above(f"batch {item.id} behind its deadlines", late, 0.0, "GPU-h", max(item.due_gpu_h), broken=True)


def _site(instance: Instance, site: Site, plan: Plan) -> Iterator[Finding]:
    use = plan.sites[site.id]
    for name in (*_SITE_SERIES, "unserved_kw"):
        yield from _negative(f"{name} of {site.id}", getattr(use, name), "")
    yield from _balance(instance, site, plan, use)
    for slot in range(instance.slots):
        here = f"{site.id} in slot {slot}"
        away = outage(site, slot)
        import_kw, export_kw = use.import_kw[slot], use.export_kw[slot]
        yield from _above(f"renewable power of {here}", use.renewable_kw[slot], site.renewable_kw[slot], "kW")
        yield from _above(f"import of {here}", import_kw, 0.0 if away else site.grid.import_max_kw, "kW")
        yield from _above(f"export of {here}", export_kw, 0.0 if away else site.grid.export_max_kw, "kW")
        both, most = min(import_kw, export_kw), max(site.grid.import_max_kw, site.grid.export_max_kw)
        yield from _above(f"import and export at once at {here}", both, 0.0, "kW", most)
    yield from _generator(site.generator, site.id, use)
    yield from _battery(site.battery, site.id, use, instance.slot_h)


def _balance(instance: Instance, site: Site, plan: Plan, use: SitePlan) -> Iterator[Finding]:
    """GPUs and power of one site, slot by slot."""
    gpus, work_kw = _occupation(instance, site.id, plan)
    unserved = use.unserved_kw or (0.0,) * instance.slots
    for slot in range(instance.slots):
        here = f"{site.id} in slot {slot}"
        yield from _above(f"GPUs of {here}", gpus[slot], site.gpus, "GPUs", broken=True)
        yield from _above(f"power unserved at {here}", unserved[slot], 0.0, "kW", broken=True)
        supply = use.renewable_kw[slot] + use.generator_kw[slot] + use.import_kw[slot] + use.discharge_kw[slot]
        draw = site.pue[slot] * (site.idle_kw + work_kw[slot]) + use.charge_kw[slot] + use.export_kw[slot]
        largest = max(supply, site.grid.import_max_kw)
        yield from _differs(f"power balance of {here}", supply + unserved[slot], draw, "kW", largest)


def _occupation(instance: Instance, site: str, plan: Plan) -> tuple[list[float], list[float]]:
    """GPUs in use and power of all work at a site, a slot each."""
    gpus, power_kw = [0.0] * instance.slots, [0.0] * instance.slots
    jobs = {job.id: job for job in instance.jobs}
    for placed in plan.jobs:
        if placed.site == site:
            job = jobs[placed.id]
            end = min(placed.start_slot + (_length(job, placed) or job.slots), instance.slots)
            for slot in range(max(0, placed.start_slot), end):
                gpus[slot] += job.gpus
                power_kw[slot] += _power_kw(job, placed)
    flows = [(plan.routing.get(i.id, {}).get(site), i.gpus_per_unit, i.kw_per_unit) for i in instance.inference]
    flows += [(plan.batch.get(i.id, {}).get(site), 1.0, i.kw_per_gpu) for i in instance.batch]
    for units, gpus_each, kw_each in flows:
        for slot, amount in enumerate(units or ()):
            gpus[slot] += gpus_each * amount
            power_kw[slot] += kw_each * amount
    return gpus, power_kw


def _generator(generator: Generator | None, site: str, use: SitePlan) -> Iterator[Finding]:
    most = generator.max_kw if generator else 0.0
    least = generator.min_kw if generator else 0.0
    for slot, (on, power_kw) in enumerate(zip(use.generator_on, use.generator_kw, strict=True)):
        here = f"generator of {site} in slot {slot}"
        if on not in {0, 1} or (on and generator is None):
            yield Finding(f"{here}: state {on}", 0.0, "")
        yield from _above(f"{here} above its most", power_kw, most * on, "kW", most)
        yield from _above(f"{here} below its least", least * on, power_kw, "kW")
    if generator is None or generator.ramp_kw_per_slot is None:
        return
    steps = zip(use.generator_on, use.generator_on[1:], use.generator_kw, use.generator_kw[1:], strict=False)
    for slot, (was_on, is_on, was_kw, is_kw) in enumerate(steps, start=1):
        if is_on:
            limit = generator.ramp_kw_per_slot + (0.0 if was_on else generator.min_kw)
            step = abs(is_kw - was_kw) if was_on else is_kw - was_kw
            yield from _above(f"ramp of the generator of {site} into slot {slot}", step, limit, "kW", most)


def _battery(battery: Battery | None, site: str, use: SitePlan, hours: float) -> Iterator[Finding]:
    if battery is None:
        idle = max(*use.charge_kw, *use.discharge_kw)
        yield from _above(f"charge or discharge at {site}, which has no battery", idle, 0.0, "kW")
        return
    soc_kwh = battery.initial_kwh
    for slot, end_kwh in enumerate(use.soc_kwh):
        here = f"battery of {site} in slot {slot}"
        charge_kw, discharge_kw = use.charge_kw[slot], use.discharge_kw[slot]
        yield from _above(f"charge of the {here}", charge_kw, battery.power_kw, "kW")
        yield from _above(f"discharge of the {here}", discharge_kw, battery.power_kw, "kW")
        both = min(charge_kw, discharge_kw)
        yield from _above(f"charge and discharge at once of the {here}", both, 0.0, "kW", battery.power_kw)
        soc_kwh += hours * (battery.charge_efficiency * charge_kw - discharge_kw / battery.discharge_efficiency)
        yield from _differs(f"energy of the {here}", end_kwh, soc_kwh, "kWh", battery.capacity_kwh)
        soc_kwh = end_kwh
        yield from _above(f"capacity of the {here}", end_kwh, battery.capacity_kwh, "kWh")
        least = battery.min_kwh
        yield from _above(f"least energy of the {here}", least, end_kwh, "kWh", battery.capacity_kwh, broken=True)
    final = battery.final_min_kwh
    yield from _above(f"final energy of the battery of {site}", final, soc_kwh, "kWh", final, broken=True)


def _carbon(instance: Instance, account: Account) -> list[Finding]:
    if instance.carbon_budget_kg is None or instance.carbon_excess_price_per_kg is not None:
        return []
    return _above("carbon budget", account.emissions_kg, instance.carbon_budget_kg, "kg", broken=True)


def _responses(instance: Instance, plan: Plan) -> Iterator[Finding]:
    for signal in instance.demand_response:
        if signal.firm:
            beside = beside_kwh(signal, plan.sites[signal.site].import_kw, instance.slot_h)
            scale = signal.limit_kw * instance.slot_h
            yield from _above(f"demand response {signal.id}", beside, 0.0, "kWh", scale, broken=True)


def _claims(plan: Plan, account: Account) -> list[Finding]:
    """What the plan says of itself."""
    return [
        *_differs("the objective that the plan states", plan.objective, account.benefit, "", abs(account.benefit)),
        *_differs("the emissions that the plan states", plan.emissions_kg, account.emissions_kg, "kg"),
    ]
