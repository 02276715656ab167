"""CSV files as their users write them: cells by column name, every fault with file, row and column.

The first row names the columns; commas separate; lines that start with ``#`` and empty lines are skipped; numbers have
a decimal point; instants are ISO 8601 with a zone (``2026-04-15T00:00:00-07:00``, ``…Z``).
"""

import csv
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from hil.units import MICROSECONDS_PER_SECOND
from hil.yamlfile import ConfigError, Fault

SHOWN_FAULTS: Final = 5
LARGEST: Final = 1e12
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2200


class Table:
    """A CSV file: its rows as text, and what is wrong with them. ``check`` raises once all is known."""

    def __init__(self, path: Path) -> None:
        """Read ``path``. Raises ConfigError where it cannot be read at all, has no header, or rows of another width."""
        self.path = path
        self._faults: list[Fault] = []
        self._unshown = 0
        self.columns, self._rows = self._read()
        self.check()

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Line number and cells by column."""
        for line, cells in self._rows:
            yield line, dict(zip(self.columns, cells, strict=True))

    def __len__(self) -> int:
        return len(self._rows)

    def require(self, *columns: str) -> None:
        """Raise ConfigError unless all ``columns`` are there."""
        for column in columns:
            if column not in self.columns:
                self.add(1, column, "no such column", f"the file has {', '.join(self.columns)}")
        self.check()

    def value_column(self, named: str | None, *others: str) -> str:
        """The column of values: the one ``named``, or the only one beside ``others``. Raises ConfigError if none."""
        if named is None:
            names = [column for column in self.columns if column not in others]
            if len(names) == 1:
                return names[0]
            self.add(1, "not given", ", ".join(names) or "no values", "expected `column:` to name a column of values")
            self.check()
        else:
            self.require(named)
        return named or ""

    def number(self, line: int, column: str, text: str) -> float:
        """A number; NaN, with the fault noted, where there is none."""
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not abs(number) <= LARGEST or "_" in text:
            self.add(
                line, column, text or "empty", f"expected a number within ±{LARGEST:g}; fill a gap or leave its row out"
            )
            return math.nan
        return number

    def instant_us(self, line: int, column: str, text: str) -> int | None:
        """An instant in µs since 1970; None, with the fault noted, where there is none."""
        example = "as in 2026-04-15T00:00:00-07:00 or 2026-04-15T07:00:00Z"
        try:
            instant = datetime.fromisoformat(text)
        except ValueError:
            self.add(line, column, text or "empty", f"expected an instant, {example}")
            return None
        if instant.tzinfo is None:
            self.add(line, column, text, f"has no zone, expected one, {example}")
            return None
        if not FIRST_YEAR <= instant.year <= LAST_YEAR:
            self.add(line, column, text, f"expected a year from {FIRST_YEAR} to {LAST_YEAR}")
            return None
        return microseconds(instant)

    def add(self, line: int, column: str, value: str, expected: str) -> None:
        """Note a fault; beyond the first few they are only counted."""
        if len(self._faults) < SHOWN_FAULTS:
            self._faults.append(Fault(str(self.path), line, f"column {column}", value, expected))
        else:
            self._unshown += 1

    def check(self) -> None:
        """Raise ConfigError if anything was noted."""
        if self._unshown:
            rest = Fault(str(self.path), None, "file", f"{self._unshown} more faults", "mend the ones above first")
            raise ConfigError([*self._faults, rest])
        if self._faults:
            raise ConfigError(self._faults)

    def _read(self) -> tuple[list[str], list[tuple[int, list[str]]]]:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise self._unusable("unreadable", str(error.strerror)) from error
        except UnicodeDecodeError as error:
            raise self._unusable("not text", "expected a CSV file in UTF-8") from error
        lines = ("" if line.startswith("#") else line for line in text.splitlines())
        reader = csv.reader(lines, skipinitialspace=True)
        try:
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
        except csv.Error as error:
            raise self._unusable(f"row {reader.line_num}", f"not CSV: {error}") from error
        if len(rows) < 2:
            raise self._unusable("no rows", "expected a row of column names and at least one of values")
        columns = rows[0][1]
        if len(columns) < 2 or len(set(columns)) < len(columns):
            raise self._unusable(
                f"columns {', '.join(columns)}", "expected a stamp and at least one value, each name once, with commas"
            )
        for line, cells in rows[1:]:
            if len(cells) != len(columns):
                self.add(line, columns[0], f"{len(cells)} cells", f"expected {len(columns)}, as many as columns")
        return columns, rows[1:]

    def _unusable(self, value: str, expected: str) -> ConfigError:
        return ConfigError([Fault(str(self.path), None, "file", value, expected)])


def microseconds(instant: datetime) -> int:
    """An aware instant in µs since 1970."""
    return round(instant.timestamp() * MICROSECONDS_PER_SECOND)
