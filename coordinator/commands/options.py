"""Options that several subcommands share, and how their values are read."""

import argparse
import math
import os
import re
from pathlib import Path

from hil.brokerconfig import BrokerConfig
from hil.yamlfile import ConfigError, Fault

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str) -> float:
    """A time such as ``30``, ``90s``, ``2m`` or ``24h``, in s."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a time such as 30, 90s, 2m or 24h")
    return float(match[1]) * _UNITS[match[2]]


def factor(text: str) -> float:
    """A finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return number


def add_broker(parser: argparse.ArgumentParser) -> None:
    """``--mqtt URL`` and ``--site NAME``, for commands that work without a scenario."""
    parser.add_argument("--mqtt", metavar="URL", default="mqtt://127.0.0.1:1883", help="the broker (%(default)s)")
    parser.add_argument("--site", metavar="NAME", default="lab", help="the site (%(default)s)")


def broker_of(url: str) -> BrokerConfig:
    """A broker by its URL alone. Raises ConfigError."""
    try:
        return BrokerConfig(url=url)
    except ValueError as error:
        raise ConfigError([Fault("--mqtt", None, "url", url, str(error))]) from error


def default_state_dir() -> Path:
    """Where a site's start counter lives: systemd's state directory, or the user's own."""
    service = os.environ.get("STATE_DIRECTORY")
    if service:
        return Path(service.split(":")[0])
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "wattloop"
