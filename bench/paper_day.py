"""The paper's day, run and audited: does the demonstration do what it promises?

Runs the whole demonstration (two minutes), then looks only at what it left on disk: the ledger through plain SQL, the
emulated node's journal as CSV. Battery and grid are computed again here, in energies instead of powers, by code that
shares nothing with the product.

    python bench/paper_day.py [--run DIR]

With ``--run`` the run of an earlier demonstration is audited instead. Prints one JSON line; exits with 1 where a
promise is broken.
"""

import argparse
import csv
import json
import math
import sqlite3
import subprocess
import sys
import tempfile
from bisect import bisect_right
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from measure import machine

ZONE = ZoneInfo("America/Los_Angeles")
STEPS = 1440
SPEED = 750.0
CAPACITY_WH = 250.0
FIRST_SOC = 0.60
FULL_W, SAVING_W, CHARGE_W = 15.0, 7.5, 40.0


class Step(NamedTuple):
    """A row of the step table, with what went into it. Instrument powers are ≥ 0."""

    k: int
    dt_s: float
    node_w: float
    solar_w: float
    source: str
    p_actors_w: float
    p_battery_w: float
    p_grid_w: float
    p_unserved_w: float
    p_curtailed_w: float
    soc: float
    min_soc: float
    charge_power_w: float | None
    islanded: int
    carbon_g_per_kwh: float
    emissions_g: float
    real_t_us: int

    @property
    def hours(self) -> float:
        """Its length in simulated hours."""
        return self.dt_s / 3600.0


ROWS = """
SELECT step.k, dt_s, node.power_w, solar.power_w, source.name, node.p_w + solar.p_w, p_battery_w, p_grid_w,
  p_unserved_w, p_curtailed_w, soc, min_soc, charge_power_w, islanded, carbon_g_per_kwh, emissions_g, real_t_us
FROM step JOIN microgrid ON microgrid.id = step.microgrid AND microgrid.name = 'paper'
  JOIN step_input AS node ON (node.k, node.microgrid, node.place) = (step.k, step.microgrid, 0)
  JOIN step_input AS solar ON (solar.k, solar.microgrid, solar.place) = (step.k, step.microgrid, 1)
  JOIN source ON source.id = node.source JOIN step_time ON step_time.k = step.k
ORDER BY step.k
"""
EVENTS = """
SELECT t_us, kind, detail FROM event JOIN microgrid ON microgrid.id = microgrid AND microgrid.name = 'paper'
ORDER BY event.id
"""
SAMPLES = """
SELECT min(seq), max(seq), count(*), count(DISTINCT seq) FROM sample JOIN stream ON stream.id = stream
JOIN node ON node.id = stream.node AND node.name = 'jetson-1'
"""


@dataclass(frozen=True, slots=True)
class Act:
    """Something that the controller did, at a simulated time of the day."""

    at: time
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Day:
    """What a demonstration left."""

    summary: dict[str, Any]
    steps: list[Step]
    acts: list[Act]
    sequence: tuple[int, int, int, int]
    journal: list[tuple[int, float]]


def main() -> int:
    parser = argparse.ArgumentParser(description="run the paper's day and audit what it left")
    parser.add_argument("--run", type=Path, metavar="DIR", help="audit the demonstration that is kept there")
    options = parser.parse_args()
    if options.run is not None:
        return report(options.run, {})
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        run_dir = Path(folder) / "day"
        return report(run_dir, demonstrate(run_dir))


def demonstrate(run_dir: Path) -> dict[str, Any]:
    """Run the demonstration; its own summary."""
    command = [Path(sys.executable).with_name("wattloop-hil"), "demo", "--json", "--run-dir", run_dir]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    summary: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return summary


def report(run_dir: Path, summary: dict[str, Any]) -> int:
    day = read(run_dir, summary)
    figures, broken = audit(day)
    command = [Path(sys.executable).with_name("wattloop-coordinator"), "replay", run_dir / "run"]
    replay = subprocess.run(command, check=False, capture_output=True, text=True)
    if replay.returncode != 0:
        broken.append(f"the replay differs: {replay.stdout or replay.stderr}")
    figures = {name: round(value, 12) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps({"bench": "paper_day", **figures, "broken": broken, "machine": machine()}))
    return 1 if broken else 0


def read(run_dir: Path, summary: dict[str, Any]) -> Day:
    with closing(sqlite3.connect(f"{(run_dir / 'run' / 'ledger.db').absolute().as_uri()}?mode=ro", uri=True)) as ledger:
        steps = [Step(*row) for row in ledger.execute(ROWS)]
        acts = [Act(local(t_us), kind, detail) for t_us, kind, detail in ledger.execute(EVENTS)]
        [sequence] = ledger.execute(SAMPLES)
    with (run_dir / "journal-jetson-1.csv").open(encoding="ascii") as file:
        journal = [(int(row["t_us"]), float(row["energy_j"])) for row in csv.DictReader(file)]
    return Day(summary, steps, acts, sequence, journal)


def local(t_us: int) -> time:
    """The time of day, to the second."""
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=t_us)
    return instant.astimezone(ZONE).time().replace(microsecond=0)


# --- the audit --------------------------------------------------------------------------------------------------------


def audit(day: Day) -> tuple[dict[str, Any], list[str]]:
    """The figures, and every promise that does not hold, in words."""
    figures: dict[str, Any] = {}
    broken: list[str] = []

    def promise(holds: bool, what: str) -> None:
        if not holds:
            broken.append(what)

    steps = day.steps
    figures["steps"], figures["simulated_h"] = len(steps), sum(step.hours for step in steps)
    promise([step.k for step in steps] == list(range(STEPS)), "every minute of the day is a step")
    promise(math.isclose(figures["simulated_h"], 24.0, rel_tol=0.001), "the steps add up to a day")

    figures["samples"], figures["lost"] = day.sequence[2], day.sequence[1] - day.sequence[3]
    promise(day.sequence[0] == 1 and figures["lost"] == 0, "no sample is missing in the ledger")
    promise(day.sequence[2] == day.sequence[3], "no sample is stored twice")

    figures["balance_residual"] = max(map(residual, steps))
    promise(figures["balance_residual"] <= 1e-9, "every step balances to 1e-9")

    figures |= again(steps)
    promise(figures["soc_error"] <= 1e-9, "soc computed again agrees")
    promise(figures["grid_error_wh"] <= 1e-6, "grid energy computed again agrees")

    measured = [step for step in steps if step.source == "measured"]
    before = [step.node_w for step in measured if step.k < 20 * 60]
    after = [step.node_w for step in measured if step.k >= 20 * 60 + 30]
    figures["measured_share"] = len(measured) / len(steps)
    figures["before_w"], figures["after_w"] = [min(before), max(before)], [min(after), max(after)]
    promise(figures["measured_share"] >= 0.9, "nine steps in ten are measured")
    promise(all(abs(power_w - FULL_W) <= 1.0 for power_w in before), "15 ± 1 W are measured before 20:00")
    promise(all(abs(power_w - SAVING_W) <= 0.5 for power_w in after), "7.5 ± 0.5 W are measured from 20:30 on")

    figures |= consumption(day)
    promise(abs(figures["journal_difference"]) <= 0.005, "consumption agrees with the node's journal to 0.5 %")

    figures["acts"] = [f"{act.at:%H:%M} {act.kind}: {act.detail}" for act in day.acts]
    broken += story(day)
    broken += own_words(day)
    return figures, broken


def residual(step: Step) -> float:
    """What the balance of a step leaves, relative to its largest power."""
    left = step.p_actors_w + step.p_battery_w - step.p_grid_w + step.p_unserved_w - step.p_curtailed_w
    return abs(left) / max(1.0, step.node_w, step.solar_w, abs(step.p_battery_w), abs(step.p_grid_w))


def again(steps: list[Step]) -> dict[str, float]:
    """Battery and grid from what was measured and set, in Wh: how far the recorded day is from that."""
    stored_wh = FIRST_SOC * CAPACITY_WH
    imported_wh = exported_wh = unserved_wh = emissions_g = worst_soc = worst_wh = 0.0
    for step in steps:
        spare_wh = (step.solar_w - step.node_w) * step.hours
        room_wh, reserve_wh = CAPACITY_WH - stored_wh, max(0.0, stored_wh - step.min_soc * CAPACITY_WH)
        if step.charge_power_w is not None and not step.islanded:
            given_wh = min(step.charge_power_w * step.hours, room_wh)
        else:
            given_wh = min(max(spare_wh, -reserve_wh), room_wh)
        stored_wh += given_wh
        rest_wh = spare_wh - given_wh
        if step.islanded:
            unserved_wh += max(0.0, -rest_wh)
            rest_wh = 0.0
        imported_wh += max(0.0, -rest_wh)
        exported_wh += max(0.0, rest_wh)
        emissions_g += max(0.0, -rest_wh) / 1000.0 * step.carbon_g_per_kwh
        worst_soc = max(worst_soc, abs(step.soc - stored_wh / CAPACITY_WH))
        worst_wh = max(worst_wh, abs(step.p_grid_w * step.hours - rest_wh))
    recorded_g = sum(step.emissions_g for step in steps)
    return {
        "import_wh": imported_wh,
        "export_wh": exported_wh,
        "unserved_wh": unserved_wh,
        "emissions_g": emissions_g,
        "final_soc": stored_wh / CAPACITY_WH,
        "soc_error": worst_soc,
        "grid_error_wh": worst_wh,
        "emissions_error_g": abs(recorded_g - emissions_g),
    }


def consumption(day: Day) -> dict[str, float]:
    """What the steps say that the node consumed, beside what it says itself; Wh of simulated time."""
    consumed_wh = sum(step.node_w * step.hours for step in day.steps)
    last_us = day.steps[-1].real_t_us
    first_us = last_us - round(sum(step.dt_s for step in day.steps) / SPEED * 1e6)
    drawn_wh = (counter_j(day.journal, last_us) - counter_j(day.journal, first_us)) * SPEED / 3600.0
    return {
        "consumed_wh": consumed_wh,
        "journal_wh": drawn_wh,
        "journal_difference": consumed_wh / drawn_wh - 1.0,
    }


def counter_j(journal: list[tuple[int, float]], t_us: int) -> float:
    """The node's energy counter at an instant, by a line between the rows around it."""
    after = bisect_right(journal, (t_us, math.inf))
    (t0_us, e0_j), (t1_us, e1_j) = journal[after - 1], journal[min(after, len(journal) - 1)]
    return e0_j if t1_us <= t0_us else e0_j + (e1_j - e0_j) * (t_us - t0_us) / (t1_us - t0_us)


def story(day: Day) -> list[str]:
    """What is wrong with the controller's acts: their order, their times, and what the steps after them show."""
    steps, acts = day.steps, [act for act in day.acts if not act.kind.startswith("limit-")]
    wanted = [("min-soc", "50% → 30%"), ("island", "connected"), ("min-soc", "30% → 50%"), ("charge-power", "40 W")]
    wanted += [("charge-power", "off"), ("island", "cut off"), ("limit", "jetson-1 to 7.5 W")]
    if [(act.kind, act.detail[: len(text)]) for act, (_, text) in zip(acts, wanted, strict=False)] != wanted:
        return [f"the controller's acts are {[(act.kind, act.detail) for act in acts]}"]
    if len(acts) != len(wanted):
        return ["the controller did more than it should"]
    lowered, joined, raised, charged, uncharged, islanded, limited = (
        act.at.hour * 60 + act.at.minute for act in acts
    )  # an act at minute n holds from step n on
    truths = {
        "islanded through the first night": all(step.islanded for step in steps[:joined]),
        "the minimum soc falls on a dirty grid, near the battery's minimum": lowered < joined
        and steps[lowered].carbon_g_per_kwh > 400.0
        and steps[lowered - 1].soc < 0.505,
        "the minimum soc is 30 % from then on": {step.min_soc for step in steps[lowered:raised]} == {0.3},
        "the grid is joined when it is clean": steps[joined].carbon_g_per_kwh < 100.0,
        "the minimum soc rises once the battery is recharged": steps[raised - 1].soc >= 0.52
        and {step.min_soc for step in steps[raised:]} == {0.5},
        "the battery is charged at 40 W, from the grid too": all(
            math.isclose(-step.p_battery_w, CHARGE_W) or step.soc == 1.0 for step in steps[charged:uncharged]
        ),
        "back on the island at 18:00": uncharged == islanded == 18 * 60
        and all(step.islanded for step in steps[islanded:]),
        "power saving at 20:00": limited == 20 * 60,
        "the saving is verified within half an hour": any(
            act.kind == "limit-verified" and time(20) <= act.at <= time(20, 30) for act in day.acts
        ),
    }
    return [what for what, holds in truths.items() if not holds]


def own_words(day: Day) -> list[str]:
    """Where the demonstration's own summary differs from what its rows say."""
    if not day.summary:
        return []
    steps, energy = day.steps, day.summary["energy_wh"]
    rows = {
        "produced": sum(step.solar_w * step.hours for step in steps),
        "consumed": sum(step.node_w * step.hours for step in steps),
        "import": sum(max(0.0, -step.p_grid_w) * step.hours for step in steps),
        "export": sum(max(0.0, step.p_grid_w) * step.hours for step in steps),
        "charged": sum(max(0.0, -step.p_battery_w) * step.hours for step in steps),
        "discharged": sum(max(0.0, step.p_battery_w) * step.hours for step in steps),
    }
    wrong = [
        f"{name} energy is said to be {energy[name]} Wh, not {energy_wh}"
        for name, energy_wh in rows.items()
        if not math.isclose(energy[name], energy_wh)
    ]
    samples = day.summary["samples"]
    if not samples["generated"] == samples["committed"] == day.sequence[2] or samples["lost"]:
        wrong.append(f"samples are said to be {samples}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
