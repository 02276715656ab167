"""The controller of the paper's day: what it does, it decides from what it sees.

It sees, after every step, the powers of the actors, the battery, the carbon intensity of the grid, and the newest solar
forecast. It asks for a minimum soc, a charge power, the island, and a limit on the node; each with its reason.
"""

from collections.abc import Iterator
from datetime import datetime, time

from coordinator.controllers.api import Action, ChargePower, Island, Limit, MinSoc, Observation, StorageView

ISLAND_AT = time(18)
SAVING_AT = time(20)
NOON = time(12)

SPARE_SOC = 0.003  # act a few steps before the battery is at its minimum, so that no load goes unserved
REFILLED_SOC = 0.02  # how far above the usual minimum the battery counts as recharged
KEPT = 0.7  # the sun keeps its promise if it gives this share of what was forecast for now


class PaperDay:
    """Spends the battery in a dirty night, draws on the clean grid, and is back on its island in the evening."""

    def __init__(
        self,
        node: str,
        saving_w: float = 7.5,
        usual_soc: float = 0.5,
        low_soc: float = 0.3,
        dirty_g_per_kwh: float = 400.0,
        charge_power_w: float = 40.0,
        night_wh: float = 110.0,
    ) -> None:
        self.node = node
        self.saving_w = saving_w
        self.usual_soc = usual_soc
        self.low_soc = low_soc
        self.dirty_g_per_kwh = dirty_g_per_kwh
        self.charge_power_w = charge_power_w
        self.night_wh = night_wh

    def step(self, seen: Observation) -> Iterator[Action]:
        """What to change before the next step."""
        battery = seen.storage
        if battery is None:
            return
        if seen.islanded and battery.soc <= battery.min_soc + SPARE_SOC:
            yield self._go_on(seen, battery)
        if battery.min_soc < self.usual_soc and battery.soc >= self.usual_soc + REFILLED_SOC:
            yield MinSoc(self.usual_soc, f"battery recharged to {battery.soc:.0%}")
        if NOON <= seen.time.time() < ISLAND_AT and battery.charge_power_w is None:
            yield from self._refill(seen, battery)
        if seen.time.time() >= ISLAND_AT:
            yield from self._evening(seen, battery)
        if seen.time.time() >= SAVING_AT:
            yield Limit(self.node, self.saving_w, "power saving, so that the battery lasts the night")

    def _go_on(self, seen: Observation, battery: StorageView) -> Action:
        """At the minimum: go deeper if the grid is dirty and the sun will refill the battery, else join the grid."""
        carbon = seen.signals.value("carbon")
        surplus_wh = self._expected_surplus_wh(seen)
        grid = "carbon intensity unknown" if carbon is None else f"grid at {carbon:.0f} g/kWh"
        refill_wh = (self.usual_soc - self.low_soc) * battery.capacity_wh
        is_dirty = carbon is not None and carbon > self.dirty_g_per_kwh
        if is_dirty and battery.min_soc > self.low_soc and surplus_wh > refill_wh:
            return MinSoc(self.low_soc, f"{surplus_wh:.0f} Wh of spare sun forecast for today, {grid}")
        return Island(False, f"battery at {battery.soc:.0%}, {grid}")

    def _refill(self, seen: Observation, battery: StorageView) -> Iterator[Action]:
        """Wait for the sun as long as the charge power can still fill the gap until the evening, but no longer."""
        missing_wh = self.usual_soc * battery.capacity_wh + self.night_wh - battery.energy_wh
        sun_w, promised_w = seen.actors["solar"].p_w, seen.signals.value("solar") or 0.0
        if sun_w >= KEPT * promised_w:
            missing_wh -= self._expected_surplus_wh(seen)
        if missing_wh >= self.charge_power_w * hours(seen.time, ISLAND_AT):
            why = (
                f"the sun gives {sun_w:.0f} W of the {promised_w:.0f} W forecast, {missing_wh:.0f} Wh short of a night"
            )
            yield ChargePower(self.charge_power_w, why)

    def _evening(self, seen: Observation, battery: StorageView) -> Iterator[Action]:
        """Off the grid while it is dirty, with what the battery has."""
        if battery.charge_power_w is not None:
            yield ChargePower(None, f"{ISLAND_AT:%H:%M}, battery at {battery.soc:.0%}")
        if not seen.islanded and battery.soc > battery.min_soc + 2 * SPARE_SOC:
            yield Island(True, f"{ISLAND_AT:%H:%M}, battery at {battery.soc:.0%}")

    def _expected_surplus_wh(self, seen: Observation) -> float:
        """What the newest forecast leaves for the battery until the evening, with the node as it is now."""
        forecast = seen.signals.forecast("solar")
        evening = datetime.combine(seen.time, ISLAND_AT, seen.time.tzinfo)
        if forecast is None or seen.time >= evening:
            return 0.0
        powers_w = forecast.between(seen.time, evening)
        load_w = -seen.actors[self.node].p_w
        spare_w = [max(0.0, power_w - load_w) for power_w in powers_w]
        return sum(spare_w) / max(1, len(spare_w)) * hours(seen.time, ISLAND_AT)


def hours(now: datetime, until: time) -> float:
    """Hours from now until a time of the same day."""
    return (datetime.combine(now, until, now.tzinfo) - now).total_seconds() / 3600
