"""wattloop-agent: the command line of a node's agent."""

from collections.abc import Sequence
from typing import Final

from hil.commandline import Subcommand, dispatch

COMMANDS: Final = {
    "run": Subcommand("measure, publish and obey, until stopped", "agent.commands.run", log_level="info"),
    "check": Subcommand("check a configuration, and read each of its meters once", "agent.commands.check"),
    "restore": Subcommand("put back what a dead agent left limited", "agent.commands.restore"),
    "install": Subcommand("install the agent as a service", "agent.install"),
    "version": Subcommand("say which version this is", "agent.commands.version"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit status."""
    return dispatch("wattloop-agent", "Measures a node's power and obeys power limits under a lease.", COMMANDS, argv)
