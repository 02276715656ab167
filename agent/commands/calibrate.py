"""wattloop-agent calibrate: measure the curve that turns a limit in watts into a frequency."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from agent.actuators.cpufreq import CpufreqActuator
from agent.actuators.cpufreq.calibration import NoCurve, measure
from agent.actuators.cpufreq.curve import Point
from agent.burn.profile import load_profile
from agent.commands import options
from agent.config import Setup, load_setup
from agent.leasestore import Change, LeaseStore, StoreFailed
from agent.statedir import StateDir, StateDirError
from hil.clock import SystemClock
from hil.commandline import Failure
from hil.devices import DeviceError, Meter
from hil.tether import tethered

BURN: Final = "import sys; from agent.cli import main; sys.exit(main())"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``calibrate``."""
    options.add_config(parser)
    parser.add_argument("actuator", help="the name of a cpufreq actuator")
    parser.add_argument("--profile", metavar="NAME|FILE", default="stress", help="the load to burn (%(default)s)")
    parser.add_argument("--points", type=int, choices=range(2, 51), metavar="2…50", default=6, help="(%(default)s)")
    parser.add_argument("--hold", type=float, metavar="SECONDS", default=5.0, help="at each frequency (%(default)g)")


def run(arguments: argparse.Namespace) -> int:
    """Measure, put the frequency back, print the curve; exit status 0. Raises ConfigError or Failure."""
    setup = load_setup(Path(arguments.config), SystemClock())
    load_profile(arguments.profile)
    actuator, meter = _actuator(setup, arguments.actuator), _meter(setup)
    state_dir = StateDir(setup.state_dir)
    try:
        state_dir.acquire()
        curve = asyncio.run(_calibrate(actuator, meter, LeaseStore(state_dir.leases), arguments))
    except (StateDirError, StoreFailed, DeviceError, NoCurve) as error:
        raise Failure(str(error)) from error
    finally:
        state_dir.release()
    points = ", ".join(f"[{megahertz:g}, {power_w:.4g}]" for megahertz, power_w in curve)
    sys.stdout.write(f"curve: [{points}]    # goes to {actuator.name} in {arguments.config}\n")
    return 0


def _actuator(setup: Setup, name: str) -> CpufreqActuator:
    known = [actuator for actuator in setup.actuators if isinstance(actuator, CpufreqActuator)]
    for actuator in known:
        if actuator.name == name:
            return actuator
    names = ", ".join(actuator.name for actuator in known) or "none"
    raise Failure(f"no cpufreq actuator {name} in the configuration; there: {names}")


def _meter(setup: Setup) -> Meter:
    for meter, config in zip(setup.meters, setup.config.meters, strict=True):
        if setup.config.measured_by(config) == setup.config.node:
            return meter
    raise Failure("no meter measures this node")


async def _calibrate(
    actuator: CpufreqActuator, meter: Meter, store: LeaseStore, arguments: argparse.Namespace
) -> list[Point]:
    async with _undone(actuator, store), _burning(arguments.profile):
        await meter.open()
        try:
            return await measure(actuator, meter, arguments.points, arguments.hold, SystemClock(), _tell)
        finally:
            await meter.close()


@asynccontextmanager
async def _undone(actuator: CpufreqActuator, store: LeaseStore) -> AsyncIterator[None]:
    """What is set meanwhile is put back; after a crash by the agent's next start, or ``restore``."""
    memory = await store.open()
    try:
        if actuator.name in memory.undo:
            raise Failure(f"{actuator.name} is still as a dead agent left it; `wattloop-agent restore` puts it back")
        await actuator.open()
        snapshot = await actuator.snapshot()
        await store.write(Change(remember=(actuator.name, snapshot)))
        try:
            yield
        finally:
            await actuator.restore(snapshot)
            await store.write(Change(forget=actuator.name))
    finally:
        await store.close()


@asynccontextmanager
async def _burning(profile: str) -> AsyncIterator[None]:
    argv = tethered([sys.executable, "-I", "-c", BURN, "burn", "--profile", str(profile)])
    load = await asyncio.create_subprocess_exec(*argv)
    try:
        yield
    finally:
        if load.returncode is None:
            load.terminate()
        await load.wait()


def _tell(point: Point) -> None:
    sys.stderr.write(f"{point[0]:g} MHz: {point[1]:.2f} W\n")
