"""``wattloop-hil demo``: the whole loop on one machine, shown while it runs and summed up at its end."""

import argparse
import asyncio
import itertools
import json
import math
import re
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from hil.broker import BrokerUnavailable
from hil.commandline import BAD_CONFIG, INTERRUPTED, Failure
from hil.demo.demonstration import Demonstration, Programme, ScenarioRefused
from hil.demo.summary import print_summary
from hil.demo.views import LiveView, PlainView, View
from hil.mqtt import BrokerConfig
from hil.places import data_path
from hil.rig import RigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``wattloop-hil demo``."""
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="scenario to run (default: the paper's day)")
    parser.add_argument(
        "--duration", type=_seconds, metavar="TIME", help="stop after this much real time, such as 30, 90s or 2m"
    )
    parser.add_argument("--speed", type=_speed, metavar="X", help="simulated seconds per real second")
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="where the run is kept (default: a new one in runs/)"
    )
    parser.add_argument("--mqtt", type=_broker, metavar="URL", help="use this broker, such as mqtt://127.0.0.1:1883")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object, on the last line")


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration; the process's exit status."""
    try:
        return asyncio.run(_supervise(arguments))
    except ScenarioRefused as error:
        sys.stderr.write(f"{error}\n")
        return BAD_CONFIG
    except (RigError, BrokerUnavailable) as error:
        raise Failure(str(error)) from error


async def _supervise(arguments: argparse.Namespace) -> int:
    """The demonstration as a task that SIGINT and SIGTERM cancel, so that every way out passes the rig's stop."""
    task = asyncio.ensure_future(_demonstrate(arguments))

    def stop() -> None:
        if not task.cancelling():  # a second Ctrl-C must not cut the tidying up short
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        return INTERRUPTED


async def _demonstrate(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    scenario = arguments.scenario or data_path("scenarios") / "paper-day.yaml"
    programme = Programme(scenario, arguments.duration, arguments.speed, arguments.mqtt)
    run_dir = _new_run_dir() if arguments.run_dir is None else _empty_run_dir(arguments.run_dir.absolute())
    console = Console(stderr=arguments.json)
    live = console.is_terminal and not arguments.json
    view: View = LiveView(console, "wattloop demo") if live else PlainView(console)
    show = Demonstration(programme, run_dir, view)
    try:
        summary = await show.play()
    except ScenarioRefused:
        shutil.rmtree(run_dir)  # empty when we came, and nothing in it is worth keeping
        raise
    except asyncio.CancelledError:
        view.close()
        console.print(f"stopped; what was recorded is in {run_dir}", highlight=False, soft_wrap=True)
        raise
    finally:
        view.close()
    summary["wall_s"] = round(time.monotonic() - began, 3)
    if arguments.json:
        sys.stdout.write(json.dumps(summary) + "\n")
    else:
        print_summary(console, summary, show.scene)
    return 0


def _empty_run_dir(run_dir: Path) -> Path:
    """The folder that the user named, there and empty. Raises RigError."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if any(run_dir.iterdir()):
            raise RigError(f"{run_dir} is not empty; choose a new folder with --run-dir")
        (run_dir / "logs").mkdir()  # tells whether we may write there
    except OSError as error:
        raise _unusable(run_dir, error) from error
    return run_dir


def _new_run_dir() -> Path:
    """A new folder in ``runs``, named after the time. Raises RigError."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    names = itertools.chain([f"{stamp}-demo"], (f"{stamp}-demo-{count}" for count in itertools.count(2)))
    while True:
        run_dir = Path("runs").absolute() / next(names)
        try:
            run_dir.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _unusable(run_dir, error) from error
        return run_dir


def _unusable(run_dir: Path, error: OSError) -> RigError:
    return RigError(f"{run_dir}: {error.strerror}; choose another folder with --run-dir")


def _broker(url: str) -> BrokerConfig:
    try:
        return BrokerConfig(url=url)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a time such as 30, 90s or 2m")
    return float(match[1]) * {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return speed
