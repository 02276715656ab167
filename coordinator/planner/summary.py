"""A plan and an explanation in a few lines for people, or as one object for programs."""

import msgspec

from coordinator.planner.account import account_of
from coordinator.planner.comparison import Row
from coordinator.planner.explain import Alternative, Explanation
from coordinator.planner.instance import Instance
from coordinator.planner.plan import Broken, Plan


class Summary(msgspec.Struct, frozen=True):
    """What a plan amounts to; currency, kg, and shares 0..1."""

    instance: str
    objective: float
    bound: float | None
    gap: float | None
    method: str
    wall_s: float
    compute_value: float
    energy_cash: float
    penalties: float
    emissions_kg: float
    shadow_carbon_price: float | None
    jobs_run: int
    jobs_asked: int
    served_share: float
    broken: tuple[Broken, ...]
    flags: tuple[str, ...]
    baselines: tuple[Row, ...] = ()


def summary_of(instance: Instance, plan: Plan, rows: tuple[Row, ...] = ()) -> Summary:
    """The summary of a plan that fits the instance."""
    account = account_of(instance, plan)
    return Summary(
        plan.instance,
        plan.objective,
        plan.bound,
        plan.gap,
        plan.method,
        plan.wall_s,
        account.compute_value,
        account.energy_cash,
        account.penalties,
        account.emissions_kg,
        plan.shadow_carbon_price,
        account.jobs_run,
        len(instance.jobs),
        account.served_share,
        plan.broken,
        plan.flags,
        rows,
    )


def plan_lines(instance: Instance, summary: Summary) -> list[str]:
    """The summary for people."""
    gap = "no bound" if summary.gap is None else f"certified gap {summary.gap:.4%}"
    penalties = -summary.penalties or 0.0
    lines = [
        f"{summary.instance}: benefit {summary.objective:.2f}, {gap}, by {summary.method} in {summary.wall_s:.1f} s",
        f"  compute {summary.compute_value:+.2f}, energy {summary.energy_cash:+.2f}, penalties {penalties:+.2f}",
        f"  {summary.jobs_run} of {summary.jobs_asked} jobs, {summary.served_share:.1%} of requests served",
        f"  {summary.emissions_kg:.2f} kg CO2{_budget(instance, summary)}",
    ]
    lines += [f"  broken: {broken.limit}: {broken.amount:.6g} {broken.unit}" for broken in summary.broken]
    return lines + [f"  note: {flag}" for flag in summary.flags]


def explanation_lines(explanation: Explanation) -> list[str]:
    """The explanation for people: where the job stands, then what else was possible and at what loss."""
    job, placed = explanation.job, explanation.placed
    where = "left out" if placed is None else f"at {placed.site} from slot {placed.start_slot}{_level(placed.level)}"
    lines = [f"{job.id} ({job.gpus:g} GPUs, {job.slots} slots): {where}, worth {explanation.worth:.2f} before energy"]
    lines += [f"  {_alternative(other)}" for other in explanation.alternatives]
    if not explanation.alternatives:
        lines.append("  no other way fits its release, deadline and sites")
    return lines


def _alternative(other: Alternative) -> str:
    where = "left out" if other.site is None else f"{other.site} from slot {other.start_slot}{_level(other.level)}"
    outcome = f"the plan loses {other.loss:.2f}" if other.loss >= 0 else f"the plan gains {-other.loss:.2f}"
    return f"{where}: {outcome}" if not other.broken else f"{where}: breaks {other.broken} hard limits"


def _level(level: str | None) -> str:
    return f" at {level}" if level else ""


def _budget(instance: Instance, summary: Summary) -> str:
    if instance.carbon_budget_kg is None:
        return ""
    price = summary.shadow_carbon_price
    worth = "" if price is None else f"; one more kg is worth {price:.4f}"
    return f" of {instance.carbon_budget_kg:.2f}{worth}"
