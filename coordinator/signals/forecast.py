"""Forecast traces: what was known when, over which horizon.

::

    issued,time,solar_w
    2026-04-15T00:00:00-07:00,2026-04-15T00:00:00-07:00,0
    2026-04-15T00:00:00-07:00,2026-04-15T00:30:00-07:00,0
    2026-04-15T06:00:00-07:00,2026-04-15T06:00:00-07:00,0.4

At any instant the newest forecast issued by then counts. A value holds from its time to the next one of its issue.
"""

from bisect import bisect_right
from collections.abc import Mapping
from datetime import datetime, tzinfo
from operator import itemgetter
from pathlib import Path

from coordinator.controllers.api import Forecast, ForecastPoint
from coordinator.signals.table import Table
from coordinator.signals.unit import Unit
from hil.clock import utc

Issue = tuple[tuple[int, float], ...]


class ForecastTrace:
    """All issues of a forecast; each is its points, (µs since 1970, value), by the instant it was issued at."""

    def __init__(self, issues: Mapping[int, Issue], zone: tzinfo) -> None:
        self._issued_us = sorted(issues)
        self._issues = issues
        self._zone = zone
        self._newest: tuple[int, Forecast] | None = None  # controllers ask at each step, issues are hours apart

    def newest(self, t_us: int) -> Forecast | None:
        """The newest forecast issued by ``t_us``; None before the first."""
        issued_us = self._issued_by(t_us)
        if issued_us is None:
            return None
        if self._newest is None or self._newest[0] != issued_us:
            points = tuple(ForecastPoint(self._local(at_us), value) for at_us, value in self._issues[issued_us])
            self._newest = issued_us, Forecast(self._local(issued_us), points)
        return self._newest[1]

    def at(self, t_us: int) -> float | None:
        """What the newest forecast says of ``t_us`` itself; None where it says nothing."""
        issued_us = self._issued_by(t_us)
        if issued_us is None:
            return None
        issue = self._issues[issued_us]
        index = bisect_right(issue, t_us, key=itemgetter(0)) - 1
        return issue[index][1] if index >= 0 else None

    def _issued_by(self, t_us: int) -> int | None:
        index = bisect_right(self._issued_us, t_us) - 1
        return self._issued_us[index] if index >= 0 else None

    def _local(self, t_us: int) -> datetime:
        return utc(t_us).astimezone(self._zone)


def read_forecast(
    path: Path,
    *,
    unit: Unit,
    zone: tzinfo,
    column: str | None = None,
    issued_column: str = "issued",
    time_column: str = "time",
) -> ForecastTrace:
    """The forecasts in ``path``, in the project's own unit. Raises ConfigError with file, row and column of each fault.

    ``column`` may be left out where there is one value only. Rows may stand in any order of issues; within an issue
    the times must rise.
    """
    table = Table(path)
    table.require(issued_column, time_column)
    column = table.value_column(column, issued_column, time_column)
    issues: dict[int, list[tuple[int, float]]] = {}
    for line, cells in table.rows():
        issued_us = table.instant_us(line, issued_column, cells[issued_column])
        t_us = table.instant_us(line, time_column, cells[time_column])
        value = table.number(line, column, cells[column])
        if issued_us is None or t_us is None:
            continue
        points = issues.setdefault(issued_us, [])
        if points and t_us <= points[-1][0]:
            table.add(line, time_column, cells[time_column], "expected the times of an issue in order, each once")
            continue
        points.append((t_us, value * unit.factor))
    table.check()
    return ForecastTrace({issued_us: tuple(points) for issued_us, points in issues.items()}, zone)
