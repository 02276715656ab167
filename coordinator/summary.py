"""A run in numbers, from its ledger alone."""

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from coordinator.ledgerreader import CommandTrail, LedgerReader
from coordinator.microgrid.step import Energy
from coordinator.records import EventRow, InputSource, StepRow
from coordinator.replay import timeline_of
from hil.clock import utc
from hil.units import MICROSECONDS_PER_SECOND
from hil.wire import AckState, Effect


class Percentiles(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nearest-rank percentiles in ms; null where nothing was counted."""

    p50: float | None
    p99: float | None
    max: float | None = None


class SampleSummary(msgspec.Struct, frozen=True):
    """What became of the samples that the agents of a microgrid took: ``generated = committed + lost + spooled``."""

    generated: int
    committed: int
    lost: int
    duplicates: int


class CommandSummary(msgspec.Struct, frozen=True):
    """What became of the commands; renewals are counted apart."""

    sent: int
    applied: int
    verified: int
    ineffective: int
    rejected: int
    failed: int
    renewals: int


class EnergySummary(msgspec.Struct, frozen=True, kw_only=True):
    """Energy by direction, in Wh."""

    produced: float
    consumed: float
    import_: float = msgspec.field(name="import")
    export: float
    charged: float
    discharged: float
    unserved: float
    curtailed: float


class EventSummary(msgspec.Struct, frozen=True):
    """An event at its simulated time, to the second, in the scenario's zone."""

    at: datetime
    kind: str
    detail: str


class MicrogridSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One microgrid's share of a run. ``balance_residual`` is relative to the largest power of its step."""

    microgrid: str
    nodes: list[str]
    samples: SampleSummary
    commands: CommandSummary
    command_latency_ms: Percentiles
    energy_wh: EnergySummary
    quality: dict[str, float]
    balance_residual: float
    final_soc: float | None
    emissions_g: float
    emissions_unknown_steps: int
    events: list[EventSummary]


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. ``wall_s`` is real time from the start of the first step's interval to the last step."""

    run_dir: str
    steps: int
    simulated_s: float
    wall_s: float
    step_lateness_ms: Percentiles
    microgrids: list[MicrogridSummary]

    def lines(self) -> Iterator[str]:
        """The summary for people."""
        yield f"{self.steps} steps, {self.simulated_s:.0f} s simulated in {self.wall_s:.1f} s, kept in {self.run_dir}"
        late = self.step_lateness_ms
        if late.p50 is not None:
            yield f"steps late by {late.p50:.1f} ms (median), {late.p99:.1f} ms (p99), {late.max:.1f} ms (most)"
        for part in self.microgrids:
            yield from _lines_of(part)


def summarise(run_dir: Path, zone: ZoneInfo) -> RunSummary:
    """The run in this folder, also while it goes on. Raises LedgerError, also for a run without a step."""
    with LedgerReader(run_dir) as reader:
        times = list(reader.step_times())
        trails = list(reader.commands())
        parts = []
        simulated_s = 0.0
        steps = 0
        for name in reader.microgrids():
            rows = list(reader.steps(name))
            simulated_s = sum(row.result.dt_s for row in rows)
            steps = len(rows)
            parts.append(_microgrid(reader, name, rows, trails, zone))
        began_us = timeline_of(reader, run_dir).real_start_us
        return RunSummary(
            run_dir=str(run_dir),
            steps=steps,
            simulated_s=simulated_s,
            wall_s=(times[-1].real_t_us - began_us) / MICROSECONDS_PER_SECOND,
            step_lateness_ms=_percentiles([time.lateness_s * 1000.0 for time in times], most=True),
            microgrids=parts,
        )


def _microgrid(
    reader: LedgerReader, name: str, rows: Sequence[StepRow], trails: Sequence[CommandTrail], zone: ZoneInfo
) -> MicrogridSummary:
    energy = Energy()
    for row in rows:
        energy = energy.plus(Energy.of_step(row.result))
    measured = [given for row in rows for given in row.inputs if given.source is not InputSource.MODEL]
    agents = {given.samples.node for given in measured if given.samples is not None}
    mine = [trail for trail in trails if trail.row.microgrid == name]
    return MicrogridSummary(
        microgrid=name,
        nodes=sorted({given.actor for given in measured}),
        samples=_samples(reader, agents),
        commands=_commands(mine),
        command_latency_ms=_percentiles(
            [ack.latency_ms for trail in mine for ack in trail.acks if ack.latency_ms is not None]
        ),
        energy_wh=EnergySummary(
            produced=energy.produced,
            consumed=energy.consumed,
            import_=energy.imported,
            export=energy.exported,
            charged=energy.charged,
            discharged=energy.discharged,
            unserved=energy.unserved,
            curtailed=energy.curtailed,
        ),
        quality=_quality(rows),
        balance_residual=max((_relative_residual(row) for row in rows), default=0.0),
        final_soc=rows[-1].result.soc if rows else None,
        emissions_g=sum(row.result.emissions_g or 0.0 for row in rows),
        emissions_unknown_steps=sum(row.result.emissions_g is None for row in rows),
        events=[_event(event, zone) for event in reader.events(name)],
    )


def _samples(reader: LedgerReader, agents: set[str]) -> SampleSummary:
    """The books of both sides."""
    states = dict(reader.node_books())
    mine = [books for books in reader.stream_books() if books.node in agents]
    return SampleSummary(
        generated=sum(books.generated(states.get(books.node)) for books in mine),
        committed=sum(books.committed for books in mine),
        lost=sum(books.lost for books in mine),
        duplicates=sum(books.duplicates for books in mine),
    )


def _commands(trails: Iterable[CommandTrail]) -> CommandSummary:
    fresh = [trail for trail in trails if trail.row.command.renews is None]
    renewals = sum(1 for trail in trails if trail.row.command.renews is not None)

    def came_to(state: AckState) -> int:
        return sum(any(ack.ack.state is state for ack in trail.acks) for trail in fresh)

    def showed(effect: Effect) -> int:
        return sum(any(row.effect is effect for row in trail.effects) for trail in fresh)

    return CommandSummary(
        sent=len(fresh),
        applied=came_to(AckState.APPLIED),
        verified=showed(Effect.VERIFIED),
        ineffective=showed(Effect.INEFFECTIVE),
        rejected=came_to(AckState.REJECTED),
        failed=came_to(AckState.FAILED),
        renewals=renewals,
    )


def _quality(rows: Sequence[StepRow]) -> dict[str, float]:
    """The share of the nodes' energy by the quality of the reading behind it, 0..1."""
    energy: dict[str, float] = {}
    for row in rows:
        for given in row.inputs:
            if given.source is not InputSource.MODEL:
                energy[given.quality] = energy.get(given.quality, 0.0) + abs(given.power_w) * row.result.dt_s
    total = sum(energy.values())
    return {quality: share / total for quality, share in sorted(energy.items())} if total else {}


def _relative_residual(row: StepRow) -> float:
    result = row.result
    largest = max([1.0, abs(result.p_grid_w), abs(result.p_battery_w), *map(abs, result.p_actors_w)])
    return abs(result.residual_w) / largest


def _event(event: EventRow, zone: ZoneInfo) -> EventSummary:
    return EventSummary(utc(event.t_us).astimezone(zone).replace(microsecond=0), event.kind, event.detail)


def _percentiles(values: Sequence[float], *, most: bool = False) -> Percentiles:
    if not values:
        return Percentiles(None, None)
    ranked = sorted(values)

    def rank(share: float) -> float:
        return round(ranked[max(0, math.ceil(share * len(ranked)) - 1)], 3)

    return Percentiles(rank(0.5), rank(0.99), rank(1.0) if most else None)


def _lines_of(part: MicrogridSummary) -> Iterator[str]:
    energy, samples, commands = part.energy_wh, part.samples, part.commands
    yield f"microgrid {part.microgrid}"
    yield (
        f"  produced {energy.produced:.3f} Wh, consumed {energy.consumed:.3f} Wh, import {energy.import_:.3f} Wh, "
        f"export {energy.export:.3f} Wh"
    )
    yield (
        f"  charged {energy.charged:.3f} Wh, discharged {energy.discharged:.3f} Wh, unserved {energy.unserved:.3f} Wh, "
        f"curtailed {energy.curtailed:.3f} Wh"
    )
    soc = "no storage" if part.final_soc is None else f"soc {part.final_soc:.1%}"
    unknown = f" (unknown in {part.emissions_unknown_steps} steps)" if part.emissions_unknown_steps else ""
    yield f"  {soc}, emissions {part.emissions_g:.1f} g{unknown}, balance to {part.balance_residual:.1e}"
    yield f"  samples: {samples.committed} of {samples.generated}, {samples.lost} lost, {samples.duplicates} duplicates"
    yield (
        f"  commands: {commands.sent} sent, {commands.applied} applied, {commands.verified} verified, "
        f"{commands.ineffective} ineffective, {commands.rejected} rejected, {commands.failed} failed, "
        f"{commands.renewals} renewals"
    )
