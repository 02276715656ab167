"""wattloop-agent run: the agent itself, until it is told to stop."""

import argparse
import asyncio
import faulthandler
import signal
from importlib.metadata import version
from pathlib import Path

from agent.agent import Agent, Identity
from agent.commands import options
from agent.config import Setup, load_setup
from agent.leasestore import StoreFailed
from agent.machine import boot_id
from agent.statedir import StateDir, StateDirError
from agent.voice import will
from hil.clock import SystemClock
from hil.commandline import Failure
from hil.mqtt import MqttBus
from hil.sdnotify import Notifier
from hil.wire import Topics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run``."""
    options.add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the agent until SIGTERM or SIGINT; exit status 0. Raises ConfigError or Failure."""
    faulthandler.enable()  # a watchdog ends a service by SIGABRT; the traceback tells where it hung
    clock = SystemClock()
    setup = load_setup(Path(arguments.config), clock)
    state_dir = StateDir(setup.state_dir)
    try:
        state_dir.acquire()
        asyncio.run(_serve(setup, state_dir, clock))
    except (StateDirError, StoreFailed) as error:
        raise Failure(str(error)) from error
    return 0


async def _serve(setup: Setup, state_dir: StateDir, clock: SystemClock) -> None:
    identity = Identity(state_dir.next_session(clock), boot_id(), version("wattloop"))
    topics = Topics(setup.config.site).node(setup.config.node)
    bus = MqttBus(setup.broker, setup.config.node, clock, will(topics, identity.session))
    agent = Agent(setup, state_dir, identity, bus, clock, Notifier.from_environment())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await agent.run(stop)
