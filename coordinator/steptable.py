"""The step table as bytes: what a replay must reproduce, and where it differs when it does not."""

from collections.abc import Iterable

import msgspec

from coordinator.records import InputRow, StepRow


def table_bytes(rows: Iterable[StepRow]) -> bytes:
    """One line a step, equal for equal tables and only for them: numbers are written to the last bit."""
    return b"".join(row_bytes(row) for row in rows)


def row_bytes(row: StepRow) -> bytes:
    """One step as a line of JSON: names and times, inputs, signals, settings, outcome."""
    result, settings = row.result, row.result.settings
    line = (
        (result.k, row.microgrid, row.kind, result.t_us, *_floats(result.dt_s)),
        [_input(taken, p_w) for taken, p_w in zip(row.inputs, result.p_actors_w, strict=True)],
        _floats(row.carbon_g_per_kwh, row.price_per_mwh),
        (*_floats(settings.min_soc, settings.charge_power_w), settings.islanded),
        _floats(result.p_delta_w, result.p_battery_w, result.p_grid_w, result.p_unserved_w, result.p_curtailed_w),
        _floats(result.soc, result.emissions_g, result.residual_w),
    )
    return msgspec.json.encode(line) + b"\n"


def _input(taken: InputRow, p_w: float) -> tuple[object, ...]:
    samples = taken.samples
    used = samples and (samples.node, samples.meter, samples.stream, samples.first, samples.last, samples.count)
    return taken.actor, *_floats(p_w, taken.power_w, taken.age_s), taken.quality, taken.source, used


def _floats(*values: float | None) -> tuple[float | None, ...]:
    # A whole number from a configuration is the same value as its float; the ledger knows no sign of zero.
    return tuple(None if value is None else value + 0.0 for value in values)
