"""wattloop-hil: the command line of what stands in for the world."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from hil.logs import configure

INTERRUPTED: Final = 130


class Subcommand(NamedTuple):
    """What a subcommand is for, and the module that has its ``add_arguments(parser)`` and ``run(arguments)``."""

    summary: str
    module: str


COMMANDS: Final = {
    "demo": Subcommand("run the whole loop on this machine, with an emulated node", "hil.demo.run"),
    "emulate": Subcommand("serve emulated nodes behind metered PDUs (Modbus TCP)", "hil.emulated.command"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit status. Only the chosen one is imported."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(prog="wattloop-hil", description=__doc__.partition(": ")[2])
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, subcommand in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=subcommand.summary, description=subcommand.summary)
        if name == chosen:
            module = importlib.import_module(subcommand.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    configure("warning")
    try:
        status: int = parsed.run(parsed)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status
