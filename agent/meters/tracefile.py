"""A recorded quantity in a CSV file: a column of times, and a column of values.

One column is ``t_s`` (seconds from any origin) or ``time`` (ISO 8601; UTC where no zone is given), another holds the
values; more columns are left alone. Times must rise.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hil.yamlfile import Document, Fault, show

FAULTS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Column:
    """The column of values: its name, what to expect in it, the lowest value, and whether it may have gaps."""

    name: str
    expected: str
    lowest: float = -math.inf
    gaps: bool = False


@dataclass(frozen=True, slots=True)
class Recording:
    """Values (None: a gap) at times in s; since 1970 UTC if ``dated``, otherwise from whatever origin they have."""

    times_s: tuple[float, ...]
    values: tuple[float | None, ...]
    dated: bool


EMPTY: Final = Recording((), (), dated=False)


def load_recording(path: Path, column: Column, document: Document[Any]) -> Recording:
    """What a CSV file holds; nothing, with the faults noted in ``document``, where it cannot be used.

    A fault names the file, the row, the column, what stands there and what was expected.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            recording, faults = _parse(csv.reader(file), str(path), column)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        recording, faults = EMPTY, [Fault(str(path), None, "file", "unreadable", str(reason))]
    document.faults.extend(faults[:FAULTS_SHOWN])
    return recording


def _parse(rows: Iterator[list[str]], file: str, column: Column) -> tuple[Recording, list[Fault]]:
    header = [name.strip() for name in next(rows, [])]
    time_name = next((name for name in ("t_s", "time") if name in header), None)
    if time_name is None or column.name not in header:
        expected = f"expected a header with t_s or time, and {column.name}"
        return EMPTY, [Fault(file, 1, "header", show(",".join(header)) or "empty", expected)]
    time_at, value_at = header.index(time_name), header.index(column.name)
    faults: list[Fault] = []
    times: list[float] = []
    values: list[float | None] = []
    for number, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        try:
            t_s = _time(row, time_at, time_name)
            if times and t_s <= times[-1]:
                raise _Cell(time_name, row[time_at], "expected a later time than in the row before")
            value = _value(row, value_at, column)
        except _Cell as error:
            faults.append(Fault(file, number, error.column, show(error.value), error.expected))
            continue
        times.append(t_s)
        values.append(value)
    if not times and not faults:
        faults.append(Fault(file, None, "rows", "none", "expected at least one row below the header"))
    if faults:
        return EMPTY, faults
    return Recording(tuple(times), tuple(values), dated=time_name == "time"), []


class _Cell(Exception):
    """One cell that cannot be used."""

    def __init__(self, column: str, value: str, expected: str) -> None:
        super().__init__(expected)
        self.column = column
        self.value = value
        self.expected = expected


def _time(row: list[str], at: int, name: str) -> float:
    text = row[at].strip() if at < len(row) else ""
    try:
        if name == "t_s":
            return _finite(text)
        stamp = datetime.fromisoformat(text)
    except ValueError as error:
        expected = "expected seconds" if name == "t_s" else "expected a time such as 2026-06-21T20:00:00Z"
        raise _Cell(name, text or "empty", expected) from error
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()


def _value(row: list[str], at: int, column: Column) -> float | None:
    text = row[at].strip() if at < len(row) else ""
    if not text and column.gaps:
        return None
    try:
        value = _finite(text)
        if value < column.lowest:
            raise ValueError(text)
    except ValueError as error:
        raise _Cell(column.name, text or "empty", f"expected {column.expected}") from error
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
