"""Runs the demonstration: broker, emulated PDU, two agents, a coordinator, each a process of its own."""

import argparse
import asyncio
import contextlib
import json
import math
import re
import signal
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from hil.broker import BrokerUnavailable, EmbeddedBroker
from hil.clock import SystemClock
from hil.commandline import BAD_CONFIG, INTERRUPTED, Failure
from hil.demo.scene import Scene
from hil.demo.summary import print_summary
from hil.demo.views import LiveView, PlainView, View
from hil.demo.world import World, lay_out
from hil.mqtt import BrokerConfig, MqttBus
from hil.places import data_path
from hil.rig import Part, Rig, RigError, script
from hil.wire import Topics

READY_S: Final = 20.0
FIRST_STEP_S: Final = 30.0
REFRESH_S: Final = 0.2
DRAIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for. ``duration_s`` is real time; None runs the whole scenario."""

    scenario: Path
    duration_s: float | None
    speed: float | None
    run_dir: Path | None
    mqtt: str | None
    json: bool


class ScenarioRefused(Exception):
    """The coordinator finds faults in the scenario; the text has them, a line each."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``wattloop-hil demo``."""
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="scenario to run (default: the paper's day)")
    parser.add_argument(
        "--duration", type=_seconds, metavar="TIME", help="stop after this much real time, such as 30, 90s or 2m"
    )
    parser.add_argument("--speed", type=_speed, metavar="X", help="simulated seconds per real second")
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="where the run is kept (default: a new one in runs/)"
    )
    parser.add_argument("--mqtt", metavar="URL", help="use this broker, such as mqtt://127.0.0.1:1883")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object, on the last line")


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration; the process's exit status."""
    options = Options(
        scenario=arguments.scenario or data_path("scenarios") / "paper-day.yaml",
        duration_s=arguments.duration,
        speed=arguments.speed,
        run_dir=arguments.run_dir,
        mqtt=arguments.mqtt,
        json=arguments.json,
    )
    try:
        return asyncio.run(_supervise(options))
    except ScenarioRefused as error:
        sys.stderr.write(f"{error}\n")
        return BAD_CONFIG
    except (RigError, BrokerUnavailable) as error:
        raise Failure(str(error)) from error


async def _supervise(options: Options) -> int:
    """The demonstration as a task that SIGINT and SIGTERM cancel, so that every way out passes the rig's stop."""
    task = asyncio.ensure_future(_demonstrate(options))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return INTERRUPTED


async def _demonstrate(options: Options) -> int:
    began = time.monotonic()
    run_dir = _make_run_dir(options)
    console = Console(stderr=options.json)
    view: View = LiveView(console, "wattloop demo") if console.is_terminal and not options.json else PlainView(console)
    show = Demonstration(options, run_dir, view)
    try:
        async with Rig(run_dir / "logs") as rig:
            summary = await show.play(rig)
    except asyncio.CancelledError:
        view.close()
        console.print(f"stopped; what was recorded is in {run_dir}", highlight=False, soft_wrap=True)
        raise
    finally:
        view.close()
    summary["wall_s"] = round(time.monotonic() - began, 3)
    if options.json:
        sys.stdout.write(json.dumps(summary) + "\n")
    else:
        print_summary(console, summary, show.scene)
    return 0


class Demonstration:
    """One run from the broker's start to the summary."""

    def __init__(self, options: Options, run_dir: Path, view: View) -> None:
        self._options = options
        self._run_dir = run_dir
        self._view = view
        self._report = run_dir / "report.out"
        self._shown = 0
        self.scene = Scene(Topics("demo"))

    async def play(self, rig: Rig) -> dict[str, Any]:
        """Start everything, follow it to the end, and give the summary of the first microgrid."""
        await self._check(rig)
        async with contextlib.AsyncExitStack() as stack:
            url = await self._broker(stack)
            world = lay_out(self._options.scenario, self._run_dir, url)
            self.scene = Scene(Topics(world.site))
            bus = MqttBus(BrokerConfig(url=url), "demo-view", SystemClock())
            for topic_filter in self.scene.filters:
                bus.subscribe(topic_filter)
            await bus.start()
            stack.push_async_callback(bus.stop)
            listening = asyncio.ensure_future(self._listen(bus))
            stack.callback(listening.cancel)
            agents, coordinator = await self._start(rig, world, url)
            await self._follow(rig, coordinator, world)
            if not self.scene.done:
                raise RigError(f"the coordinator ended with status {coordinator.status}:\n{coordinator.tail()}")
            self._view.phase("the day is over; agents hand in their last samples …")
            await asyncio.gather(*(rig.end(agent, DRAIN_S) for agent in agents))
            if await self._ended(coordinator) != 0:
                raise RigError(f"the coordinator ended with status {coordinator.status}:\n{coordinator.tail()}")
            return self._summary()

    async def _check(self, rig: Rig) -> None:
        """Have the scenario checked before anything is started for it."""
        argv: list[str | Path] = [script("wattloop-coordinator"), "check", self._options.scenario]
        check = await rig.start("check", argv, stdout=self._run_dir / "logs" / "check.out")
        if await check.process.wait() != 0:
            raise ScenarioRefused(check.log.read_text(encoding="utf-8").rstrip())

    async def _broker(self, stack: contextlib.AsyncExitStack) -> str:
        if self._options.mqtt is not None:
            self._view.phase(f"using the broker at {self._options.mqtt}")
            return self._options.mqtt
        broker = await stack.enter_async_context(EmbeddedBroker(self._run_dir / "broker"))
        self._view.phase(f"broker: {broker.kind} at {broker.url}")
        return broker.url

    async def _start(self, rig: Rig, world: World, url: str) -> tuple[list[Part], Part]:
        if world.emulated is not None:
            self._view.phase("starting the emulated nodes behind their metered PDU …")
            part = await rig.start(
                "emulated", [script("wattloop-hil"), "emulate", world.emulated, "--ready-file", world.ready]
            )
            await rig.wait_file(part, world.ready, READY_S)
        world.connect()
        agents = []
        for node, config in world.agents.items():
            self._view.phase(f"starting the agent of {node} …")
            agents.append(await rig.start(f"agent-{node}", [script("wattloop-agent"), "run", "--config", config]))
        self._view.phase("starting the coordinator …")
        argv: list[str | Path] = [
            *(script("wattloop-coordinator"), "run", world.scenario, "--run-dir", self._run_dir / "run"),
            *("--state-dir", self._run_dir / "state", "--mqtt", url, "--drain", str(DRAIN_S), "--json"),
        ]
        if self._options.speed is not None:
            argv += ["--speed", str(self._options.speed)]
        if self._options.duration_s is not None:
            argv += ["--duration", str(self._options.duration_s)]
        return agents, await rig.start("coordinator", argv, stdout=self._report)

    async def _listen(self, bus: MqttBus) -> None:
        while True:
            for message in await bus.receive():
                self.scene.take(message)

    async def _follow(self, rig: Rig, coordinator: Part, world: World) -> None:
        """Show what happens until the coordinator decides no more."""
        first = time.monotonic()
        running = False
        ended = asyncio.ensure_future(rig.first_end())
        try:
            while not self.scene.done and coordinator.running:
                if ended.done() and ended.result() is not coordinator:
                    part = ended.result()
                    raise RigError(f"{part.name} ended with status {part.status}:\n{part.tail()}")
                if not self.scene.microgrids and time.monotonic() - first > FIRST_STEP_S:
                    raise RigError(f"no step within {FIRST_STEP_S:g} s:\n{coordinator.tail()}")
                self._show_events()
                if self.scene.microgrids and not running:
                    running = True
                    self._view.phase("running")
                self._view.refresh(self.scene, self._left_s(world))
                await asyncio.sleep(REFRESH_S)
        finally:
            ended.cancel()
        self._show_events()

    def _left_s(self, world: World) -> float | None:
        newest = next((grid.newest for grid in self.scene.microgrids.values()), None)
        if newest is None or newest.steps_total is None:
            return None
        speed = self._options.speed or world.speed
        return float((newest.steps_total - newest.step - 1) * world.interval_s / speed)

    def _show_events(self) -> None:
        """The coordinator writes its events to its output, a line each; show what is new."""
        lines = self._lines()
        for line in lines[self._shown :]:
            if not line.startswith("{"):
                self._view.event(line)
        self._shown = len(lines)

    def _lines(self) -> list[str]:
        try:
            text = self._report.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return text[: text.rfind("\n") + 1].splitlines()

    async def _ended(self, coordinator: Part) -> int:
        try:
            async with asyncio.timeout(DRAIN_S + 5.0):
                return await coordinator.process.wait()
        except TimeoutError as error:
            raise RigError(f"the coordinator did not end:\n{coordinator.tail()}") from error

    def _summary(self) -> dict[str, Any]:
        """The coordinator's last line, narrowed to the first microgrid, under the run directory that the user knows."""
        report: dict[str, Any] = msgspec.json.decode(self._lines()[-1])
        first: dict[str, Any] = report.pop("microgrids")[0]
        return report | first | {"run_dir": str(self._run_dir)}


def _make_run_dir(options: Options) -> Path:
    if options.run_dir is not None:
        run_dir = options.run_dir.absolute()
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RigError(f"{run_dir}: {error.strerror}; choose another folder with --run-dir") from error
        if any(run_dir.iterdir()):
            raise RigError(f"{run_dir} is not empty; choose a new folder with --run-dir")
        return run_dir
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for count in range(1, 1000):
        run_dir = Path("runs").absolute() / (f"{stamp}-demo" if count == 1 else f"{stamp}-demo-{count}")
        try:
            run_dir.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RigError(f"{run_dir}: {error.strerror}; choose another folder with --run-dir") from error
        return run_dir
    raise RigError(f"{run_dir.parent} is full of runs of this second")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a time such as 30, 90s or 2m")
    return float(match[1]) * {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return speed
