"""The joint plan beside every baseline: benefit in its parts, emissions, and the work that was done for it."""

from typing import Final

import msgspec
from rich.table import Table

from coordinator.planner.account import Account
from coordinator.planner.baselines import BASELINES, Scored, score, scored
from coordinator.planner.instance import Instance
from coordinator.planner.plan import Plan

JOINT: Final = "joint"


class Row(msgspec.Struct, frozen=True):
    """One way to plan; ``benefit_ratio`` and ``emissions_ratio`` are to the joint plan, None where that is 0."""

    name: str
    benefit: float
    compute_value: float
    energy_cash: float
    penalties: float
    emissions_kg: float
    jobs_run: int
    delay_slots: int
    served_share: float
    keeps_limits: bool
    benefit_ratio: float | None
    emissions_ratio: float | None


def compare(instance: Instance, joint: Plan, time_limit_s: float, gap: float) -> tuple[Row, ...]:
    """The joint plan's row, then one for each baseline that found a plan; each has the same time limit."""
    first = scored(JOINT, instance, joint)
    if first is None:
        raise ValueError(f"the joint plan does not fit {instance.name}")
    others = [score(instance, baseline, time_limit_s, gap) for baseline in BASELINES]
    return tuple(_row(one, first.account) for one in (first, *others) if one is not None)


def table_of(rows: tuple[Row, ...]) -> Table:
    """The comparison for people."""
    table = Table(box=None)
    for name in ("plan", "benefit", "ratio", "compute", "energy", "penalties", "kg CO2", "ratio", "jobs", "served"):
        table.add_column(name, justify="left" if name == "plan" else "right")
    table.add_column("limits")
    for row in rows:
        table.add_row(
            row.name,
            *(f"{value:.2f}" for value in (row.benefit,)),
            _ratio(row.benefit_ratio),
            *(f"{value:.2f}" for value in (row.compute_value, row.energy_cash, row.penalties, row.emissions_kg)),
            _ratio(row.emissions_ratio),
            str(row.jobs_run),
            f"{row.served_share:.1%}",
            "kept" if row.keeps_limits else "broken",
        )
    return table


def _row(one: Scored, joint: Account) -> Row:
    account = one.account
    return Row(
        one.name,
        account.benefit,
        account.compute_value,
        account.energy_cash,
        account.penalties,
        account.emissions_kg,
        account.jobs_run,
        account.delay_slots,
        account.served_share,
        one.keeps_limits,
        account.benefit / joint.benefit if joint.benefit else None,
        account.emissions_kg / joint.emissions_kg if joint.emissions_kg else None,
    )


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
