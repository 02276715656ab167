"""A mixed-integer program as numpy arrays: blocks of columns and rows, maximised, every column bounded."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Problem:
    """Maximise ``cost·x + offset`` under ``row_lower ≤ A x ≤ row_upper``; A is held by columns."""

    cost: Floats
    lower: Floats
    upper: Floats
    integer: Bools
    row_lower: Floats
    row_upper: Floats
    start: Ints
    index: Ints
    value: Floats
    offset: float = 0.0

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return len(self.cost)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.row_lower)

    def entry_columns(self) -> Ints:
        """The column of each entry of A."""
        return np.repeat(np.arange(self.columns), np.diff(self.start))

    def activity(self, x: Floats) -> Floats:
        """A x, one value a row."""
        weights = self.value * np.repeat(x, np.diff(self.start))
        return np.bincount(self.index, weights, self.rows).astype(np.float64)

    def reduced_costs(self, duals: Floats) -> Floats:
        """``cost − Aᵀ duals``, one value a column."""
        weights = self.value * duals[self.index]
        return self.cost - np.bincount(self.entry_columns(), weights=weights, minlength=self.columns)

    def dual_bound(self, duals: Floats) -> float:
        """An upper bound on every solution's objective, whatever the duals: weak duality over the column bounds."""
        duals = np.where(duals > 0, np.where(np.isfinite(self.row_upper), duals, 0.0), duals)
        duals = np.where(duals < 0, np.where(np.isfinite(self.row_lower), duals, 0.0), duals)
        sides = np.where(duals > 0, self.row_upper, self.row_lower)
        used = duals != 0
        reduced = self.reduced_costs(duals)
        best = np.where(reduced > 0, reduced * self.upper, reduced * self.lower)
        return float(duals[used] @ sides[used] + best.sum() + self.offset)

    def restricted(self, keep: Bools, x: Floats) -> "Problem":
        """The problem over the kept columns alone, all others held at their value in ``x``."""
        held = self.activity(np.where(keep, 0.0, x))
        entries = np.repeat(keep, np.diff(self.start))
        counts = np.diff(self.start)[keep]
        return Problem(
            self.cost[keep],
            self.lower[keep],
            self.upper[keep],
            self.integer[keep],
            self.row_lower - held,
            self.row_upper - held,
            np.concatenate(([0], np.cumsum(counts))),
            self.index[entries],
            self.value[entries],
            self.offset + float(self.cost[~keep] @ x[~keep]),
        )


class Builder:
    """Collects blocks of columns, rows and entries into a Problem."""

    def __init__(self) -> None:
        self._columns = 0
        self._rows = 0
        self._column_parts: list[tuple[Floats, Floats, Floats, Bools]] = []
        self._row_parts: list[tuple[Floats, Floats]] = []
        self._entries: list[tuple[Ints, Ints, Floats]] = []

    def columns(
        self,
        shape: tuple[int, ...],
        upper: ArrayLike,
        cost: ArrayLike = 0.0,
        lower: ArrayLike = 0.0,
        integer: bool = False,
    ) -> Ints:
        """The numbers of new columns, in the shape asked for; bounds and cost broadcast to it."""
        count = int(np.prod(shape))
        spread = [np.broadcast_to(np.asarray(part, float), shape).ravel() for part in (cost, lower, upper)]
        self._column_parts.append((*spread, np.full(count, integer)))  # type: ignore[arg-type]
        self._columns += count
        return np.arange(self._columns - count, self._columns).reshape(shape)

    def rows(self, shape: tuple[int, ...], lower: ArrayLike, upper: ArrayLike) -> Ints:
        """The numbers of new rows, in the shape asked for; infinite sides are free."""
        count = int(np.prod(shape))
        sides = [np.broadcast_to(np.asarray(part, float), shape).ravel() for part in (lower, upper)]
        self._row_parts.append((sides[0], sides[1]))
        self._rows += count
        return np.arange(self._rows - count, self._rows).reshape(shape)

    def add(self, rows: ArrayLike, columns: ArrayLike, values: ArrayLike) -> None:
        """Entries of A, broadcast against each other; no place may be given twice."""
        spread: tuple[Any, ...] = np.broadcast_arrays(rows, columns, np.asarray(values, float))
        self._entries.append((spread[0].ravel(), spread[1].ravel(), spread[2].ravel()))

    def problem(self) -> Problem:
        """What was collected; entries of value 0 are left out."""
        rows, columns, values = (np.concatenate(parts) for parts in zip(*self._entries, strict=True))
        present = values != 0.0
        rows, columns, values = rows[present], columns[present], values[present]
        order = np.lexsort((rows, columns))
        cost, lower, upper, integer = (np.concatenate(parts) for parts in zip(*self._column_parts, strict=True))
        row_lower, row_upper = (np.concatenate(parts) for parts in zip(*self._row_parts, strict=True))
        start = np.concatenate(([0], np.cumsum(np.bincount(columns, minlength=self._columns))))
        return Problem(
            cost, lower, upper, integer, row_lower, row_upper, start, rows[order].astype(np.int64), values[order]
        )
