import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.microgrid.engine import Microgrid
from coordinator.microgrid.grid import Grid
from coordinator.microgrid.step import ActorInput, Energy, Role, Settings, StepInput, StepResult
from coordinator.microgrid.storage import LosslessBattery

UNLIMITED = Grid()


def grid_of(
    capacity_wh: float = 250.0,
    soc: float = 0.6,
    min_soc: float = 0.5,
    grid: Grid | None = UNLIMITED,
    charge_power_w: float | None = None,
    islanded: bool = False,
) -> Microgrid:
    return Microgrid(
        "lab",
        storage=LosslessBattery(capacity_wh, soc),
        grid=grid,
        settings=Settings(min_soc=min_soc, charge_power_w=charge_power_w, islanded=islanded),
    )


def step(microgrid: Microgrid, load_w: float, solar_w: float = 0.0, dt_s: float = 60.0, **rest: float) -> StepResult:
    actors = (ActorInput("node", Role.LOAD, load_w), ActorInput("solar", Role.PRODUCER, solar_w))
    return microgrid.step(StepInput(k=0, t_us=0, dt_s=dt_s, actors=actors, **rest))


def test_a_deficit_is_met_by_the_battery_then_by_the_grid() -> None:
    microgrid = grid_of(soc=0.6, min_soc=0.5)  # 25 Wh above the minimum
    result = step(microgrid, load_w=30.0, dt_s=3600.0)
    assert result.p_delta_w == -30.0
    assert result.p_battery_w == pytest.approx(25.0)
    assert result.p_grid_w == pytest.approx(-5.0)
    assert result.soc == 0.5
    assert result.p_unserved_w == 0.0


def test_a_deficit_on_an_island_is_unserved_below_the_minimum() -> None:
    result = step(grid_of(soc=0.5, min_soc=0.5, islanded=True), load_w=15.0)
    assert (result.p_battery_w, result.p_grid_w, result.p_unserved_w) == (0.0, 0.0, 15.0)


def test_a_surplus_charges_then_is_exported() -> None:
    result = step(grid_of(soc=0.9), load_w=0.0, solar_w=50.0, dt_s=3600.0)
    assert result.p_battery_w == pytest.approx(-25.0)
    assert result.p_grid_w == pytest.approx(25.0)
    assert result.soc == 1.0


def test_a_surplus_on_an_island_is_curtailed_when_full() -> None:
    result = step(grid_of(soc=1.0, grid=None), load_w=0.0, solar_w=50.0)
    assert (result.p_battery_w, result.p_grid_w, result.p_curtailed_w) == (0.0, 0.0, 50.0)


def test_grid_limits_bind() -> None:
    limited = Grid(import_limit_w=10.0, export_limit_w=5.0)
    bought = step(grid_of(soc=0.5, grid=limited), load_w=15.0)
    assert (bought.p_grid_w, bought.p_unserved_w) == (-10.0, 5.0)
    sold = step(grid_of(soc=1.0, grid=limited), load_w=0.0, solar_w=50.0)
    assert (sold.p_grid_w, sold.p_curtailed_w) == (5.0, 45.0)


def test_the_worked_step_of_the_paper() -> None:
    # 300 W lacking over 300 s ask 25 Wh of the battery; with 10 Wh left, 15 Wh remain open.
    microgrid = Microgrid("lab", storage=LosslessBattery(100.0, 0.1), settings=Settings(min_soc=0.0))
    step(microgrid, load_w=300.0, dt_s=300.0)
    assert microgrid.energy.discharged == pytest.approx(10.0)
    assert microgrid.energy.unserved == pytest.approx(15.0)


def test_a_forced_charge_draws_on_the_grid() -> None:
    result = step(grid_of(charge_power_w=40.0), load_w=15.0, solar_w=10.0)
    assert (result.p_battery_w, result.p_grid_w) == (-40.0, -45.0)


def test_a_forced_charge_exports_what_the_sun_gives_beyond_it() -> None:
    result = step(grid_of(charge_power_w=10.0), load_w=15.0, solar_w=50.0)
    assert (result.p_battery_w, result.p_grid_w) == (-10.0, 25.0)


def test_a_forced_charge_ends_at_full() -> None:
    microgrid = grid_of(soc=0.9, charge_power_w=40.0)
    result = step(microgrid, load_w=0.0, dt_s=3600.0)
    assert result.soc == 1.0
    assert microgrid.energy.charged == pytest.approx(25.0)
    assert step(microgrid, load_w=15.0).p_grid_w == -15.0


@pytest.mark.parametrize(
    ("solar_w", "p_battery_w", "p_unserved_w", "p_curtailed_w"),
    [(60.0, -40.0, 0.0, 5.0), (35.0, -20.0, 0.0, 0.0), (10.0, 5.0, 0.0, 0.0)],
)
def test_a_forced_charge_on_an_island_takes_only_surplus(
    solar_w: float, p_battery_w: float, p_unserved_w: float, p_curtailed_w: float
) -> None:
    result = step(grid_of(charge_power_w=40.0, islanded=True), load_w=15.0, solar_w=solar_w)
    assert (result.p_battery_w, result.p_unserved_w) == (p_battery_w, p_unserved_w)
    assert result.p_curtailed_w == p_curtailed_w


def test_a_forced_charge_yields_to_loads_behind_an_import_limit() -> None:
    some = step(grid_of(charge_power_w=40.0, grid=Grid(import_limit_w=30.0)), load_w=15.0)
    assert (some.p_battery_w, some.p_grid_w) == (-15.0, -30.0)
    none = step(grid_of(charge_power_w=40.0, grid=Grid(import_limit_w=10.0)), load_w=15.0)
    assert (none.p_battery_w, none.p_grid_w, none.p_unserved_w) == (5.0, -10.0, 0.0)


def test_a_minimum_raised_above_the_charge_neither_discharges_nor_charges() -> None:
    microgrid = grid_of(soc=0.4, min_soc=0.3)
    microgrid.change(Settings(min_soc=0.5))
    result = step(microgrid, load_w=15.0)
    assert (result.p_battery_w, result.p_grid_w, result.soc) == (0.0, -15.0, 0.4)
    assert step(microgrid, load_w=15.0, solar_w=45.0).p_battery_w == -30.0


def test_power_limits_of_the_battery_bind() -> None:
    battery = LosslessBattery(250.0, 0.6, max_charge_w=20.0, max_discharge_w=10.0)
    microgrid = Microgrid("lab", storage=battery, grid=Grid(), settings=Settings(min_soc=0.5))
    assert step(microgrid, load_w=15.0).p_battery_w == 10.0
    assert step(microgrid, load_w=0.0, solar_w=50.0).p_battery_w == -20.0


def test_neither_storage_nor_grid_is_needed() -> None:
    bare = Microgrid("bare", settings=Settings(min_soc=0.0))
    assert bare.islanded
    result = step(bare, load_w=15.0, solar_w=5.0)
    assert (result.p_unserved_w, result.soc, result.p_battery_w) == (10.0, None, 0.0)
    tied = Microgrid("tied", grid=Grid(), settings=Settings(min_soc=0.0, charge_power_w=40.0))
    assert step(tied, load_w=15.0, solar_w=5.0).p_grid_w == -10.0


def test_emissions_of_imports_alone_are_counted() -> None:
    microgrid = grid_of(soc=0.5)
    assert step(microgrid, load_w=1000.0, dt_s=3600.0, carbon_g_per_kwh=400.0).emissions_g == pytest.approx(400.0)
    assert step(microgrid, load_w=0.0, solar_w=1000.0, carbon_g_per_kwh=400.0).emissions_g == 0.0
    assert microgrid.emissions_g == pytest.approx(400.0)
    assert microgrid.unaccounted_wh == 0.0


def test_imports_of_unknown_carbon_are_told_apart() -> None:
    microgrid = grid_of(soc=0.5)
    assert step(microgrid, load_w=10.0, dt_s=3600.0).emissions_g is None
    assert (microgrid.emissions_g, microgrid.unaccounted_wh) == (0.0, 10.0)


def test_a_reading_below_zero_is_taken_as_read() -> None:
    assert step(grid_of(), load_w=-0.01).p_actors_w[0] == 0.01


@pytest.mark.parametrize(("load_w", "dt_s"), [(math.nan, 60.0), (math.inf, 60.0), (15.0, 0.0), (15.0, math.nan)])
def test_no_number_is_refused_before_it_reaches_the_state(load_w: float, dt_s: float) -> None:
    microgrid = grid_of()
    before = microgrid.snapshot()
    with pytest.raises(ValueError, match="step 0 of lab"):
        step(microgrid, load_w=load_w, dt_s=dt_s)
    assert microgrid.snapshot() == before


@pytest.mark.parametrize(
    "bad",
    [Settings(min_soc=1.1), Settings(min_soc=math.nan), Settings(min_soc=0.5, charge_power_w=-1.0)],
)
def test_settings_that_make_no_sense_are_refused(bad: Settings) -> None:
    with pytest.raises(ValueError, match="expected"):
        grid_of().change(bad)


def test_a_snapshot_goes_on_as_if_nothing_had_happened() -> None:
    one, other = grid_of(), grid_of()
    for load_w in (15.0, 33.3, 7.1):
        step(one, load_w, solar_w=20.0)
    other.restore(one.snapshot())
    assert step(other, 15.0) == step(one, 15.0)
    assert other.snapshot() == one.snapshot()


# --- properties -------------------------------------------------------------------------------------------------------

watts = st.floats(0.0, 1e4, allow_subnormal=False).map(lambda power_w: round(power_w, 3))
fraction = st.floats(0.0, 1.0).map(lambda share: round(share, 6))
limit = st.one_of(st.just(math.inf), watts)
microgrids = st.fixed_dictionaries(
    {
        "capacity_wh": st.floats(1.0, 1e5),
        "soc": fraction,
        "min_soc": fraction,
        "grid": st.one_of(st.none(), st.builds(Grid, import_limit_w=limit, export_limit_w=limit)),
        "charge_power_w": st.one_of(st.none(), watts),
        "islanded": st.booleans(),
    }
)
days = st.lists(st.tuples(watts, watts, st.floats(0.05, 7200.0)), min_size=1, max_size=12)


@given(microgrids, days)
@settings(max_examples=400, deadline=None)
def test_every_step_balances_and_keeps_its_bounds(
    how: dict[str, object], day: list[tuple[float, float, float]]
) -> None:
    microgrid = grid_of(**how)  # type: ignore[arg-type]
    soc = microgrid.storage.soc
    for load_w, solar_w, dt_s in day:
        result = step(microgrid, load_w, solar_w, dt_s)
        largest_w = max(load_w, solar_w, abs(result.p_battery_w), abs(result.p_grid_w), 1e-3)
        assert abs(result.residual_w) <= 1e-9 * largest_w
        assert 0.0 <= result.soc <= 1.0
        assert result.soc >= min(soc, how["min_soc"])
        stored_wh = (result.soc - soc) * how["capacity_wh"]
        assert stored_wh == pytest.approx(-result.p_battery_w * dt_s / 3600.0, abs=1e-9 * how["capacity_wh"])
        if microgrid.islanded:
            assert result.p_grid_w == 0.0
        else:
            slack_w = 1e-9 * largest_w
            assert -microgrid.grid.import_limit_w - slack_w <= result.p_grid_w
            assert result.p_grid_w <= microgrid.grid.export_limit_w + slack_w
        assert result.p_unserved_w >= 0.0
        assert result.p_curtailed_w >= 0.0
        soc = result.soc


def _net(energy: Energy) -> tuple[float, ...]:
    return (
        energy.produced,
        energy.consumed,
        energy.imported - energy.exported,
        energy.charged,
        energy.discharged,
        energy.unserved,
        energy.curtailed,
    )


@given(microgrids, days, st.integers(2, 7))
@settings(max_examples=300, deadline=None)
def test_splitting_a_step_changes_nothing(
    how: dict[str, object], day: list[tuple[float, float, float]], parts: int
) -> None:
    whole, split = grid_of(**how), grid_of(**how)  # type: ignore[arg-type]
    for load_w, solar_w, dt_s in day:
        step(whole, load_w, solar_w, dt_s)
        for _ in range(parts):
            step(split, load_w, solar_w, dt_s / parts)
    scale_wh = max(how["capacity_wh"], *_net(whole.energy))
    assert _net(split.energy) == pytest.approx(_net(whole.energy), abs=1e-9 * scale_wh)
    assert split.storage.soc == pytest.approx(whole.storage.soc, abs=1e-9 * scale_wh / how["capacity_wh"])


# --- the reference totals ---------------------------------------------------------------------------------------------

MASK = 2**64 - 1


def mix(n: int) -> float:
    n = (n + 0x9E3779B97F4A7C15) & MASK
    n = ((n ^ n >> 30) * 0xBF58476D1CE4E5B9) & MASK
    n = ((n ^ n >> 27) * 0x94D049BB133111EB) & MASK
    return ((n ^ n >> 31) >> 11) / 2**53


def reference_solar_w(sec: int) -> float:
    """A deterministic 5-minute trace: season, cloudy days, flicker, and a sine from sunrise to sunset."""
    day, tod = divmod(sec, 86400)
    hour = tod / 3600
    season = 0.6 + 0.4 * math.sin(2 * math.pi * ((day % 365) - 80) / 365)
    daylen = 8 + 8 * (season - 0.2) / 0.8
    rise = 12 - daylen / 2
    if not rise < hour < rise + daylen:
        return 0.0
    clouds = (0.25 + 0.75 * mix(day)) * (0.85 + 0.15 * mix(1000003 + sec // 300))
    return round(50 * season * clouds * math.sin(math.pi * (hour - rise) / daylen), 6)


def test_thirty_days_match_the_reference_totals_to_a_milliwatt_hour() -> None:
    microgrid = grid_of()
    solar_w = 0.0
    for k in range(30 * 1440):
        if k % 5 == 0:
            solar_w = reference_solar_w(60 * k)
        step(microgrid, load_w=15.0, solar_w=solar_w)
    energy = microgrid.energy
    assert energy.produced == pytest.approx(1167.395, abs=0.001)
    assert energy.consumed == pytest.approx(10800.000, abs=0.001)
    assert energy.imported == pytest.approx(9607.605, abs=0.001)
    assert energy.exported == 0.0
    assert (energy.unserved, energy.curtailed) == (0.0, 0.0)
