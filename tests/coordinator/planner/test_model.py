"""The model against what shares nothing with it: brute force on tiny instances, and a second solver."""

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import highspy
import numpy as np
import pytest
from msgspec.structs import replace

from coordinator.planner.generate import Size, generate
from coordinator.planner.highs import relax, solve, write_mps
from coordinator.planner.instance import Instance, Site
from coordinator.planner.instancefile import load_instance
from coordinator.planner.model import build

DATA = Path(__file__).parents[2] / "data"
# a full check tries 200
BRUTE = int(os.environ.get("WATTLOOP_BRUTE_FORCE", "12"))


def tiny(seed: int) -> Instance:
    """One or two sites, four slots, two jobs; every other instance has prices below 0."""
    size = Size(1 + seed % 2, 4, 2, 1, load=1.5, negative_prices=seed % 4 == 3, budget_share=0.9)
    return generate(size, seed)


def brute_force(instance: Instance) -> float:
    """The best objective over all starts and all states of generators, with an LP of its own for the rest."""
    choices = []
    for job in instance.jobs:
        starts = range(job.release_slot, min(job.deadline_slot, instance.slots) - job.slots + 1)
        choices.append([None, *itertools.product(job.sites, starts)])
    with_generator = [site.id for site in instance.sites if site.generator]
    states = list(itertools.product((0, 1), repeat=instance.slots))
    best = -np.inf
    for placed in itertools.product(*choices):
        for on in itertools.product(states, repeat=len(with_generator)):
            best = max(best, dispatch(instance, placed, dict(zip(with_generator, on, strict=True))))
    return best


def dispatch(instance: Instance, placed: tuple[Any, ...], on: dict[str, tuple[int, ...]]) -> float:
    """The best objective for given starts and generator states; −∞ where there is none."""
    hours, slots = instance.slot_h, range(instance.slots)
    h: Any = highspy.Highs()
    h.silent()
    h.setOptionValue("threads", 1)
    benefit: Any = 0.0
    carbon: Any = 0.0
    routed = {}
    for item in instance.inference:
        for t in slots:
            units = {site: h.addVariable(lb=0) for site in item.sites}
            left = h.addVariable(lb=0)
            h.addConstr(sum(units.values()) + left == item.demand[t])
            benefit += sum(hours * (item.revenue_per_unit_h - item.sites[site]) * v for site, v in units.items())
            benefit += -hours * item.drop_penalty_per_unit_h * left
            routed[item.id, t] = units
    fixed = 0.0
    for job, place in zip(instance.jobs, placed, strict=True):
        if place is not None:
            fixed += job.value - job.lateness_per_slot * (place[1] - job.release_slot)
    for site in instance.sites:
        states = on.get(site.id, (0,) * instance.slots)
        fixed -= start_costs(site, states)
        soc: Any = site.battery.initial_kwh if site.battery else 0.0
        for t in slots:
            here = [
                job
                for job, place in zip(instance.jobs, placed, strict=True)
                if place is not None and place[0] == site.id and place[1] <= t < place[1] + job.slots
            ]
            gpus = sum(job.gpus for job in here)
            work = sum(job.power_kw for job in here)
            flows = [(i, routed[i.id, t][site.id]) for i in instance.inference if site.id in i.sites]
            if gpus > site.gpus + 1e-9:
                return -np.inf
            if flows:
                h.addConstr(sum(i.gpus_per_unit * v for i, v in flows) <= site.gpus - gpus)
            own = h.addVariable(lb=0, ub=site.renewable_kw[t])
            bought, sold = (h.addVariable(lb=0, ub=most) for most in (site.grid.import_max_kw, site.grid.export_max_kw))
            importing = h.addBinary()
            h.addConstr(bought <= site.grid.import_max_kw * importing)
            h.addConstr(sold + site.grid.export_max_kw * importing <= site.grid.export_max_kw)
            supply: Any = own + bought - sold
            benefit += hours * (site.sell_price_per_kwh[t] * sold - site.buy_price_per_kwh[t] * bought)
            carbon += hours * site.carbon_kg_per_kwh[t] * bought
            if site.generator and states[t]:
                made = h.addVariable(lb=site.generator.min_kw, ub=site.generator.max_kw)
                supply += made
                benefit += -hours * site.generator.cost_per_kwh * made
                carbon += hours * site.generator.carbon_kg_per_kwh * made
            if site.battery:
                b = site.battery
                charge, discharge = (h.addVariable(lb=0, ub=b.power_kw) for _ in range(2))
                charging = h.addBinary()
                h.addConstr(charge <= b.power_kw * charging)
                h.addConstr(discharge + b.power_kw * charging <= b.power_kw)
                supply += discharge - charge
                benefit += -hours * b.wear_per_kwh * (charge + discharge)
                level = h.addVariable(lb=b.min_kwh, ub=b.capacity_kwh)
                h.addConstr(
                    level == soc + hours * b.charge_efficiency * charge - hours / b.discharge_efficiency * discharge
                )
                soc = level
                if t == instance.slots - 1:
                    h.addConstr(level >= b.final_min_kwh)
            draw = sum(site.pue[t] * i.kw_per_unit * v for i, v in flows)
            h.addConstr(supply - draw == site.pue[t] * (site.idle_kw + work))
    if instance.carbon_budget_kg is not None:
        h.addConstr(carbon <= instance.carbon_budget_kg)
    h.setOptionValue("mip_rel_gap", 0.0)
    h.maximize(benefit)
    if h.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return -np.inf
    return fixed + float(h.getInfo().objective_function_value)


def start_costs(site: Site, states: tuple[int, ...]) -> float:
    if site.generator is None:
        return 0.0
    return site.generator.start_cost * sum(b > a for a, b in itertools.pairwise((0, *states)))


@pytest.mark.parametrize("seed", range(BRUTE))
def test_the_optimum_is_that_of_brute_force(seed: int) -> None:
    instance = tiny(seed)
    if len(instance.sites) == 2:  # 2^(2·4) generator states are too many to try: keep one
        first = [site for site in instance.sites if site.generator][:1]
        instance = only_generator(instance, {site.id for site in first})
    model = build(instance)
    solved = solve(model.problem, 30.0, 0.0)
    assert solved.x is not None
    assert solved.bound == pytest.approx(brute_force(instance), rel=1e-6, abs=1e-6)


def only_generator(instance: Instance, keep: set[str]) -> Instance:
    return replace(
        instance,
        sites=tuple(site if site.id in keep else replace(site, generator=None) for site in instance.sites),
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_second_solver_agrees_on_the_exported_program(seed: int, tmp_path: Path) -> None:
    glpsol = shutil.which("glpsol")
    if glpsol is None:
        pytest.skip("glpsol (Debian: glpk-utils) is not installed")
    problem = build(generate(Size(2, 8, 4, 2), seed)).problem
    write_mps(problem, str(tmp_path / "problem.mps"))
    report = tmp_path / "report"
    command = [glpsol, "--freemps", "problem.mps", "--tmlim", "30", "-w", str(report)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    status = next(line.split() for line in report.read_text().splitlines() if line.startswith("s "))
    assert status[4] == "o"
    solved = solve(problem, 30.0, 0.0)
    assert -float(status[5]) == pytest.approx(solved.bound, rel=1e-6)


@pytest.mark.parametrize(("name", "bound"), [("plan-paper-size", 5968.46), ("plan-medium", 30490.73)])
def test_relaxations_of_the_reference_instances(name: str, bound: float) -> None:
    model = build(load_instance(DATA / f"{name}.json"))
    relaxed = relax(model.problem, 30.0)
    assert relaxed.bound == pytest.approx(bound, abs=0.006)
    assert float(model.problem.cost @ relaxed.x) == pytest.approx(bound, abs=0.006)


def test_any_duals_give_a_bound() -> None:
    problem = build(tiny(1)).problem
    best = solve(problem, 30.0, 0.0).bound
    random = np.random.default_rng(5)
    for _ in range(20):
        assert problem.dual_bound(random.normal(size=problem.rows)) >= best - 1e-6


def test_restriction_keeps_the_objective_of_what_it_holds() -> None:
    problem = build(tiny(2)).problem
    x = solve(problem, 30.0, 0.0).x
    assert x is not None
    keep = np.random.default_rng(5).random(problem.columns) < 0.5
    part = problem.restricted(keep, x)
    assert part.cost @ x[keep] + part.offset == pytest.approx(problem.cost @ x + problem.offset)
    assert np.allclose(part.row_upper - part.activity(x[keep]), problem.row_upper - problem.activity(x))
