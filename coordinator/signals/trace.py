"""CSV traces: one value over time.

::

    time,solar_w,carbon_g_per_kwh              time_s,load_w
    2026-04-15T00:00:00-07:00,0.0,412          0,14.8
    2026-04-15T00:05:00-07:00,0.0,411          1.5,15.2

``time`` holds instants, ``time_s`` seconds since the scenario's start. A value holds until the next stamp.
"""

import math
from array import array
from pathlib import Path

from coordinator.signals.series import Beyond, Series
from coordinator.signals.table import Table
from coordinator.signals.unit import Unit
from hil.units import MICROSECONDS_PER_SECOND

INSTANT_COLUMN = "time"
OFFSET_COLUMN = "time_s"
LONGEST_S = 4e9  # more than a century


def read_trace(
    path: Path,
    *,
    unit: Unit,
    start_us: int,
    column: str | None = None,
    time_column: str | None = None,
    beyond: Beyond = Beyond.END,
) -> Series:
    """The values of ``column`` in the project's own unit, over µs since 1970.

    ``column`` may be left out where there is one value only. ``start_us`` is the instant of ``time_s`` 0. A
    ``time_column`` of another name holds seconds if it ends in ``_s``, instants otherwise. Raises ConfigError with
    file, row and column of each fault.
    """
    table = Table(path)
    stamps = time_column or (OFFSET_COLUMN if OFFSET_COLUMN in table.columns else INSTANT_COLUMN)
    table.require(stamps)
    column = table.value_column(column, stamps)
    times_us, values = array("q"), array("d")
    for line, cells in table.rows():
        t_us = _stamp_us(table, line, stamps, cells[stamps], start_us)
        value = table.number(line, column, cells[column])
        if t_us is None:
            continue
        if times_us and t_us <= times_us[-1]:
            order = "the same instant as the row before" if t_us == times_us[-1] else "earlier than the row before"
            table.add(line, stamps, cells[stamps], f"{order}, expected rows in order of time, each instant once")
            continue
        times_us.append(t_us)
        values.append(value * unit.factor)
    table.check()
    return Series(times_us, values, beyond)


def _stamp_us(table: Table, line: int, column: str, text: str, start_us: int) -> int | None:
    if not column.endswith("_s"):
        return table.instant_us(line, column, text)
    offset_s = table.number(line, column, text)
    if math.isnan(offset_s):
        return None
    if abs(offset_s) > LONGEST_S:
        table.add(line, column, text, f"expected seconds since the start, at most {LONGEST_S:g}")
        return None
    return start_us + round(offset_s * MICROSECONDS_PER_SECOND)
