"""wattloop-hil: the command line of what stands in for the world."""

from collections.abc import Sequence
from typing import Final

from hil.commandline import Subcommand, dispatch

COMMANDS: Final = {
    "demo": Subcommand("run the whole loop on this machine, with an emulated node", "hil.demo.run"),
    "emulate": Subcommand("serve emulated nodes behind metered PDUs (Modbus TCP)", "hil.emulated.command"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit status."""
    return dispatch(
        "wattloop-hil", "Stands in for the world: emulated nodes and meters, and the demonstration.", COMMANDS, argv
    )
