"""A plan, ``wattloop/plan/1``: what each job, request class and device does in each slot, and its certificate.

``objective`` leaves out what broken hard limits would cost; ``bound`` is the least proved upper bound and ``gap`` =
(bound − plan)/|bound|, where the plan is charged for its broken hard limits. ``soc_kwh`` holds the ends of the slots.
"""

import math
from pathlib import Path
from typing import Final, Literal

import msgspec

from coordinator.planner.instancefile import read_json
from hil.yamlfile import ConfigError, Document, Section, faults_of

SCHEMA: Final = "wattloop/plan/1"

Series = tuple[float, ...]


class Placement(Section, frozen=True, kw_only=True, omit_defaults=True):
    """One job that runs; ``level`` is its power-cap level, none at full power."""

    id: str
    site: str
    start_slot: int
    level: str | None = None


class SitePlan(Section, frozen=True, kw_only=True):
    """The devices of one site, in kW a slot."""

    renewable_kw: Series
    generator_kw: Series
    generator_on: tuple[int, ...]
    import_kw: Series
    export_kw: Series
    charge_kw: Series
    discharge_kw: Series
    soc_kwh: Series
    unserved_kw: Series = ()


class Broken(Section, frozen=True, kw_only=True):
    """A hard limit that the plan breaks: its name, by how much, and the unit."""

    limit: str
    amount: float
    unit: str


class Plan(Section, frozen=True, kw_only=True):
    """A whole plan. ``method`` names what found it; ``flags`` tell what went wrong on the way."""

    schema: Literal["wattloop/plan/1"] = "wattloop/plan/1"
    instance: str
    objective: float
    bound: float | None
    gap: float | None
    method: str
    wall_s: float
    emissions_kg: float
    shadow_carbon_price: float | None
    jobs: tuple[Placement, ...]
    routing: dict[str, dict[str, Series]]
    dropped: dict[str, Series]
    sites: dict[str, SitePlan]
    batch: dict[str, dict[str, Series]] = msgspec.field(default_factory=dict)
    broken: tuple[Broken, ...] = ()
    flags: tuple[str, ...] = ()


def certified_gap(bound: float, worth: float) -> float:
    """How far below the bound a plan of that worth may be, as a share of the bound; never below 0."""
    if math.isclose(bound, worth, rel_tol=1e-12, abs_tol=1e-9) or bound < worth:
        return 0.0
    return (bound - worth) / abs(bound) if bound else math.inf


def load_plan(path: Path) -> Plan:
    """The plan that a file holds. Raises ConfigError with every fault."""
    document: Document[Plan] = Document(path, raw=read_json(path))
    if isinstance(document.raw, dict) and "schema" not in document.raw:
        document.add(("schema",), "missing", f"expected {SCHEMA}")
    faults_of(document.raw, Plan, (), document)
    if document.faults:
        raise ConfigError(document.faults)
    return msgspec.convert(document.raw, Plan)


def encode_plan(plan: Plan) -> bytes:
    """The plan as JSON, one line and a newline."""
    return msgspec.json.encode(plan) + b"\n"
