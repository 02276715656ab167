"""``wattloop-coordinator init``: a scenario for the agents that a broker hears, to be edited."""

import argparse
import asyncio
import sys
from pathlib import Path

from coordinator.census import CensusError, births, census
from coordinator.commands.options import add_broker, broker_of
from coordinator.sketch import scenario_from
from hil.clock import SystemClock
from hil.commandline import Failure

TIMEOUT_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    add_broker(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there (default: standard output)")


def run(arguments: argparse.Namespace) -> int:
    """Write the scenario; status 0, or 1 where the broker does not answer or the file is there already."""
    broker = broker_of(arguments.mqtt)
    try:
        agents = asyncio.run(census(broker, arguments.site, SystemClock(), TIMEOUT_S))
    except CensusError as error:
        raise Failure(str(error)) from error
    text = scenario_from(births(agents), arguments.site, broker.url)
    if arguments.out is None:
        sys.stdout.write(text)
        return 0
    try:
        with arguments.out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise Failure(f"{arguments.out} is there already; choose another name") from error
    except OSError as error:
        raise Failure(f"{arguments.out}: {error.strerror}") from error
    print(f"{arguments.out}: {len(agents)} agents; edit it, then: wattloop-coordinator check {arguments.out}")
    return 0
