"""Reads a ledger, also while another process writes it, and after that one died."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from coordinator.ledgerschema import KIND_CODES, QUALITY_CODES, SOURCE_CODES, ledger_file, open_for_reading
from coordinator.ledgerwriter import read_stream_books
from coordinator.microgrid.step import Settings, StepResult
from coordinator.records import (
    AckRow,
    CommandRow,
    EffectRow,
    EventRow,
    InputRow,
    SampleRange,
    SampleRow,
    SignalRow,
    StepRow,
    StepTime,
)
from coordinator.stepsamples import StepSamples
from coordinator.steptable import table_bytes
from coordinator.stream import StreamBooks
from hil.devices import Quality
from hil.wire import TERMINAL, Ack, Command, Effect, NodeState, Presence, decode

C = TypeVar("C")


def _names(codes: dict[C, int]) -> dict[int, C]:
    return {code: name for name, code in codes.items()}


_QUALITIES: Final = _names(QUALITY_CODES)
_SOURCES: Final = _names(SOURCE_CODES)
_KINDS: Final = _names(KIND_CODES)

_STEPS: Final = """SELECT k, microgrid, kind, t_us, dt_s, p_delta_w, p_battery_w, p_grid_w, p_unserved_w,
  p_curtailed_w, soc, min_soc, charge_power_w, islanded, carbon_g_per_kwh, price_per_mwh, emissions_g, residual_w
  FROM step WHERE microgrid = (SELECT id FROM microgrid WHERE name = ?) ORDER BY k"""
_INPUTS: Final = """SELECT p_w, actor.name, power_w, quality, source, age_s, node.name, meter.name, stream.name,
  seq_first, seq_last, sample_count
  FROM step_input JOIN actor ON actor.id = step_input.actor LEFT JOIN stream ON stream.id = step_input.stream
  LEFT JOIN meter ON meter.id = step_input.meter LEFT JOIN node ON node.id = meter.node
  WHERE k = ? AND step_input.microgrid = ? ORDER BY place"""
_SAMPLES: Final = """SELECT sample.id, node.name, stream.name, seq, meter.name, t_us, power_w, energy_j, energy_epoch,
  quality, hist, arrived_us FROM sample JOIN stream ON stream.id = sample.stream JOIN node ON node.id = stream.node
  JOIN meter ON meter.id = sample.meter"""
_CHOSEN: Final = """ WHERE (:node IS NULL OR node.name = :node) AND (:meter IS NULL OR meter.name = :meter)
  AND (:stream IS NULL OR stream.name = :stream) AND (:first IS NULL OR seq >= :first)
  AND (:last IS NULL OR seq <= :last) ORDER BY sample.id"""
_USED_LIVE: Final = """ WHERE NOT hist AND (sample.stream, sample.meter) IN (SELECT DISTINCT stream, meter
  FROM step_input WHERE microgrid = (SELECT id FROM microgrid WHERE name = ?)) ORDER BY sample.id"""
_EVENTS: Final = """SELECT t_us, real_t_us, k, microgrid.name, kind, detail
  FROM event LEFT JOIN microgrid ON microgrid.id = event.microgrid
  WHERE :microgrid IS NULL OR microgrid.name IS NULL OR microgrid.name = :microgrid ORDER BY event.id"""


@dataclass(frozen=True, slots=True)
class SampleCount:
    """How many samples of a meter are on disk, and how many of them say what the power was."""

    node: str
    meter: str
    samples: int
    usable: int


@dataclass(frozen=True, slots=True)
class CommandTrail:
    """A command and all that became of it, in order."""

    row: CommandRow
    acks: tuple[AckRow, ...]
    effects: tuple[EffectRow, ...]


class LedgerReader:
    """A run's ledger, read only. Each iteration sees the ledger as it was when it began.

    An iteration left unfinished holds the writer's log open: take what you need and go on, or close the reader.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = ledger_file(run_dir)
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open(self) -> None:
        """Open the file. Raises LedgerError where there is no ledger, or not one that this version reads."""
        self._connection = open_for_reading(self._path)

    def close(self) -> None:
        """Let go of the file; harmless when repeated."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- the run ------------------------------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """A fact about the run as a whole."""
        row = self._query("SELECT value FROM meta WHERE key = ?", key).fetchone()
        return None if row is None else str(row[0])

    def snapshot(self) -> tuple[int, bytes] | None:
        """The newest step and the state after it; None before the first."""
        row = self._query("SELECT k, state FROM snapshot").fetchone()
        return None if row is None else (row[0], row[1])

    def events(self, microgrid: str | None = None) -> Iterator[EventRow]:
        """All events in the order in which they were recorded; with ``microgrid`` those of one and of the whole run."""
        rows = self._open().execute(_EVENTS, {"microgrid": microgrid})
        return (EventRow(*row) for row in rows)

    # --- steps --------------------------------------------------------------------------------------------------------

    def microgrids(self) -> list[str]:
        """The microgrids of the run."""
        return [name for (name,) in self._query("SELECT name FROM microgrid ORDER BY id")]

    def steps(self, microgrid: str) -> Iterator[StepRow]:
        """One microgrid's steps, in order."""
        for row in self._query(_STEPS, microgrid):
            yield _step(microgrid, row, self._query(_INPUTS, row[0], row[1]))

    def steps_with_samples(self, microgrid: str) -> Iterator[tuple[StepRow, tuple[tuple[SampleRow, ...], ...]]]:
        """One microgrid's steps, in order, and the samples of each of its inputs.

        Samples that the loop saw while a full disk refused them came to disk later or never: there are then fewer than
        the input's range counts.
        """
        rows = self._query(_SAMPLES + _USED_LIVE, microgrid)
        samples = StepSamples((row[0], _sample(row)) for row in rows)
        for step in self.steps(microgrid):
            (sample_id,) = self._query("SELECT sample_id FROM step_time WHERE k = ?", step.result.k).fetchone()
            samples.advance(sample_id)
            yield step, tuple(samples.take(taken.samples) for taken in step.inputs)

    def signals(self, k: int) -> list[SignalRow]:
        """What other systems' signals were in a step."""
        return [SignalRow(*row) for row in self._query("SELECT name, value FROM signal WHERE k = ? ORDER BY name", k)]

    def step_times(self) -> Iterator[StepTime]:
        """When each step really ran."""
        rows = self._query("SELECT k, real_t_us, lateness_s, compute_s FROM step_time ORDER BY k")
        return (StepTime(*row) for row in rows)

    def step_table_bytes(self, microgrid: str) -> bytes:
        """One microgrid's step table in the form in which a replay is compared."""
        return table_bytes(self.steps(microgrid))

    # --- samples ------------------------------------------------------------------------------------------------------

    def samples(
        self,
        node: str | None = None,
        meter: str | None = None,
        stream: str | None = None,
        first: int | None = None,
        last: int | None = None,
    ) -> Iterator[SampleRow]:
        """Samples in the order in which they were committed: all, or those of an agent, a meter, a stream, a range.

        Looks at every sample: to go through a run's steps with their samples use ``steps_with_samples``.
        """
        chosen = {"node": node, "meter": meter, "stream": stream, "first": first, "last": last}
        rows = self._open().execute(_SAMPLES + _CHOSEN, chosen)
        return (_sample(row) for row in rows)

    def sample_counts(self) -> list[SampleCount]:
        """How many samples of each meter there are."""
        rows = self._query(
            "SELECT node.name, meter.name, count(*), sum(power_w IS NOT NULL AND quality != ?) "
            "FROM sample JOIN meter ON meter.id = sample.meter JOIN node ON node.id = meter.node "
            "GROUP BY sample.meter ORDER BY sample.meter",
            QUALITY_CODES[Quality.MISSING],
        )
        return [SampleCount(*row) for row in rows]

    def stream_books(self) -> list[StreamBooks]:
        """What became of every number of every stream."""
        return read_stream_books(self._open())

    def node_books(self) -> list[tuple[str, NodeState]]:
        """What each agent last said of itself, by name."""
        rows = self._query(
            "SELECT node.name, state, session, lease, stream, generated, acked, spooled, lost "
            "FROM node_books JOIN node ON node.id = node_books.node ORDER BY node.name"
        )
        return [(node, _node_state(*columns)) for node, *columns in rows]

    # --- commands -----------------------------------------------------------------------------------------------------

    def commands(self) -> Iterator[CommandTrail]:
        """All commands, renewals too, in the order in which they were decided."""
        rows = self._query(
            "SELECT message, microgrid.name, k, t_us, real_t_us "
            "FROM command LEFT JOIN microgrid ON microgrid.id = command.microgrid ORDER BY command.id"
        )
        for message, *columns in rows:
            row = CommandRow(decode(message, Command), *columns)
            yield CommandTrail(row, self._acks(row.command.id), self._effects(row.command.id))

    def open_commands(self) -> list[CommandRow]:
        """The commands of which no end is on record, in the order in which they were decided."""
        rows = self._query(
            "SELECT message, microgrid.name, k, t_us, real_t_us "
            "FROM command LEFT JOIN microgrid ON microgrid.id = command.microgrid "
            "WHERE NOT EXISTS (SELECT 1 FROM ack WHERE ack.command_id = command.command_id "
            "AND state IN (SELECT value FROM json_each(?))) ORDER BY command.id",
            json.dumps(sorted(TERMINAL)),
        )
        return [CommandRow(decode(message, Command), *columns) for message, *columns in rows]

    def _acks(self, command_id: str) -> tuple[AckRow, ...]:
        rows = self._query(
            "SELECT message, node.name, real_t_us, latency_ms FROM ack JOIN node ON node.id = ack.node "
            "WHERE command_id = ? ORDER BY ack.id",
            command_id,
        )
        return tuple(AckRow(decode(message, Ack), *columns) for message, *columns in rows)

    def _effects(self, command_id: str) -> tuple[EffectRow, ...]:
        rows = self._query(
            "SELECT command_id, effect, measured_w, real_t_us FROM effect WHERE command_id = ? ORDER BY id", command_id
        )
        return tuple(EffectRow(name, Effect(effect), *columns) for name, effect, *columns in rows)

    # --- the connection -----------------------------------------------------------------------------------------------

    def _query(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        return self._open().execute(sql, parameters)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("the ledger reader is not open")
        return self._connection


def _sample(row: tuple[Any, ...]) -> SampleRow:
    _, node, stream, seq, meter, t_us, power_w, energy_j, energy_epoch, quality, hist, arrived_us = row
    code = _QUALITIES[quality]
    return SampleRow(node, stream, seq, meter, t_us, power_w, energy_j, energy_epoch, code, bool(hist), arrived_us)


def _step(microgrid: str, row: tuple[Any, ...], inputs: Iterable[tuple[Any, ...]]) -> StepRow:
    (k, _, kind, t_us, dt_s, p_delta_w, p_battery_w, p_grid_w, p_unserved_w, p_curtailed_w) = row[:10]
    (soc, min_soc, charge_power_w, islanded, carbon_g_per_kwh, price_per_mwh, emissions_g, residual_w) = row[10:]
    taken = list(inputs)
    result = StepResult(
        k=k,
        t_us=t_us,
        dt_s=dt_s,
        p_actors_w=tuple(columns[0] for columns in taken),
        p_delta_w=p_delta_w,
        p_battery_w=p_battery_w,
        p_grid_w=p_grid_w,
        p_unserved_w=p_unserved_w,
        p_curtailed_w=p_curtailed_w,
        soc=soc,
        settings=Settings(min_soc=min_soc, charge_power_w=charge_power_w, islanded=bool(islanded)),
        emissions_g=emissions_g,
        residual_w=residual_w,
    )
    rows = tuple(_input(*columns) for _, *columns in taken)
    return StepRow(microgrid, _KINDS[kind], rows, carbon_g_per_kwh, price_per_mwh, result)


def _input(actor: str, power_w: float, quality: int, source: int, age_s: float | None, *used: Any) -> InputRow:
    node, meter, stream, first, last, count = used
    samples = None if stream is None else SampleRange(node, meter, stream, first, last, count)
    return InputRow(actor, power_w, _QUALITIES[quality], _SOURCES[source], age_s, samples)


def _node_state(state: str, session: int, lease: str, stream: str, *counts: int) -> NodeState:
    generated, acked, spooled, lost = counts
    return NodeState(
        state=Presence(state),
        session=session,
        lease=lease,
        stream=stream,
        generated=generated,
        acked=acked,
        spooled=spooled,
        lost=lost,
    )
