"""Where a plan could earn by charging and discharging, or importing and exporting, at once.

Only there the model needs a binary: everywhere else burning energy costs, and the optimum does not.
"""

import numpy as np

from coordinator.planner.instance import Instance, Site
from coordinator.planner.matrix import Bools


def grid_may_cheat(instance: Instance, site: Site) -> Bools:
    """Slots in which both importing and exporting could pay: selling at no less than buying, or a floor on import."""
    buy = np.array(site.buy_price_per_kwh) + instance.carbon_price_per_kg * np.array(site.carbon_kg_per_kwh)
    cheap = np.array(site.sell_price_per_kwh) >= buy
    return (cheap | _import_wanted(instance, site)) & (site.grid.export_max_kw > 0)


def battery_may_cheat(instance: Instance, site: Site) -> Bools:
    """Slots in which burning energy in the battery could pay: paid imports, import floors, a generator too large."""
    buy = np.array(site.buy_price_per_kwh) + instance.carbon_price_per_kg * np.array(site.carbon_kg_per_kwh)
    return (buy < 0) | _import_wanted(instance, site) | _generator_floods(site)


def _import_wanted(instance: Instance, site: Site) -> Bools:
    wanted = np.zeros(instance.slots, bool)
    for signal in instance.demand_response:
        if signal.site == site.id and signal.direction == "up":
            wanted[signal.start_slot : signal.end_slot] = True
    return wanted


def _generator_floods(site: Site) -> Bools:
    """Slots in which the generator's least power finds no outlet but the battery."""
    generator = site.generator
    idle_kw = site.idle_kw * np.array(site.pue)
    if generator is None:
        return np.zeros(len(idle_kw), bool)
    least_kw = generator.min_kw if generator.ramp_kw_per_slot is None else generator.max_kw
    outlet_kw = np.where(np.array(site.sell_price_per_kwh) >= 0, site.grid.export_max_kw, 0.0)
    for window in site.outages:
        outlet_kw[window.start_slot : window.end_slot] = 0.0
    return least_kw > idle_kw + outlet_kw
