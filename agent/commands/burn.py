"""wattloop-agent burn: a reproducible load on this machine's processors."""

import argparse
import sys
from typing import Final

from agent.burn.load import Interrupted, run_load
from agent.burn.profile import load_profile, stock_profiles

SIGNALLED: Final = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``burn``."""
    known = ", ".join(stock_profiles())
    parser.add_argument("--profile", metavar="NAME|FILE", default="stress", help=f"{known}, or a file (%(default)s)")
    parser.add_argument(
        "--duration", metavar="SECONDS", type=_seconds, help="end after so much time; a pause does not count"
    )


def run(arguments: argparse.Namespace) -> int:
    """Burn; exit status 0 at the end, as a shell's after a signal. Raises ConfigError."""
    profile = load_profile(arguments.profile)
    try:
        burned = run_load(profile, arguments.duration)
    except Interrupted as interrupted:
        return SIGNALLED + interrupted.number
    share = burned.busy_s / (burned.cores * burned.wall_s)
    sys.stdout.write(f"{burned.busy_s:.2f} s busy on {burned.cores} cores in {burned.wall_s:.2f} s ({share:.0%})\n")
    return 0


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 1e7:
        raise ValueError(text)
    return seconds
