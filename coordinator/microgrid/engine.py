"""The engine: one microgrid, step by step."""

import math
from collections.abc import Iterable

import msgspec

from coordinator.microgrid.grid import NO_GRID, Grid, settle
from coordinator.microgrid.policy import Policy, default_order
from coordinator.microgrid.step import Energy, Settings, StepInput, StepResult
from coordinator.microgrid.storage import Storage
from hil.units import WH_PER_KWH, energy_wh


class MicrogridSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a microgrid needs to go on after a crash. ``storage`` is None where there is none."""

    storage: tuple[float, ...] | None
    settings: Settings
    energy: Energy
    emissions_g: float
    unaccounted_wh: float


class Microgrid:
    """Storage, grid and policy between the actors' powers and a balance; running totals since the start.

    ``energy`` by direction; ``emissions_g`` of imported energy, as far as the carbon intensity was known;
    ``unaccounted_wh`` is what was imported while it was not.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: Settings,
        storage: Storage | None = None,
        grid: Grid | None = None,
        policy: Policy = default_order,
    ) -> None:
        self.name = name
        self.storage = storage
        self.grid = grid
        self.energy = Energy()
        self.emissions_g = 0.0
        self.unaccounted_wh = 0.0
        self._policy = policy
        self._settings = settings

    @property
    def settings(self) -> Settings:
        """What holds from the next step on."""
        return self._settings

    @property
    def islanded(self) -> bool:
        """Whether nothing can flow from or to a grid."""
        return self.grid is None or self._settings.islanded

    def change(self, settings: Settings) -> None:
        """Let ``settings`` hold from the next step on. Raises ValueError where they make no sense."""
        if not 0.0 <= settings.min_soc <= 1.0:
            raise ValueError(f"min_soc is {settings.min_soc}, expected 0..1")
        if settings.charge_power_w is not None and not 0.0 <= settings.charge_power_w < math.inf:
            raise ValueError(f"charge_power_w is {settings.charge_power_w}, expected a finite number ≥ 0")
        self._settings = settings

    def step(self, given: StepInput) -> StepResult:
        """The outcome of one step. Raises ValueError for a power or an interval that is no finite number."""
        p_actors_w = tuple(actor.role.site_power_w(actor.power_w) + 0.0 for actor in given.actors)
        p_delta_w = _total(p_actors_w)
        if not (math.isfinite(p_delta_w) and 0.0 < given.dt_s < math.inf):
            raise ValueError(f"step {given.k} of {self.name}: actors at {p_actors_w} W over {given.dt_s} s")
        grid = NO_GRID if self.grid is None or self._settings.islanded else self.grid
        wanted_w, share = self._battery(p_delta_w, given.dt_s, grid.import_limit_w)
        p_battery_w = wanted_w * share
        p_grid_w, p_unserved_w, p_curtailed_w = _flows(p_delta_w, wanted_w, share, grid)
        if self.storage is not None:
            self.storage.apply(p_battery_w, given.dt_s, self._settings.min_soc)
        result = StepResult(
            k=given.k,
            t_us=given.t_us,
            dt_s=given.dt_s,
            p_actors_w=p_actors_w,
            p_delta_w=p_delta_w,
            p_battery_w=p_battery_w,
            p_grid_w=p_grid_w,
            p_unserved_w=p_unserved_w,
            p_curtailed_w=p_curtailed_w,
            soc=None if self.storage is None else self.storage.soc,
            settings=self._settings,
            emissions_g=_emissions_g(p_grid_w, given.dt_s, given.carbon_g_per_kwh),
            residual_w=p_delta_w + p_battery_w - p_grid_w + p_unserved_w - p_curtailed_w,
        )
        self._count(result)
        return result

    def snapshot(self) -> MicrogridSnapshot:
        """The state after the last step."""
        return MicrogridSnapshot(
            storage=None if self.storage is None else self.storage.snapshot(),
            settings=self._settings,
            energy=self.energy,
            emissions_g=self.emissions_g,
            unaccounted_wh=self.unaccounted_wh,
        )

    def restore(self, snapshot: MicrogridSnapshot) -> None:
        """Go on from ``snapshot``; a storage that it knows nothing of keeps the state it has."""
        if self.storage is not None and snapshot.storage is not None:
            self.storage.restore(snapshot.storage)
        self._settings = snapshot.settings
        self.energy = snapshot.energy
        self.emissions_g = snapshot.emissions_g
        self.unaccounted_wh = snapshot.unaccounted_wh

    def _battery(self, p_delta_w: float, dt_s: float, import_limit_w: float) -> tuple[float, float]:
        """Battery power in W, and the part of the step for which it lasts."""
        if self.storage is None:
            return 0.0, 1.0
        settings = self._settings
        lowest_w, highest_w = self.storage.power_range(dt_s, settings.min_soc)
        wanted_w = self._policy(p_delta_w, lowest_w, highest_w, import_limit_w, settings.charge_power_w)
        return wanted_w, self.storage.share(wanted_w, dt_s, settings.min_soc)

    def _count(self, result: StepResult) -> None:
        self.energy = self.energy.plus(Energy.of_step(result))
        if result.emissions_g is None:
            self.unaccounted_wh += energy_wh(-result.p_grid_w, result.dt_s)
        else:
            self.emissions_g += result.emissions_g


def _total(powers_w: Iterable[float]) -> float:
    # Not sum(): it rounds differently from Python 3.12 on, and a replay must give the same bytes.
    total_w = 0.0
    for power_w in powers_w:
        total_w += power_w
    return total_w


def _flows(p_delta_w: float, wanted_w: float, share: float, grid: Grid) -> tuple[float, float, float]:
    """Mean grid, unserved and curtailed power in W of a step in which the battery gives ``wanted_w`` for ``share``.

    A battery that comes to its bound within the step is idle from there on. Both parts are settled apart, so that the
    grid's limits mean the same however long the steps are.
    """
    during = settle(p_delta_w + wanted_w, grid.import_limit_w, grid.export_limit_w)
    if share == 1.0:
        return during
    after = settle(p_delta_w, grid.import_limit_w, grid.export_limit_w)
    p_grid_w, p_unserved_w, p_curtailed_w = (
        share * first + (1.0 - share) * then for first, then in zip(during, after, strict=True)
    )
    return p_grid_w, p_unserved_w, p_curtailed_w


def _emissions_g(p_grid_w: float, dt_s: float, carbon_g_per_kwh: float | None) -> float | None:
    """Emissions of imported energy; None where the intensity is unknown."""
    if p_grid_w >= 0.0:
        return 0.0
    if carbon_g_per_kwh is None:
        return None
    return energy_wh(-p_grid_w, dt_s) / WH_PER_KWH * carbon_g_per_kwh
