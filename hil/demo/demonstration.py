"""The demonstration itself: starts broker, emulated PDU, agents and coordinator, follows the day, and sums it up."""

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from hil.broker import EmbeddedBroker
from hil.clock import SystemClock
from hil.demo.scene import Scene
from hil.demo.views import View
from hil.demo.world import World, lay_out
from hil.mqtt import BrokerConfig, MqttBus
from hil.rig import Part, Rig, RigError, script
from hil.wire import Topics

BROKER_S: Final = 5.0
READY_S: Final = 20.0
FIRST_STEP_S: Final = 30.0
REFRESH_S: Final = 0.2
DRAIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Programme:
    """What to show. ``duration_s`` is real time, None for the whole scenario; without a ``broker`` one is started."""

    scenario: Path
    duration_s: float | None
    speed: float | None
    broker: BrokerConfig | None


class ScenarioRefused(Exception):
    """The coordinator finds faults in the scenario; the text has them, a line each."""


class Demonstration:
    """One run from the broker's start to the summary."""

    def __init__(self, programme: Programme, run_dir: Path, view: View) -> None:
        self._programme = programme
        self._run_dir = run_dir
        self._view = view
        self._logs = run_dir / "logs"
        self._report = run_dir / "report.out"
        self._shown = 0
        self.scene = Scene(Topics("demo"))

    async def play(self) -> dict[str, Any]:
        """Start everything, follow it to the end, and give the summary of the first microgrid."""
        async with contextlib.AsyncExitStack() as stack:
            await self._check()
            broker = await self._broker(stack)
            rig = await stack.enter_async_context(Rig(self._logs))  # ends before the broker, for goodbyes
            world = lay_out(self._programme.scenario, self._run_dir, broker.url)
            self.scene = Scene(Topics(world.site))
            await self._listen(stack, broker)
            agents, coordinator = await self._start(rig, world, broker.url)
            await self._follow(rig, coordinator, world)
            if not self.scene.done:
                raise RigError(f"the coordinator ended with status {coordinator.status}:\n{coordinator.tail()}")
            self._view.phase("the day is over; agents hand in their last samples …")
            await asyncio.gather(*(rig.end(agent, DRAIN_S) for agent in agents))
            if await self._ended(coordinator) != 0:
                raise RigError(f"the coordinator ended with status {coordinator.status}:\n{coordinator.tail()}")
            return self._summary()

    async def _check(self) -> None:
        """Have the scenario checked before anything is started for it."""
        argv: list[str | Path] = [script("wattloop-coordinator"), "check", self._programme.scenario]
        async with Rig(self._logs) as rig:
            check = await rig.start("check", argv, stdout=self._logs / "check.out")
            if await check.process.wait() != 0:
                raise ScenarioRefused(check.log.read_text(encoding="utf-8").rstrip())

    async def _broker(self, stack: contextlib.AsyncExitStack) -> BrokerConfig:
        if self._programme.broker is not None:
            self._view.phase(f"using the broker at {self._programme.broker.url}")
            return self._programme.broker
        broker = await stack.enter_async_context(EmbeddedBroker(self._run_dir / "broker"))
        self._view.phase(f"broker: {broker.kind} at {broker.url}")
        return BrokerConfig(url=broker.url)

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
        if self._programme.speed is not None:
            argv += ["--speed", str(self._programme.speed)]
        if self._programme.duration_s is not None:
            argv += ["--duration", str(self._programme.duration_s)]
        return agents, await rig.start("coordinator", argv, stdout=self._report)

    async def _listen(self, stack: contextlib.AsyncExitStack, broker: BrokerConfig) -> None:
        """Keep the scene up to date from here on."""
        bus = MqttBus(broker, f"demo-{secrets.token_hex(4)}", SystemClock())
        for topic_filter in self.scene.filters:
            bus.subscribe(topic_filter)
        await bus.start()
        stack.push_async_callback(bus.stop)
        try:
            async with asyncio.timeout(BROKER_S):
                await bus.wait_connected()
        except TimeoutError as error:
            raise RigError(f"no answer from the broker at {broker.url} within {BROKER_S:g} s") from error
        watching = asyncio.create_task(self._watch(bus), name="scene")
        stack.callback(watching.cancel)

    async def _watch(self, bus: MqttBus) -> None:
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
        speed = self._programme.speed or world.speed
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
