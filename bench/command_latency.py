"""How long a command takes: published → ``applied`` received, beside what it cannot do without.

Real processes over mosquitto on loopback: an emulated node, an agent, and a bare paho client as the coordinator. The
floor is measured in turn with every command: a bare paho round trip (QoS 1, no delay) through the same broker to an
echo process, one append of the command and fdatasync on the agent's disk, and the actuator's own round trip (its driver
sets a limit and reads it back, as ``applied`` demands).

    python bench/command_latency.py [--runs 5] [--commands 100]

prints one JSON line: medians over the runs, with the spread (lowest and highest run).
"""

import argparse
import asyncio
import json
import os
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.actuators.emulated import EmulatedActuator, EmulatedActuatorConfig
from hil.broker import EmbeddedBroker
from hil.devices import Setting
from hil.emulated.ready import read_ready
from hil.tether import tethered
from hil.wire import Ack, AckState, Action, Command, Heartbeat, Target, Topics, decode, encode

EMULATION = """
nodes:
  - {name: jetson-1, load: {kind: constant, power_w: 15}, idle_w: 2.5, max_w: 20, lag_ms: 10, noise_w: 0.1, seed: 1}
  - {name: spare, load: {kind: constant, power_w: 15}, idle_w: 2.5, max_w: 20, lag_ms: 10, noise_w: 0.1, seed: 2}
pdus: [{name: pdu-1, port: 0, unit: 1, outlets: {1: jetson-1}}]
control: {port: 0}
"""
AGENT = """
site: bench
node: jetson-1
broker: {{url: "{url}"}}
state_dir: state
mode: act
meters: [{{name: outlet-1, kind: modbus, host: 127.0.0.1, port: {pdu}, profile: wattloop-pdu, outlet: 1}}]
actuators: [{{name: board, kind: emulated, node: jetson-1, port: {control}, min_w: 5, max_w: 20}}]
"""
TOPICS = Topics("bench")
NODE = TOPICS.node("jetson-1")
P = ParamSpec("P")
T = TypeVar("T")
PING, PONG = "bench/ping", "bench/pong"
PATIENCE_S = 10.0
PAUSE_S = 0.005
HIGHEST_W, LOWEST_W = 19.5, 5.5


class Peer:
    """A bare paho client; ``inbox`` gets every payload with the instant of its arrival."""

    def __init__(self, url: str, topics: list[str], take: Callable[[MQTTMessage], None] | None = None) -> None:
        self.inbox: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._topics = topics
        self._take = take
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self.client.on_socket_open = _no_delay
        self.client.on_connect = self._connected
        self.client.on_subscribe = lambda *_: self._ready.put(None)
        self.client.on_message = self._message
        parts = urlsplit(url)
        self.client.connect(parts.hostname or "", parts.port or 1883)
        self.client.loop_start()
        self._ready.get(timeout=PATIENCE_S)

    def _connected(self, client: Client, _: object, __: ConnectFlags, code: ReasonCode, ___: Properties | None) -> None:
        assert not code.is_failure, code
        client.subscribe([(topic, 1) for topic in self._topics])

    def _message(self, _: Client, __: object, message: MQTTMessage) -> None:
        if self._take is not None:
            self._take(message)
        self.inbox.put((time.perf_counter(), bytes(message.payload)))


def _no_delay(_: Client, __: object, sock: object) -> None:
    assert isinstance(sock, socket.socket)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def echo(url: str) -> None:
    """Answer every ping with a pong of the same size, for ever."""

    def answer(message: MQTTMessage) -> None:
        peer.client.publish(PONG, message.payload, qos=1)

    peer = Peer(url, [PING], answer)
    while True:
        peer.inbox.get()


@dataclass
class World:
    """Everything a command passes, and what the floor is measured with."""

    coordinator: Peer
    pinger: Peer
    loop: asyncio.Runner
    actuator: EmulatedActuator
    disk: int
    seq: int = 0
    limit_w: float = HIGHEST_W

    def ping(self, payload: bytes) -> float:
        """Seconds of a bare round trip."""
        started = time.perf_counter()
        self.pinger.client.publish(PING, payload, qos=1)
        return self.pinger.inbox.get(timeout=PATIENCE_S)[0] - started

    def sync(self, payload: bytes) -> float:
        """Seconds of the one write that must be on the disk."""
        started = time.perf_counter()
        os.write(self.disk, payload)
        os.fdatasync(self.disk)
        return time.perf_counter() - started

    def actuate(self) -> float:
        """Seconds that the actuator's driver takes by itself to set a limit and read it back."""
        return self.loop.run(self._set_and_read_back())

    async def _set_and_read_back(self) -> float:
        started = time.perf_counter()
        await self.actuator.apply(Setting(limit_w=10.0))
        await self.actuator.readback()
        return time.perf_counter() - started

    def next_command(self, commands: int) -> Command:
        """A limit a little lower than the last, so that every command is a change and none has to wait."""
        self.seq += 1
        self.limit_w -= (HIGHEST_W - LOWEST_W) / commands
        return Command(
            id=str(uuid.uuid4()),
            issuer="bench",
            epoch=1,
            seq=self.seq,
            target=Target(node="jetson-1", actuator="board"),
            action=Action.LIMIT,
            limit_w=round(self.limit_w, 6),
            issued_at=datetime.now(UTC),
            ttl_s=60.0,
        )

    def command(self, command: Command) -> float:
        """Seconds from publish to ``applied``."""
        payload = encode(command)
        started = time.perf_counter()
        self.coordinator.client.publish(NODE.cmd, payload, qos=1)
        while True:
            at, answer = self.coordinator.inbox.get(timeout=PATIENCE_S)
            ack = decode(answer, Ack)
            if ack.id == command.id and ack.state is not AckState.RECEIVED:
                assert ack.state is AckState.APPLIED, ack
                return at - started


def run(world: World, commands: int, all_commands: int) -> dict[str, float]:
    """One run: milliseconds at p50 and p99 of commands and of their floors, taken in turn."""
    taken, parts = [], []
    for _ in range(commands):
        command = world.next_command(all_commands)
        payload = encode(command)
        parts.append((rested(world.ping, payload), rested(world.sync, payload), rested(world.actuate)))
        taken.append(rested(world.command, command))
        if world.seq % 100 == 0:
            beat(world)
    floors = [sum(part) for part in parts]
    trip, sync, actuator = (1e3 * statistics.median(column) for column in zip(*parts, strict=True))
    figures = {"p50": _at(taken, 0.5), "p99": _at(taken, 0.99), "floor_p50": _at(floors, 0.5)}
    figures |= {"floor_p99": _at(floors, 0.99), "round_trip": trip, "fdatasync": sync, "actuator": actuator}
    figures["ratio_p50"] = figures["p50"] / figures["floor_p50"]
    figures["ratio_p99"] = figures["p99"] / figures["floor_p99"]
    return figures


def rested(measure: Callable[P, float], *what: P.args, **how: P.kwargs) -> float:
    """What ``measure`` gives after a short rest: the floor must not find warmer caches than a command does."""
    time.sleep(PAUSE_S)
    return measure(*what, **how)


def _at(values: list[float], share: float) -> float:
    return 1e3 * sorted(values)[min(len(values) - 1, round(share * len(values)))]


def beat(world: World) -> None:
    """Be a coordinator that is alive."""
    world.coordinator.client.publish(TOPICS.heartbeat, encode(Heartbeat(epoch=1, count=world.seq)), qos=1)


def begin(stack: ExitStack, folder: Path) -> World:
    """Start the processes and connect to them."""
    broker = stack.enter_context(EmbeddedBroker(folder, prefer="mosquitto"))
    scripts = Path(sys.executable).parent
    start(stack, [sys.executable, __file__, "--echo", broker.url])
    (folder / "world.yaml").write_text(EMULATION)
    start(stack, [str(scripts / "wattloop-hil"), "emulate", "world.yaml", "--ready-file", "ready.json"], folder)
    ready = wait_for(lambda: read_ready(folder / "ready.json"))
    (folder / "agent.yaml").write_text(
        AGENT.format(url=broker.url, pdu=ready.pdus["pdu-1"].port, control=ready.control.port)
    )
    start(stack, [str(scripts / "wattloop-agent"), "run", "--config", "agent.yaml"], folder)
    coordinator = Peer(broker.url, [NODE.cmd_ack])
    births = Peer(broker.url, [NODE.birth])
    births.inbox.get(timeout=PATIENCE_S)
    births.client.loop_stop()
    config = EmulatedActuatorConfig(name="spare", node="spare", port=ready.control.port, min_w=5.0, max_w=20.0)
    loop = stack.enter_context(asyncio.Runner())
    actuator = EmulatedActuator(config)
    stack.callback(lambda: loop.run(actuator.close()))
    disk = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    world = World(coordinator, Peer(broker.url, [PONG]), loop, actuator, disk)
    wait_for(lambda: _echoes(world))
    beat(world)
    return world


def start(stack: ExitStack, command: list[str], folder: Path | None = None) -> None:
    """Run a process until the stack unwinds."""
    process = subprocess.Popen(tethered(command), cwd=folder, stdout=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def _echoes(world: World) -> bool | None:
    world.pinger.client.publish(PING, b"hello", qos=1)
    try:
        world.pinger.inbox.get(timeout=0.2)
    except queue.Empty:
        return None
    return True


def wait_for(look: Callable[[], T | None]) -> T:
    """What ``look`` gives once it gives something."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.02)
    raise TimeoutError("the world did not come up")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--commands", type=int, default=100, help="commands per run")
    parser.add_argument("--echo", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo:
        echo(arguments.echo)
    # Beside this file and not in /tmp, which may be memory: an fsync must mean something.
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as name, ExitStack() as stack:
        world = begin(stack, Path(name))
        run(world, 20, 20 + arguments.runs * arguments.commands)
        all_commands = 20 + arguments.runs * arguments.commands
        runs = [run(world, arguments.commands, all_commands) for _ in range(arguments.runs)]
    figures = {key: [round(figure[key], 3) for figure in runs] for key in runs[0]}
    medians = {key: round(statistics.median(values), 3) for key, values in figures.items()}
    spread = {key: [min(values), max(values)] for key, values in figures.items()}
    scale = {"runs": arguments.runs, "commands": arguments.commands, "unit": "ms"}
    print(json.dumps({"bench": "command_latency", **scale, **medians, "spread": spread}))


if __name__ == "__main__":
    main()
