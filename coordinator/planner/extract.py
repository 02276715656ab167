"""A solution vector of the model as a plan, and a plan's jobs as start columns."""

from collections.abc import Iterable

import numpy as np

from coordinator.planner.account import stated
from coordinator.planner.matrix import Floats, Ints
from coordinator.planner.model import Model, SiteColumns
from coordinator.planner.plan import Placement, Plan, Series, SitePlan

_DECIMALS = 9


def plan_of(model: Model, x: Floats, method: str, shadow_carbon_price: float | None) -> Plan:
    """The plan in a solution whose integers are whole up to rounding; bound, gap and time are left open."""
    instance, x = model.instance, np.clip(x, model.problem.lower, model.problem.upper)
    sites = {site.id: _site(model.sites[index], x) for index, site in enumerate(instance.sites)}
    plan = Plan(
        instance=instance.name,
        objective=0.0,
        bound=None,
        gap=None,
        method=method,
        wall_s=0.0,
        emissions_kg=0.0,
        shadow_carbon_price=shadow_carbon_price,
        jobs=tuple(_placements(model, x)),
        routing=_routes(model, x, [item.id for item in instance.inference], model.routed),
        dropped={item.id: _series(x, columns) for item, columns in zip(instance.inference, model.dropped, strict=True)},
        sites=sites,
        batch=_routes(model, x, [item.id for item in instance.batch], model.batch),
    )
    return stated(instance, plan)


def chosen_starts(model: Model, x: Floats) -> Ints:
    """The numbers of the starts that a solution makes."""
    return np.flatnonzero(x[model.start_columns] > 0.5)


def _placements(model: Model, x: Floats) -> Iterable[Placement]:
    for number in chosen_starts(model, x):
        way = model.starts.ways[model.starts.way[number]]
        job = model.instance.jobs[model.starts.job[number]]
        yield Placement(id=job.id, site=way.site, start_slot=int(model.starts.slot[number]), level=way.level)


def _routes(
    model: Model, x: Floats, names: list[str], columns: dict[tuple[int, int], Ints]
) -> dict[str, dict[str, Series]]:
    routes: dict[str, dict[str, Series]] = {name: {} for name in names}
    for (part, site), numbers in columns.items():
        routes[names[part]][model.instance.sites[site].id] = _series(x, numbers)
    return routes


def _site(columns: SiteColumns, x: Floats) -> SitePlan:
    nothing = (0.0,) * len(columns.imported)
    on = nothing if columns.on is None else tuple(np.round(x[columns.on]).tolist())
    generated = nothing if columns.generated is None else _series(x, columns.generated)
    return SitePlan(
        renewable_kw=_series(x, columns.renewable),
        generator_kw=tuple(power_kw * state for power_kw, state in zip(generated, on, strict=True)),
        generator_on=tuple(int(state) for state in on),
        import_kw=_series(x, columns.imported),
        export_kw=_series(x, columns.exported),
        charge_kw=nothing if columns.charge is None else _series(x, columns.charge),
        discharge_kw=nothing if columns.discharge is None else _series(x, columns.discharge),
        soc_kwh=nothing if columns.soc is None else _series(x, columns.soc),
        unserved_kw=_series(x, columns.unserved) if x[columns.unserved].max(initial=0.0) > 1e-9 else (),
    )


def _series(x: Floats, columns: Ints) -> Series:
    return tuple((np.round(x[columns], _DECIMALS) + 0.0).tolist())
