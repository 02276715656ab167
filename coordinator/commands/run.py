"""``wattloop-coordinator run SCENARIO``: a scenario in real time on real nodes."""

import argparse
import asyncio
import signal
import sqlite3
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from coordinator.commands.options import default_state_dir, factor, seconds
from coordinator.ledgerschema import LedgerError, ledger_file
from coordinator.records import EventRow
from coordinator.run import LiveRun, Past, RunError, RunOptions, can_go_on, past_of
from coordinator.scenario import Overrides, Scenario, load_config, load_scenario
from coordinator.site import SiteError
from coordinator.summary import RunSummary, summarise
from hil.clock import SystemClock, utc
from hil.commandline import Failure
from hil.sdnotify import Notifier


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.add_argument("scenario", type=Path, metavar="SCENARIO", help="the scenario (YAML)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="keep the run there, or resume the one that is there"
    )
    where.add_argument(
        "--runs", type=Path, metavar="DIR", help="keep runs there, and resume the newest if it is of this very scenario"
    )
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="where the site's start counter lives")
    parser.add_argument("--mqtt", metavar="URL", help="use this broker, not the scenario's")
    parser.add_argument("--speed", type=factor, metavar="X", help="simulated seconds per real second")
    parser.add_argument("--duration", type=seconds, metavar="TIME", help="end after this much real time, such as 90s")
    parser.add_argument("--take-over", action="store_true", help="replace a coordinator that runs this site")
    parser.add_argument(
        "--drain", type=seconds, metavar="TIME", default=0.0, help="acknowledge samples for so long after the last step"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object, on the last line")


def run(arguments: argparse.Namespace) -> int:
    """Run the scenario to its end, or to SIGINT or SIGTERM; the exit status."""
    clock = SystemClock()
    try:
        overrides = _overrides(arguments)
        config = load_config(arguments.scenario, overrides).value
        run_dir = arguments.run_dir or run_folder(arguments, config.name)
        past = past_of(run_dir, arguments.scenario)
        start_us = None if past is None else past.snapshot.timeline.start_us
        scenario = load_scenario(arguments.scenario, clock, overrides, start_us=start_us)
        state_dir = arguments.state_dir or _state_dir(scenario)
        options = RunOptions(run_dir, state_dir, arguments.take_over, arguments.drain)
        asyncio.run(_until_signal(scenario, past, options, clock))
        summary = summarise(run_dir, scenario.zone)
    except (RunError, SiteError, LedgerError) as error:
        raise Failure(str(error)) from error
    except sqlite3.DatabaseError as error:
        raise Failure(f"{run_dir}: a damaged ledger: {error}") from error
    _print(summary, as_json=arguments.json)
    return 0


def _overrides(arguments: argparse.Namespace) -> Overrides:
    """What the command line sets. A duration is real time, and only ever shortens a run."""
    overrides = Overrides(broker_url=arguments.mqtt, speed=arguments.speed)
    if arguments.duration is None:
        return overrides
    config = load_config(arguments.scenario, overrides).value
    simulated_s = max(config.interval_s, arguments.duration * config.speed)
    return replace(overrides, duration_s=simulated_s if config.run_s is None else min(simulated_s, config.run_s))


async def _until_signal(scenario: Scenario, past: Past | None, options: RunOptions, clock: SystemClock) -> None:
    notifier = Notifier.from_environment()
    live = LiveRun(scenario, past, options, clock, notifier, lambda event: _tell(scenario, event))
    task = asyncio.ensure_future(live.go())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        notifier.stopping()


def _tell(scenario: Scenario, event: EventRow) -> None:
    at = utc(event.t_us).astimezone(scenario.zone)
    where = f" {event.microgrid}" if event.microgrid else ""
    print(f"{at:%a %H:%M:%S}{where}  {event.kind}: {event.detail}", flush=True)


def run_folder(arguments: argparse.Namespace, name: str) -> Path:
    """A new folder; with ``--runs`` the newest one there, if its run can go on."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    fresh = (arguments.runs or Path("runs")) / f"{stamp}-{name}"
    if arguments.runs is None:
        return fresh
    newest = max((ledger.parent for ledger in arguments.runs.glob(f"*/{ledger_file(Path()).name}")), default=fresh)
    return newest if can_go_on(newest, arguments.scenario) else fresh


def _state_dir(scenario: Scenario) -> Path:
    named = scenario.config.state_dir
    return (scenario.path.parent / Path(named).expanduser()) if named else default_state_dir()


def _print(summary: RunSummary, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
        return
    for line in summary.lines():
        print(line)
