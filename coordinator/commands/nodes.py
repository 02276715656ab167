"""``wattloop-coordinator nodes``: the agents that a broker hears, with their meters, actuators and books."""

import argparse
import asyncio

from rich.console import Console
from rich.table import Table

from coordinator.census import CensusError, Heard, census
from coordinator.commands.options import add_broker, broker_of
from hil.clock import SystemClock
from hil.commandline import Failure

TIMEOUT_S = 5.0
PIPE_WIDTH = 240


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    add_broker(parser)


def run(arguments: argparse.Namespace) -> int:
    """List the agents; status 0, or 1 where the broker does not answer."""
    broker = broker_of(arguments.mqtt)
    try:
        agents = asyncio.run(census(broker, arguments.site, SystemClock(), TIMEOUT_S))
    except CensusError as error:
        raise Failure(str(error)) from error
    if not agents:
        print(f"no agent of site {arguments.site} at {broker.url}")
        return 0
    console = Console()
    if not console.is_terminal:  # a pipe has no width to fit into
        console.width = PIPE_WIDTH
    console.print(_table(agents))
    return 0


def _table(agents: list[Heard]) -> Table:
    table = Table("node", "state", "mode", "meters", "actuators", "generated", "acked", "spooled", "lost", box=None)
    for agent in agents:
        birth, state = agent.birth, agent.state
        meters = [f"{meter.name} ({meter.kind}) of {meter.measures}" for meter in birth.meters] if birth else []
        actuators = [f"{info.name} ({info.kind})" for info in birth.actuators] if birth else []
        table.add_row(
            agent.name,
            state.state if state else "unknown",
            birth.mode if birth else "no readable birth",
            "\n".join(meters),
            "\n".join(actuators),
            *(map(str, (state.generated, state.acked, state.spooled, state.lost)) if state else ("", "", "", "")),
        )
    return table
