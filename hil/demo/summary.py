"""What the demonstration shows at its end: the run in numbers and small charts, and what to try next."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hil.demo.charts import chart
from hil.demo.scene import Point, Scene

WIDTH = 72


def print_summary(console: Console, summary: Mapping[str, object], scene: Scene) -> None:
    """The summary of the first microgrid as a table, its day as charts, and the next commands to try."""
    first = next(iter(scene.microgrids.values()), None)
    console.print()
    if first is not None and first.points:
        _print_charts(console, first.points)
    console.print(_table(summary))
    _print_events(console, summary)
    for line in _next_steps(str(summary["run_dir"])):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _next_steps(run_dir: str) -> list[str]:
    """Where everything is, and commands that run as they stand."""
    programs = _near(Path(sys.executable).parent)
    run = shlex.quote(str(_near(Path(run_dir) / "run")))
    return [
        f"\nEverything is kept in {_near(Path(run_dir))}: run, logs, configurations, the emulated meters' journal.",
        "\nTry next:",
        "  # compute every step again from the stored samples, and compare byte for byte",
        f"  {programs}/wattloop-coordinator replay {run}",
        "  # a simulated minute every two seconds",
        f"  {programs}/wattloop-hil demo --speed 30 --duration 60",
        "  # what a wrong scenario looks like: change a key in a copy of scenarios/paper-day.yaml",
        f"  {programs}/wattloop-coordinator check scenarios/paper-day.yaml",
        f"  sqlite3 {run}/ledger.db .schema",
    ]


def _near(path: Path) -> Path:
    """The path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _print_charts(console: Console, points: Sequence[Point]) -> None:
    charts: list[tuple[str, Sequence[float | None], float | None, float | None]] = [
        ("battery, state of charge, 0–100 %", [point.soc for point in points], 0.0, 1.0),
        ("node, measured power", [point.load_w for point in points], 0.0, None),
        ("solar power", [point.sun_w for point in points], 0.0, None),
        ("drawn from the grid", [max(0.0, -point.grid_w) for point in points], 0.0, None),
        ("carbon intensity of the grid", [point.carbon_g_per_kwh for point in points], 0.0, None),
    ]
    units = ("%", "W", "W", "W", "g/kWh")
    for (title, values, low, high), unit in zip(charts, units, strict=True):
        known = [value for value in values if value is not None]
        if not known:
            continue
        scale = 100.0 if unit == "%" else 1.0
        span = f"{min(known) * scale:.1f} … {max(known) * scale:.1f} {unit}"
        console.print(f"{title}: {span}", highlight=False, style="bold")
        for line in chart(values, width=WIDTH, height=3, low=low, high=high):
            console.print(f"  {line}", highlight=False, markup=False)
    start, end = points[0].t, points[-1].t
    ends = f"{start:%a %H:%M}", f"{end:%a %H:%M}"
    console.print(f"  {ends[0]}{ends[1]:>{max(1, min(WIDTH, len(points)) - len(ends[0]))}}\n", highlight=False)


def _table(summary: Mapping[str, object]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for key, value in summary.items():
        if key == "events":
            continue
        if isinstance(value, Mapping):
            text = "  ".join(f"{name} {_number(number)}" for name, number in value.items())
        elif isinstance(value, list):
            text = ", ".join(map(str, value))
        else:
            text = _number(value)
        table.add_row(key.replace("_", " "), text)
    return table


def _print_events(console: Console, summary: Mapping[str, object]) -> None:
    events = summary.get("events")
    if not isinstance(events, list) or not events:
        return
    console.print("\nwhat happened, in simulated time", style="bold")
    for event in events:
        console.print(
            f"  {event['at']}  {event['kind']}: {event['detail']}", highlight=False, markup=False, soft_wrap=True
        )


def _number(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 0.01 else f"{value:,.3f}".rstrip("0").rstrip(".")
    return str(value)
