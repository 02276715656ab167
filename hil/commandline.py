"""A command line of subcommands, of which only the chosen one is imported: help stays fast, daemons stay small."""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Final, NamedTuple

from hil.logs import LEVELS, configure
from hil.yamlfile import ConfigError

FAILED: Final = 1
BAD_CONFIG: Final = 2
INTERRUPTED: Final = 130


class Subcommand(NamedTuple):
    """What a subcommand is for, and the module that has its ``add_arguments(parser)`` and ``run(arguments)``.

    A service logs from ``info``, so that its journal tells what it did; what a person watches from ``warning``.
    """

    summary: str
    module: str
    log_level: str = "warning"


class Failure(Exception):
    """What a subcommand raises to end with status 1 and one plain line for the user."""


def dispatch(prog: str, summary: str, commands: Mapping[str, Subcommand], argv: Sequence[str] | None = None) -> int:
    """Run the chosen subcommand; the process's exit status. A bad configuration ends with status 2, a line a fault."""
    try:
        return _dispatch(prog, summary, commands, argv)
    except KeyboardInterrupt:  # also while modules are still being loaded
        return INTERRUPTED


def _dispatch(prog: str, summary: str, commands: Mapping[str, Subcommand], argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in arguments if word in commands), None)
    parser = argparse.ArgumentParser(prog=prog, description=summary)
    parser.add_argument("--version", action="version", version=f"{prog} {version('wattloop')}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, subcommand in commands.items():
        subparser = subparsers.add_parser(name, help=subcommand.summary, description=subcommand.summary)
        if name == chosen:
            module = importlib.import_module(subcommand.module)
            module.add_arguments(subparser)
            log_help = "what to log (%(default)s)"
            subparser.add_argument("--log-level", choices=LEVELS, default=subcommand.log_level, help=log_help)
            subparser.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    configure(parsed.log_level)
    try:
        status: int = parsed.run(parsed)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_CONFIG
    except Failure as error:
        sys.stderr.write(f"{prog} {parsed.command}: {error}\n")
        return FAILED
    return status
