"""``wattloop-coordinator replay RUN``: compute a recorded run again and compare the step tables, byte for byte."""

import argparse
import sqlite3
from itertools import zip_longest
from pathlib import Path

from coordinator.ledgerreader import LedgerReader
from coordinator.ledgerschema import LedgerError
from coordinator.records import StepRow
from coordinator.replay import Comparison, replay, timeline_of
from coordinator.run import SCENARIO_PATH, SCENARIO_TEXT
from coordinator.scenario import load_scenario
from hil.clock import SystemClock, iso_us
from hil.commandline import FAILED, Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="where the run's scenario lies now")


def run(arguments: argparse.Namespace) -> int:
    """Replay and compare; status 0 if every step is identical, 1 at the first difference."""
    steps = 0
    try:
        with LedgerReader(arguments.run_dir) as reader:
            timeline = timeline_of(reader, arguments.run_dir)
            path = arguments.scenario or Path(reader.meta(SCENARIO_PATH) or "")
            if path.read_text(encoding="utf-8") != reader.meta(SCENARIO_TEXT):
                raise Failure(f"{path} has changed since the run; name an unchanged copy with --scenario")
            scenario = load_scenario(path, SystemClock(), start_us=timeline.start_us)
            for comparison in replay(reader, scenario, timeline):
                if not comparison.identical:
                    for line in _differences(comparison):
                        print(line)
                    return FAILED
                steps += 1
    except LedgerError as error:
        raise Failure(str(error)) from error
    except sqlite3.DatabaseError as error:
        raise Failure(f"{arguments.run_dir}: a damaged ledger: {error}") from error
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}; name the scenario with --scenario") from error
    print(f"{steps} steps computed again: identical, byte for byte")
    return 0


def _differences(comparison: Comparison) -> list[str]:
    lines = []
    for recorded, computed in zip_longest(comparison.recorded, comparison.computed):
        if recorded is None or computed is None or recorded == computed:
            continue
        result = recorded.result
        lines.append(f"microgrid {recorded.microgrid}, step {result.k} ({iso_us(result.t_us)}) differs:")
        lines += [f"  {name}: recorded {was}, computed {now}" for name, was, now in _fields(recorded, computed)]
    return lines


def _fields(recorded: StepRow, computed: StepRow) -> list[tuple[str, object, object]]:
    pairs: list[tuple[str, object, object]] = [
        (f"input {was.actor}", was.power_w, now.power_w)
        for was, now in zip(recorded.inputs, computed.inputs, strict=False)
    ]
    names = ("p_delta_w", "p_battery_w", "p_grid_w", "p_unserved_w", "p_curtailed_w", "soc", "settings", "emissions_g")
    pairs += [(name, getattr(recorded.result, name), getattr(computed.result, name)) for name in names]
    pairs += [
        (name, getattr(recorded, name), getattr(computed, name)) for name in ("carbon_g_per_kwh", "price_per_mwh")
    ]
    return [(name, was, now) for name, was, now in pairs if was != now]
