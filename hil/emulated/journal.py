"""A node's own record of what it drew, against which meters, wire and ledger can be checked.

A CSV file: ``t_us`` (wall time, µs since 1970 UTC), ``power_w``, ``energy_j`` (cumulative, exact to the last digit
written, however often rows are), ``cap_w`` (empty: none).
"""

import csv
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hil.oserrors import reason

HEADER: Final = ("t_us", "power_w", "energy_j", "cap_w")


class JournalError(Exception):
    """The record cannot be kept; says where and why."""


@dataclass(frozen=True, slots=True)
class JournalRow:
    """A node at one instant."""

    t_us: int
    power_w: float
    energy_j: float
    cap_w: float | None


class Journal:
    """A journal being written. Rows wait in memory until ``flush``, which may run in any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[str] = []
        self._writing = threading.Lock()

    def open(self) -> None:
        """Make the file and its folder; rows are added to a file that is there. Raises JournalError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="ascii") as file:
                if file.tell() == 0:
                    file.write(",".join(HEADER) + "\n")
        except OSError as error:
            raise JournalError(f"{self.path}: cannot write the journal: {reason(error)}") from error

    def add(self, row: JournalRow) -> None:
        """Note a row."""
        cap = "" if row.cap_w is None else f"{row.cap_w:.6f}"
        self._waiting.append(f"{row.t_us},{row.power_w:.6f},{row.energy_j:.6f},{cap}\n")

    def flush(self) -> None:
        """Write out what was added so far. Raises JournalError."""
        with self._writing:
            count = len(self._waiting)
            try:
                with self.path.open("a", encoding="ascii") as file:
                    file.write("".join(self._waiting[:count]))
            except OSError as error:
                raise JournalError(f"{self.path}: cannot write the journal: {reason(error)}") from error
            del self._waiting[:count]


def read_journal(path: Path) -> list[JournalRow]:
    """The rows of a journal, in the order written; a last line that a crash cut short is left out."""
    text = path.read_text(encoding="ascii")
    complete = text[: text.rfind("\n") + 1]
    return [_row(line) for line in csv.DictReader(complete.splitlines())]


def _row(line: dict[str, str]) -> JournalRow:
    cap_w = float(line["cap_w"]) if line["cap_w"] else None
    return JournalRow(int(line["t_us"]), float(line["power_w"]), float(line["energy_j"]), cap_w)


def energy_between_j(rows: Sequence[JournalRow], first_us: int, last_us: int) -> float:
    """Energy in J drawn between two instants, rows joined by lines; a restart in between counts from zero again.

    Raises ValueError where the journal does not reach over both instants.
    """
    if not rows or first_us < rows[0].t_us or last_us > rows[-1].t_us:
        raise ValueError("the journal does not cover these instants")
    total_j = 0.0
    for before, after in itertools.pairwise(rows):
        start_us, end_us = max(before.t_us, first_us), min(after.t_us, last_us)
        if start_us < end_us:
            drawn_j = after.energy_j - (before.energy_j if after.energy_j >= before.energy_j else 0.0)
            total_j += drawn_j * (end_us - start_us) / (after.t_us - before.t_us)
    return total_j
