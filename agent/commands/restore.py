"""wattloop-agent restore: put back every setting that a dead agent left changed."""

import argparse
import asyncio
import sys
from pathlib import Path

from agent.commands import options
from agent.config import load_setup
from agent.leasestore import LeaseStore, StoreFailed
from agent.obedience import restore_all
from agent.statedir import StateDir, StateDirError
from hil.clock import SystemClock
from hil.commandline import FAILED, Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``restore``."""
    options.add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Restore from the undo log; exit status 0, or 1 if a device could not be. Raises ConfigError or Failure."""
    setup = load_setup(Path(arguments.config), SystemClock())
    state_dir = StateDir(setup.state_dir)
    if not state_dir.leases.exists():
        sys.stdout.write("nothing to restore\n")
        return 0
    try:
        state_dir.acquire()
        restored = asyncio.run(restore_all(LeaseStore(state_dir.leases), setup.actuators))
    except (StateDirError, StoreFailed) as error:
        raise Failure(str(error)) from error
    finally:
        state_dir.release()
    for name in restored.done:
        sys.stdout.write(f"{name}: restored\n")
    for name, reason in restored.failed:
        sys.stderr.write(f"{name}: not restored: {reason}\n")
    if not restored.done and not restored.failed:
        sys.stdout.write("nothing to restore\n")
    return FAILED if restored.failed else 0
