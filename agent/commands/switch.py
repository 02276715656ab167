"""wattloop-agent lock, unlock: a person on this machine takes the limits over from every coordinator, or gives back."""

import argparse
import sys
from pathlib import Path

from agent.commands import options
from agent.config import load_setup
from agent.statedir import StateDir
from hil.clock import SystemClock
from hil.commandline import Failure
from hil.oserrors import reason

LOCKED = "locked: limits are lifted within a second, commands refused until `wattloop-agent unlock`\n"
UNLOCKED = "unlocked: a coordinator may limit this node again\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``lock`` and ``unlock``."""
    options.add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Set the switch; exit status 0, also where it was set so already. Raises ConfigError or Failure."""
    setup = load_setup(Path(arguments.config), SystemClock())
    switch = StateDir(setup.state_dir).switch
    try:
        if arguments.command == "lock":
            switch.touch(mode=0o644)
        else:
            switch.unlink(missing_ok=True)
    except FileNotFoundError as error:
        raise Failure(f"{setup.state_dir} does not exist: no agent has run with this configuration yet") from error
    except OSError as error:
        raise Failure(f"{switch}: {reason(error)}; root and the agent's user may do this") from error
    sys.stdout.write(LOCKED if arguments.command == "lock" else UNLOCKED)
    return 0
