"""Options that several subcommands share."""

import argparse
from typing import Final

CONFIG: Final = "/etc/wattloop/agent.yaml"


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``."""
    parser.add_argument("--config", metavar="FILE", default=CONFIG, help="the agent's configuration (%(default)s)")
