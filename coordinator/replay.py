"""Computes a recorded run again from what was recorded, and compares.

The inputs of measured steps are made anew from the stored samples, models and controllers run again; the step table
that comes out must equal the recorded one byte for byte. A single sample changed by a hundredth of a watt shows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from coordinator.ledgerreader import LedgerReader
from coordinator.ledgerschema import LedgerError
from coordinator.loop import RunSnapshot
from coordinator.records import InputRow, InputSource, SampleRow, SignalRow, StepKind, StepRow
from coordinator.scenario import Scenario
from coordinator.stepper import ActorKey, Stepper
from coordinator.steptable import table_bytes
from coordinator.timeline import Timeline
from coordinator.window import mean_power_w

Recorded = tuple[StepRow, tuple[tuple[SampleRow, ...], ...]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One step of all microgrids, as it was recorded and as it was computed again."""

    recorded: tuple[StepRow, ...]
    computed: tuple[StepRow, ...]

    @property
    def identical(self) -> bool:
        """Whether the step table's bytes are the same."""
        return table_bytes(self.recorded) == table_bytes(self.computed)


def timeline_of(reader: LedgerReader, run_dir: Path) -> Timeline:
    """The grid of steps that a run was on. Raises LedgerError for a run without a step."""
    found = reader.snapshot()
    if found is None:
        raise LedgerError(f"{run_dir}: this run has no step yet")
    return msgspec.json.decode(found[1], type=RunSnapshot).timeline


def replay(reader: LedgerReader, scenario: Scenario, timeline: Timeline) -> Iterator[Comparison]:
    """Each step of the run, computed again in the run's order."""
    stepper = Stepper(scenario, timeline)
    recorded = [reader.steps_with_samples(part.name) for part in scenario.microgrids]
    for rows in zip(*recorded, strict=True):
        signals = reader.signals(rows[0][0].result.k)
        yield Comparison(tuple(row for row, _ in rows), _again(stepper, rows, signals))


def _again(stepper: Stepper, rows: Sequence[Recorded], signals: Sequence[SignalRow]) -> tuple[StepRow, ...]:
    first = rows[0][0]
    inputs: dict[ActorKey, InputRow] = {
        (row.microgrid, given.actor): _input(given, samples)
        for row, of_inputs in rows
        for given, samples in zip(row.inputs, of_inputs, strict=True)
        if given.source is not InputSource.MODEL
    }
    decide = first.kind is StepKind.NORMAL
    outcome = stepper.step(first.result.k, first.kind, first.result.dt_s, inputs, signals, decide=decide)
    return tuple(outcome.rows)


def _input(given: InputRow, samples: tuple[SampleRow, ...]) -> InputRow:
    """The input as its samples make it; as it was recorded where they are not all there."""
    if given.samples is None or len(samples) != given.samples.count:
        return given
    power_w = mean_power_w(sample.power_w for sample in samples if sample.power_w is not None)
    return given if power_w is None else replace(given, power_w=power_w)
