"""wattloop-agent version: which version this is."""

import argparse
import sys
from importlib.metadata import version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take no options."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Print the version; exit status 0."""
    del arguments
    sys.stdout.write(f"wattloop-agent {version('wattloop')}\n")
    return 0
