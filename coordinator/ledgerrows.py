"""Typed values as the rows of the ledger's tables, in the order of their columns."""

from collections.abc import Iterator
from typing import Any

from coordinator.ledgernames import NameBook
from coordinator.ledgerschema import KIND_CODES, QUALITY_CODES, SOURCE_CODES
from coordinator.records import AckRow, CommandRow, EffectRow, EventRow, InputRow, StepRow, StepTime, Tombstone
from coordinator.stream import SampleBatch, StreamBooks
from hil.intervals import Intervals
from hil.wire import NodeState, encode

Row = tuple[Any, ...]


def sample_rows(names: NameBook, batch: SampleBatch) -> list[Row]:
    """Rows of ``sample``, without ids."""
    stream = names.stream(batch.node, batch.stream)
    meters = {meter: names.meter(batch.node, meter) for meter in {record.meter for record in batch.records}}
    codes, hist, arrived_us = QUALITY_CODES, int(batch.hist), batch.arrived_us
    return [
        (stream, r.seq, meters[r.meter], r.t_us, r.w, r.e_j, r.e_epoch, codes[r.q], hist, arrived_us)
        for r in batch.records
    ]


def tombstone_row(names: NameBook, tombstone: Tombstone) -> Row:
    """A row of ``tombstone``, without its id."""
    return names.stream(tombstone.node, tombstone.stream), tombstone.first, tombstone.last, tombstone.why


def books_row(names: NameBook, books: StreamBooks) -> Row:
    """The columns of ``stream`` that change, then its number."""
    settled = Intervals(books.ranges).encode()
    return settled, books.committed, books.duplicates, books.lost, names.stream(books.node, books.stream)


def node_row(names: NameBook, node: str, state: NodeState) -> Row:
    """A row of ``node_books``."""
    counts = (state.generated, state.acked, state.spooled, state.lost)
    return names.node(node), state.state, state.session, state.lease, state.stream, *counts


def step_row(names: NameBook, k: int, row: StepRow) -> Row:
    """A row of ``step``."""
    result, settings = row.result, row.result.settings
    return (
        k,
        names.microgrid(row.microgrid),
        KIND_CODES[row.kind],
        result.t_us,
        result.dt_s,
        result.p_delta_w,
        result.p_battery_w,
        result.p_grid_w,
        result.p_unserved_w,
        result.p_curtailed_w,
        result.soc,
        settings.min_soc,
        settings.charge_power_w,
        int(settings.islanded),
        row.carbon_g_per_kwh,
        row.price_per_mwh,
        result.emissions_g,
        result.residual_w,
    )


def input_rows(names: NameBook, k: int, row: StepRow) -> Iterator[Row]:
    """The rows of ``step_input`` of one step."""
    microgrid = names.microgrid(row.microgrid)
    for place, (taken, p_w) in enumerate(zip(row.inputs, row.result.p_actors_w, strict=True)):
        yield (
            k,
            microgrid,
            place,
            names.actor(row.microgrid, taken.actor),
            p_w,
            taken.power_w,
            QUALITY_CODES[taken.quality],
            SOURCE_CODES[taken.source],
            taken.age_s,
            *_range_columns(names, taken),
        )


def time_row(time: StepTime, sample_id: int) -> Row:
    """A row of ``step_time``."""
    return time.k, time.real_t_us, time.lateness_s, time.compute_s, sample_id


def event_row(names: NameBook, row: EventRow) -> Row:
    """A row of ``event``, without its id."""
    return row.t_us, row.real_t_us, row.k, _microgrid(names, row.microgrid), row.kind, row.detail


def command_row(names: NameBook, row: CommandRow) -> Row:
    """A row of ``command``, without its id."""
    command = row.command
    return (
        command.id,
        names.node(command.target.node),
        command.target.actuator,
        command.action,
        command.limit_w,
        command.profile,
        command.renews,
        _microgrid(names, row.microgrid),
        row.k,
        row.t_us,
        row.real_t_us,
        encode(command),
    )


def ack_row(names: NameBook, row: AckRow) -> Row:
    """A row of ``ack``, without its id."""
    ack = row.ack
    return ack.id, names.node(row.node), ack.state, ack.code, row.real_t_us, row.latency_ms, encode(ack)


def effect_row(row: EffectRow) -> Row:
    """A row of ``effect``, without its id."""
    return row.command_id, row.effect, row.measured_w, row.real_t_us


def _microgrid(names: NameBook, microgrid: str | None) -> int | None:
    return None if microgrid is None else names.microgrid(microgrid)


def _range_columns(names: NameBook, taken: InputRow) -> Row:
    samples = taken.samples
    if samples is None:
        return None, None, None, None, None
    stream = names.stream(samples.node, samples.stream)
    return stream, names.meter(samples.node, samples.meter), samples.first, samples.last, samples.count
