"""wattloop-agent: the command line of a node's agent."""

from collections.abc import Sequence
from typing import Final

from hil.commandline import Subcommand, dispatch

COMMANDS: Final = {
    "run": Subcommand("measure, publish and obey, until stopped", "agent.commands.run", log_level="info"),
    "check": Subcommand("check a configuration, and read each of its meters once", "agent.commands.check"),
    "scan": Subcommand("find Modbus meters, and print a configuration for them", "agent.commands.scan"),
    "status": Subcommand("what is measured and limited now, by whom, and for how long", "agent.commands.status"),
    "lock": Subcommand("take the limits of this machine over from every coordinator", "agent.commands.switch"),
    "unlock": Subcommand("give the limits of this machine back to the coordinator", "agent.commands.switch"),
    "restore": Subcommand("put back what a dead agent left limited", "agent.commands.restore"),
    "calibrate": Subcommand("measure the power that each frequency draws", "agent.commands.calibrate"),
    "burn": Subcommand("a reproducible load on this machine's processors", "agent.commands.burn"),
    "install": Subcommand("install the agent as a service", "agent.install"),
    "version": Subcommand("say which version this is", "agent.commands.version"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit status."""
    return dispatch("wattloop-agent", "Measures a node's power and obeys power limits under a lease.", COMMANDS, argv)
