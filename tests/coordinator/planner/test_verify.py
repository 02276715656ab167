"""The check of a plan: it passes what is right, and names each constraint that is not kept."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from coordinator.planner.account import stated
from coordinator.planner.fallback import fallback_plan
from coordinator.planner.generate import Size, generate
from coordinator.planner.instance import DemandResponse, Instance
from coordinator.planner.plan import Plan, SitePlan
from coordinator.planner.verify import verify

INSTANCE = generate(Size(2, 24, 6, 3), 1)
PLAN = fallback_plan(INSTANCE)
SITE = INSTANCE.sites[0].id


def with_site(plan: Plan, **series: Any) -> Plan:
    return replace(plan, sites={**plan.sites, SITE: replace(plan.sites[SITE], **series)})


def bumped(series: tuple[float, ...], slot: int, by: float) -> tuple[float, ...]:
    return (*series[:slot], series[slot] + by, *series[slot + 1 :])


def use(plan: Plan) -> SitePlan:
    return plan.sites[SITE]


def found(instance: Instance, plan: Plan) -> str:
    return "\n".join(map(str, verify(instance, plan).findings))


def test_a_good_plan_has_no_findings() -> None:
    verdict = verify(INSTANCE, PLAN)
    assert verdict.findings == ()
    assert verdict.possible
    assert verdict.account is not None
    assert verdict.account.benefit == pytest.approx(PLAN.objective)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda p: with_site(p, import_kw=bumped(use(p).import_kw, 3, 1.0)), "power balance of site-0 in slot 3"),
        (lambda p: with_site(p, import_kw=bumped(use(p).import_kw, 3, 1e6)), "import of site-0 in slot 3"),
        (lambda p: with_site(p, export_kw=bumped(use(p).export_kw, 0, -9.0)), "export_kw of site-0 is negative"),
        (lambda p: with_site(p, renewable_kw=bumped(use(p).renewable_kw, 5, 1e4)), "renewable power of site-0"),
        (lambda p: with_site(p, soc_kwh=bumped(use(p).soc_kwh, 5, 5.0)), "energy of the battery of site-0 in slot 5"),
        (lambda p: with_site(p, soc_kwh=bumped(use(p).soc_kwh, 5, 1e5)), "capacity of the battery of site-0"),
        (lambda p: with_site(p, soc_kwh=bumped(use(p).soc_kwh, 23, -5.0)), "broken: final energy of the battery"),
        (
            lambda p: with_site(p, generator_kw=bumped(use(p).generator_kw, 2, 5.0)),
            "generator of site-0 in slot 2 above",
        ),
        (lambda p: with_site(p, unserved_kw=bumped((0.0,) * 24, 4, 5.0)), "broken: power unserved at site-0 in slot 4"),
        (lambda p: with_site(p, soc_kwh=(0.0,)), "expected 24 finite numbers"),
        (lambda p: with_site(p, soc_kwh=(float("inf"),) * 24), "expected 24 finite numbers"),
        (
            lambda p: with_site(
                p, charge_kw=bumped(use(p).charge_kw, 7, 1.0), discharge_kw=bumped(use(p).discharge_kw, 7, 1.0)
            ),
            "charge and discharge at once",
        ),
        (lambda p: replace(p, jobs=(*p.jobs, p.jobs[0])), "is placed 2 times"),
        (lambda p: replace(p, jobs=(replace(p.jobs[0], start_slot=-1), *p.jobs[1:])), "starts before its release"),
        (lambda p: replace(p, jobs=(replace(p.jobs[0], start_slot=23), *p.jobs[1:])), "ends after its deadline"),
        (lambda p: replace(p, jobs=(replace(p.jobs[0], level="x"), *p.jobs[1:])), "has no level x"),
        (lambda p: replace(p, jobs=(replace(p.jobs[0], id="x"), *p.jobs[1:])), "unknown job x"),
        (lambda p: replace(p, dropped={**p.dropped, "class-00": (0.0,) * 24}), "requests of class-00 in slot"),
        (lambda p: replace(p, dropped={}), "class-00 are missing or unknown"),
        (lambda p: replace(p, objective=p.objective + 1.0), "the objective that the plan states"),
        (lambda p: replace(p, emissions_kg=0.0), "the emissions that the plan states"),
        (lambda p: replace(p, instance="other"), "the plan is for instance other"),
    ],
)
def test_each_spoilt_constraint_is_named(spoil: Callable[[Plan], Plan], told: str) -> None:
    assert told in found(INSTANCE, spoil(PLAN))


def test_limits_of_the_instance_are_named() -> None:
    tight = replace(INSTANCE, carbon_budget_kg=1.0)
    assert "broken: carbon budget" in found(tight, PLAN)
    soft = replace(tight, carbon_excess_price_per_kg=0.1)
    assert found(soft, stated(soft, PLAN)) == ""
    compelled = replace(INSTANCE, jobs=tuple(replace(job, must_run=True) for job in INSTANCE.jobs))
    assert "must run and is left out" in found(compelled, stated(compelled, replace(PLAN, jobs=())))
    full = replace(INSTANCE, sites=tuple(replace(site, gpus=1.0) for site in INSTANCE.sites))
    assert "broken: GPUs of site-0" in found(full, PLAN)


def test_a_firm_signal_is_a_limit_and_another_costs() -> None:
    signal = DemandResponse(
        id="dr", site=SITE, start_slot=0, end_slot=24, direction="down", limit_kw=0.0, price_per_kwh=2.0, firm=True
    )
    firm = replace(INSTANCE, demand_response=(signal,))
    assert "broken: demand response dr" in found(firm, PLAN)
    paid = replace(INSTANCE, demand_response=(replace(signal, firm=False),))
    beside_kwh = sum(use(PLAN).import_kw) * INSTANCE.slot_h
    assert stated(paid, PLAN).objective == pytest.approx(PLAN.objective - 2.0 * beside_kwh)
