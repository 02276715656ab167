"""A planning instance, ``wattloop/plan-instance/1``: sites, jobs, inference, batch work, and limits of carbon and grid.

Series hold one number a slot. Slot ranges are half open: ``deadline_slot`` and ``end_slot`` are the first outside.
Everything below the blank line of a struct may be left out, and is then off.
"""

from typing import Annotated, Final, Literal

import msgspec

from hil.yamlfile import Section

SCHEMA: Final = "wattloop/plan-instance/1"

NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Efficiency = Annotated[float, msgspec.Meta(gt=0, le=1)]
Slot = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Identity = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Series = tuple[float, ...]
Amounts = tuple[NonNegative, ...]


class Generator(Section, frozen=True, kw_only=True):
    """Local generation: nothing, or between ``min_kw`` and ``max_kw``; each start costs."""

    max_kw: NonNegative
    min_kw: NonNegative
    cost_per_kwh: float
    start_cost: NonNegative
    carbon_kg_per_kwh: NonNegative

    ramp_kw_per_slot: Positive | None = None
    initially_on: bool = False


class Grid(Section, frozen=True, kw_only=True):
    """The connection: its limits, and what the highest import of the billing period costs."""

    import_max_kw: NonNegative
    export_max_kw: NonNegative

    demand_charge_per_kw: NonNegative = 0.0
    peak_so_far_kw: NonNegative = 0.0


class Battery(Section, frozen=True, kw_only=True):
    """A storage at the site's bus; wear is paid on charged plus discharged energy."""

    capacity_kwh: NonNegative
    power_kw: NonNegative
    charge_efficiency: Efficiency
    discharge_efficiency: Efficiency
    initial_kwh: NonNegative
    min_kwh: NonNegative
    final_min_kwh: NonNegative
    wear_per_kwh: NonNegative


class Window(Section, frozen=True, kw_only=True):
    """Slots ``start_slot`` up to, not including, ``end_slot``."""

    start_slot: Slot
    end_slot: Slot


class Site(Section, frozen=True, kw_only=True):
    """A microgrid with GPUs; every kW of computing, idle power included, costs ``pue`` kW at the bus."""

    id: Identity
    gpus: NonNegative
    idle_kw: NonNegative
    pue: tuple[Annotated[float, msgspec.Meta(ge=1)], ...]
    buy_price_per_kwh: Series
    sell_price_per_kwh: Series
    carbon_kg_per_kwh: Amounts
    renewable_kw: Amounts
    generator: Generator | None
    grid: Grid
    battery: Battery | None

    outages: tuple[Window, ...] = ()


class CapLevel(Section, frozen=True, kw_only=True):
    """Another way to run a job: a lower power cap that takes more slots."""

    name: Identity
    slots: Count
    power_kw: NonNegative


class Job(Section, frozen=True, kw_only=True):
    """A rigid job: ``slots`` slots without pause at one site. ``running_site`` says that it runs there already."""

    id: Identity
    gpus: NonNegative
    slots: Count
    release_slot: Slot
    deadline_slot: Slot
    value: float
    lateness_per_slot: NonNegative
    power_kw: NonNegative
    sites: tuple[str, ...]

    must_run: bool = False
    running_site: str | None = None
    levels: tuple[CapLevel, ...] = ()
    transfer_cost: dict[str, NonNegative] = msgspec.field(default_factory=dict)


class Inference(Section, frozen=True, kw_only=True):
    """A request class; ``sites`` lists those that meet its latency objective, with network cost per unit and hour."""

    id: Identity
    demand: Amounts
    gpus_per_unit: NonNegative
    kw_per_unit: NonNegative
    revenue_per_unit_h: float
    drop_penalty_per_unit_h: NonNegative
    sites: dict[str, float]

    max_units: dict[str, NonNegative] = msgspec.field(default_factory=dict)


class Batch(Section, frozen=True, kw_only=True):
    """Fluid work in GPU-hours between two cumulative curves: what has arrived and what is due by each slot's end.

    Periodic work is a curve with steps. ``sites`` gives the transfer cost per GPU-hour of each eligible site.
    """

    id: Identity
    kw_per_gpu: NonNegative
    max_gpus: NonNegative
    value_per_gpu_h: float
    arrived_gpu_h: Amounts
    due_gpu_h: Amounts
    sites: dict[str, NonNegative]


class DemandResponse(Section, frozen=True, kw_only=True):
    """A signal on a site's import: at most (``down``) or at least (``up``) ``limit_kw``.

    A firm signal is a hard limit; otherwise each kWh beside it costs ``price_per_kwh``.
    """

    id: Identity
    site: str
    start_slot: Slot
    end_slot: Slot
    direction: Literal["down", "up"]
    limit_kw: NonNegative
    price_per_kwh: NonNegative
    firm: bool


class Instance(Section, frozen=True, kw_only=True):
    """What is to be planned. ``carbon_budget_kg`` is hard unless an excess price is given."""

    schema: Literal["wattloop/plan-instance/1"]
    name: Identity
    slot_h: Positive
    slots: Count
    sites: tuple[Site, ...]
    jobs: tuple[Job, ...]
    inference: tuple[Inference, ...]
    carbon_budget_kg: NonNegative | None

    carbon_excess_price_per_kg: NonNegative | None = None
    carbon_price_per_kg: NonNegative = 0.0
    batch: tuple[Batch, ...] = ()
    demand_response: tuple[DemandResponse, ...] = ()


class Candidate(msgspec.Struct, frozen=True):
    """One way to run a job somewhere: its level's name (None: uncapped), slots, power, and the first and last start."""

    level: str | None
    site: str
    slots: int
    power_kw: float
    first_start: int
    last_start: int


def candidates(job: Job, slots: int) -> list[Candidate]:
    """All ways to run a job within a horizon of ``slots`` slots; those whose window is empty are left out."""
    ways = [(None, job.slots, job.power_kw), *((level.name, level.slots, level.power_kw) for level in job.levels)]
    if job.running_site is not None:
        return [Candidate(None, job.running_site, min(job.slots, slots), job.power_kw, 0, 0)]
    end = min(job.deadline_slot, slots)
    return [
        Candidate(level, site, length, power_kw, job.release_slot, end - length)
        for site in dict.fromkeys(job.sites)
        for level, length, power_kw in ways
        if end - length >= job.release_slot
    ]


def outage(site: Site, slot: int) -> bool:
    """Whether the grid is announced to be away in that slot."""
    return any(window.start_slot <= slot < window.end_slot for window in site.outages)
