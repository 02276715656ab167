"""A step as other tools see it on the bus."""

from coordinator.records import StepRow
from coordinator.scenario import Scenario
from coordinator.timeline import Timeline
from hil.devices import Quality
from hil.wire import ActorState, MicrogridState

WORST_FIRST = (Quality.MISSING, Quality.SUSPECT, Quality.ESTIMATED, Quality.STALE, Quality.GOOD)


def microgrid_state(row: StepRow, timeline: Timeline, scenario: Scenario) -> MicrogridState:
    """The public state of a microgrid after a step; its quality is the worst of its inputs'."""
    result = row.result
    qualities = {given.quality for given in row.inputs}
    return MicrogridState(
        microgrid=row.microgrid,
        step=result.k,
        steps_total=timeline.steps,
        t=timeline.simulated(result.k + 1, scenario.zone),
        actors=[
            ActorState(name=given.actor, p_w=p_w, quality=given.quality)
            for given, p_w in zip(row.inputs, result.p_actors_w, strict=True)
        ],
        p_delta_w=result.p_delta_w,
        p_battery_w=result.p_battery_w,
        p_grid_w=result.p_grid_w,
        p_unserved_w=result.p_unserved_w,
        p_curtailed_w=result.p_curtailed_w,
        soc=result.soc,
        min_soc=result.settings.min_soc if result.soc is not None else None,
        charge_power_w=result.settings.charge_power_w,
        islanded=result.settings.islanded,
        carbon_g_per_kwh=row.carbon_g_per_kwh,
        price_per_mwh=row.price_per_mwh,
        emissions_g=result.emissions_g or 0.0,
        quality=next(quality for quality in WORST_FIRST if quality in qualities or quality is Quality.GOOD),
    )
