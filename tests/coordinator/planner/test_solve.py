"""Planning by a deadline: reference values, negative prices, impossible limits, and solvers that crash or hang."""

import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from coordinator.planner.baselines import BASELINES, score
from coordinator.planner.explain import explain
from coordinator.planner.generate import Size, generate
from coordinator.planner.instance import Instance, Window
from coordinator.planner.instancefile import load_instance
from coordinator.planner.solve import Progress, solve

DATA = Path(__file__).parents[2] / "data"


def reference(name: str) -> Instance:
    return load_instance(DATA / f"{name}.json")


@pytest.mark.parametrize(("name", "best"), [("plan-paper-size", 5951.16), ("plan-medium", 30485.47)])
def test_reference_instances_to_a_certified_gap(name: str, best: float) -> None:
    heard: list[Progress] = []
    outcome = solve(reference(name), 20.0, 0.001, heard.append)
    plan = outcome.plan
    assert outcome.verdict.findings == ()
    assert plan.gap is not None
    assert plan.bound is not None
    assert plan.gap <= 0.001
    assert plan.bound >= best - 0.005
    assert plan.objective >= best * 0.999
    assert plan.shadow_carbon_price is not None
    assert [progress.bound for progress in heard] == sorted((p.bound for p in heard), reverse=True)


@pytest.mark.parametrize("seed", range(8))
def test_negative_prices_never_pay_for_two_directions_at_once(seed: int) -> None:
    instance = generate(Size(2, 24, 6, 2, negative_prices=True, extras=seed % 2 == 0), seed)
    assert min(price for site in instance.sites for price in site.buy_price_per_kwh) < 0
    plan = solve(instance, 10.0, 0.002).plan
    for use in plan.sites.values():
        assert max(map(min, zip(use.charge_kw, use.discharge_kw, strict=True))) < 1e-5
        assert max(map(min, zip(use.import_kw, use.export_kw, strict=True))) < 1e-5
    assert plan.method != "rules"


def test_an_impossible_instance_gives_the_least_bad_plan_and_what_it_breaks() -> None:
    instance = generate(Size(2, 12, 3, 2), 2)
    dark = replace(
        instance.sites[0],
        renewable_kw=(0.0,) * 12,
        generator=None,
        battery=None,
        outages=(Window(start_slot=3, end_slot=4),),
    )
    outcome = solve(replace(instance, sites=(dark, *instance.sites[1:]), carbon_budget_kg=None), 10.0)
    idle_kw = dark.idle_kw * dark.pue[3]
    assert [(broken.limit, broken.unit) for broken in outcome.plan.broken] == [
        (f"power unserved at {dark.id} in slot 3", "kW")
    ]
    assert outcome.plan.broken[0].amount == pytest.approx(idle_kw, rel=1e-5)
    assert outcome.verdict.possible


def test_a_running_job_stays_and_a_must_run_job_runs() -> None:
    instance = generate(Size(2, 12, 4, 2), 5)
    first, second, *others = instance.jobs
    running = replace(first, running_site=instance.sites[1].id, slots=2)
    needed = replace(second, must_run=True, value=-50.0)
    plan = solve(replace(instance, jobs=(running, needed, *others)), 10.0).plan
    placed = {job.id: job for job in plan.jobs}
    assert (placed[first.id].site, placed[first.id].start_slot) == (instance.sites[1].id, 0)
    assert second.id in placed


@pytest.mark.parametrize(
    ("script", "flag"),
    [
        ("import os; os.abort()", "ended early"),
        ("import time; time.sleep(60)", "stopped at the time limit"),
        ("print('not a report', flush=True); import time; time.sleep(60)", "ended early"),
    ],
)
def test_a_solver_that_fails_leaves_a_flagged_plan_in_time(script: str, flag: str) -> None:
    began = time.monotonic()
    outcome = solve(reference("plan-medium"), 1.0, worker=(sys.executable, "-c", script))
    assert time.monotonic() - began < 3.0
    assert outcome.plan.method == "rules"
    assert flag in outcome.plan.flags[0]
    assert outcome.verdict.findings == ()
    assert outcome.plan.gap is not None
    assert 0 < outcome.plan.gap < 1


def test_many_starts_are_priced_in_rounds() -> None:
    instance = generate(Size(5, 48, 120, 4), 1)
    outcome = solve(instance, 20.0, 0.002)
    assert outcome.verdict.findings == ()
    assert outcome.plan.gap is not None
    assert outcome.plan.gap <= 0.002


def test_every_baseline_yields_a_plan_and_those_that_keep_all_limits_stay_below_the_bound() -> None:
    instance = generate(Size(2, 12, 4, 2), 1)
    bound = solve(instance, 10.0).plan.bound
    assert bound is not None
    for baseline in BASELINES:
        one = score(instance, baseline, 5.0, 0.001)
        assert one is not None, baseline.name
        if one.keeps_limits:
            assert one.account.benefit <= bound + 1e-6 * abs(bound), baseline.name


def test_an_explanation_prices_the_alternatives_of_a_job() -> None:
    instance = generate(Size(2, 12, 3, 2), 1)
    plan = solve(instance, 10.0, 1e-5).plan
    explanation = explain(instance, plan, plan.jobs[0].id, 20.0)
    assert explanation.placed == plan.jobs[0]
    losses = [other.loss for other in explanation.alternatives]
    assert losses == sorted(losses)
    assert min(losses) >= -1e-4 * abs(plan.objective)
    with pytest.raises(KeyError):
        explain(instance, plan, "no-such-job", 1.0)
