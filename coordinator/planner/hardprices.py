"""What breaking a hard limit is priced at: above all value that the breach could buy."""

from dataclasses import dataclass
from typing import Final

from coordinator.planner.instance import Instance, Job

_ABOVE: Final = 100.0
_ABOVE_KG: Final = 30.0
_CLEAN_KG_PER_KWH: Final = 0.02


@dataclass(frozen=True, slots=True)
class HardPrices:
    """Currency per unit of breach."""

    per_kwh: float
    per_kg: float
    per_gpu_h: float

    def job(self, job: Job, slot_h: float) -> float:
        """Currency for leaving a must-run job out."""
        return abs(job.value) + self.per_gpu_h * max(1.0, job.gpus) * job.slots * slot_h


def hard_prices(instance: Instance) -> HardPrices:
    """Prices above the best value density of anything in the instance."""
    per_kwh, per_gpu_h = [0.1], [0.1]
    for site in instance.sites:
        per_kwh += [abs(price) for price in (*site.buy_price_per_kwh, *site.sell_price_per_kwh)]
        per_kwh += [site.generator.cost_per_kwh] if site.generator else []
    for item in instance.inference:
        value = item.revenue_per_unit_h + item.drop_penalty_per_unit_h
        per_kwh.append(_density(value, item.kw_per_unit))
        per_gpu_h.append(_density(value, item.gpus_per_unit))
    for job in instance.jobs:
        per_kwh.append(_density(job.value, job.power_kw * job.slots * instance.slot_h))
        per_gpu_h.append(_density(job.value, job.gpus * job.slots * instance.slot_h))
    for batch in instance.batch:
        per_kwh.append(_density(batch.value_per_gpu_h, batch.kw_per_gpu))
        per_gpu_h.append(abs(batch.value_per_gpu_h))
    carbon = [kg for site in instance.sites for kg in site.carbon_kg_per_kwh if kg > 0]
    carbon += [site.generator.carbon_kg_per_kwh for site in instance.sites if site.generator]
    clean = max(_CLEAN_KG_PER_KWH, min((kg for kg in carbon if kg > 0), default=1.0))
    kg = _ABOVE_KG * max(per_kwh) / clean
    kwh = max(_ABOVE * max(per_kwh), 2.0 * kg * max(carbon, default=0.0))  # a blackout is worse than a broken budget
    return HardPrices(kwh, kg, _ABOVE * max(per_gpu_h))


def _density(value: float, amount: float) -> float:
    return abs(value) / amount if amount > 1e-3 else 0.0
