"""wattloop-coordinator: the command line of the lab host."""

from collections.abc import Sequence
from typing import Final

from hil.commandline import Subcommand, dispatch

COMMANDS: Final = {
    "run": Subcommand(
        "run a scenario in real time on the nodes that are there", "coordinator.commands.run", log_level="info"
    ),
    "check": Subcommand("check a scenario, its traces and its user code", "coordinator.commands.check"),
    "init": Subcommand("write a scenario for the agents that a broker hears", "coordinator.commands.init"),
    "nodes": Subcommand("list the agents that a broker hears", "coordinator.commands.nodes"),
    "replay": Subcommand("compute a recorded run again and compare, byte for byte", "coordinator.commands.replay"),
    "plan": Subcommand("plan jobs, inference, batteries and grid together", "coordinator.commands.plan"),
    "install": Subcommand("install coordinators as services", "coordinator.install"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit status."""
    return dispatch("wattloop-coordinator", "Steps microgrids against real nodes.", COMMANDS, argv)
