"""``wattloop-agent`` as a process, between a real broker and an emulated PDU."""

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from agent.spool.accounts import AccountFile
from hil.brokerconfig import BrokerConfig
from hil.clock import SystemClock
from hil.emulated.ready import Ready, read_ready
from hil.intervals import Intervals
from hil.mqtt import MqttBus
from hil.wire import (
    Ack,
    AckState,
    Action,
    Birth,
    Command,
    Data,
    DataAck,
    Heartbeat,
    Message,
    NodeState,
    Presence,
    Record,
    Target,
    Topics,
    decode,
    encode,
)

pytestmark = pytest.mark.system

M = TypeVar("M", bound=Message)

AGENT = Path(sys.executable).with_name("wattloop-agent")
EMULATOR = Path(sys.executable).with_name("wattloop-hil")
WORLD = """\
nodes:
  - {name: jetson-1, load: {kind: constant, power_w: 15}, lag_ms: 10, noise_w: 0.05}
pdus:
  - {name: pdu-1, outlets: {1: jetson-1}}
"""
CONFIG = """\
site: {site}
node: jetson-1
broker: {{url: "{url}"}}
state_dir: state
mode: act
interval_s: 0.1
meters:
  - {{name: outlet-1, kind: modbus, host: 127.0.0.1, port: {pdu}, profile: wattloop-pdu, outlet: 1}}
actuators:
  - {{name: board, kind: emulated, node: jetson-1, port: {control}, min_w: 5, max_w: 20}}
"""
NOT_THERE = 1  # a port where nobody listens


@contextmanager
def emulated(folder: Path) -> Iterator[Ready]:
    """One node behind a PDU, in a process of its own."""
    (folder / "world.yaml").write_text(WORLD)
    path = folder / "ready.json"
    process = subprocess.Popen(
        [EMULATOR, "emulate", folder / "world.yaml", "--ready-file", path], stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while (ready := read_ready(path)) is None:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield ready
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Ready]:
    with emulated(tmp_path) as ready:
        yield ready


@pytest.fixture
def site() -> str:
    return f"agent-test-{uuid.uuid4().hex[:8]}"


def configure(folder: Path, site: str, url: str, world: Ready) -> Path:
    path = folder / "agent.yaml"
    control, pdu = world.control.port, world.pdus["pdu-1"].port
    path.write_text(CONFIG.format(site=site, url=url, pdu=pdu, control=control))
    return path


class Start(Protocol):
    """Starts an agent; the test's end is also its own."""

    def __call__(self, config: Path, *wrapper: str, **environment: str) -> subprocess.Popen[str]: ...


@pytest.fixture
def start() -> Iterator[Start]:
    processes = []

    def start(config: Path, *wrapper: str, **environment: str) -> subprocess.Popen[str]:
        command = [*wrapper, str(AGENT), "run", "--config", str(config)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(number)
    _, log = process.communicate(timeout=20)
    return process.returncode, log


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([AGENT, *arguments], capture_output=True, text=True, timeout=30)


def spooled_in(state_dir: Path) -> Callable[[], int]:
    """How many samples an agent has generated, as its account tells from outside."""
    account = AccountFile(state_dir / "spool.account")

    def count() -> int:
        read = account.read()
        return read.generated if read else 0

    return count


def cap_of(world: Ready) -> float | None:
    """The node's cap in W, as the emulation itself tells it."""
    with socket.create_connection((world.control.host, world.control.port), timeout=10) as link:
        link.sendall(b'{"op": "get", "node": "jetson-1"}\n')
        cap_w: float | None = json.loads(link.makefile().readline())["node"]["cap_w"]
        return cap_w


class Coordinator:
    """The agent's other end, on a real broker."""

    def __init__(self, url: str, site: str) -> None:
        self.topics = Topics(site)
        self.node = self.topics.node("jetson-1")
        self.clock = SystemClock()
        self.bus = MqttBus(BrokerConfig(url=url), f"{site}-coordinator", self.clock)
        self.records: list[Record] = []
        self.hist: list[int] = []
        self.heard: dict[str, list[bytes]] = {}
        self.duplicates = 0
        self.held: dict[str, Intervals] = {}

    async def run(self) -> None:
        while True:
            for message in await self.bus.receive():
                self.heard.setdefault(message.topic, []).append(message.payload)
                if message.topic == self.node.data:
                    self.take(decode(message.payload, Data))

    def take(self, data: Data) -> None:
        held = self.held.setdefault(data.stream, Intervals())
        for record in data.r:
            if held.add(record.seq, record.seq):
                self.records.append(record)
                self.hist += [record.seq] if data.hist else []
            else:
                self.duplicates += 1
        ack = DataAck(stream=data.stream, upto=held.upto, have=list(held.have))
        self.bus.publish(self.node.data_ack, encode(ack))

    def last(self, topic: str, kind: type[M]) -> M | None:
        heard = self.heard.get(topic)
        return decode(heard[-1], kind) if heard else None

    @property
    def acks(self) -> list[Ack]:
        return [decode(payload, Ack) for payload in self.heard.get(self.node.cmd_ack, [])]

    def presence(self) -> Presence | None:
        state = self.last(self.node.state, NodeState)
        return state.state if state else None

    def limit(self, limit_w: float, seq: int = 1, ttl_s: float = 60) -> None:
        command = Command(
            id=f"{self.topics.site}-{seq}",
            issuer="lab",
            epoch=1,
            seq=seq,
            target=Target(node="jetson-1", actuator="board"),
            action=Action.LIMIT,
            limit_w=limit_w,
            issued_at=datetime.now(UTC),
            ttl_s=ttl_s,
        )
        self.bus.publish(self.topics.heartbeat, encode(Heartbeat(epoch=1, count=1)))
        self.bus.publish(self.node.cmd, encode(command))


@asynccontextmanager
async def coordinator(url: str, site: str) -> AsyncIterator[Coordinator]:
    other = Coordinator(url, site)
    other.bus.subscribe(f"{other.topics.root}/node/#")
    await other.bus.start()
    await other.bus.wait_connected()
    task = asyncio.create_task(other.run())
    yield other
    task.cancel()
    await asyncio.wait({task})
    await other.bus.stop()


async def until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    async with asyncio.timeout(20):
        while not condition():  # it may come true in another process
            if process is not None and process.poll() is not None:
                pytest.fail(f"the agent ended with {process.returncode}: {process.communicate()[1]}")
            await asyncio.sleep(0.01)


async def test_it_measures_publishes_obeys_and_leaves_in_order(
    tmp_path: Path, start: Start, world: Ready, site: str, broker_url: str
) -> None:
    async with coordinator(broker_url, site) as other:
        process = start(configure(tmp_path, site, broker_url, world))
        await until(lambda: len(other.records) >= 10, process)
        assert [record.seq for record in other.records[:10]] == list(range(1, 11))
        powers = [record.w for record in other.records if record.w is not None]
        assert len(powers) >= 9
        assert all(14 < power_w < 16 for power_w in powers)
        other.limit(7.5)
        await until(lambda: any(ack.effect == "verified" for ack in other.acks), process)
        assert other.acks[-1].readback_w == 7.5
        assert other.acks[-1].measured_w == pytest.approx(7.5, abs=0.5)
        status, log = await asyncio.to_thread(stop, process)
        await asyncio.sleep(0)
        assert status == 0
        await until(lambda: other.presence() is Presence.DISCONNECTED)
        state = other.last(other.node.state, NodeState)
        assert state is not None
        assert (state.generated, state.acked, state.spooled, state.lost) == (len(other.records),) * 2 + (0, 0)
        assert other.acks[-1].state is AckState.RELEASED
        assert other.duplicates == 0
    assert cap_of(world) is None
    assert "Traceback" not in log


async def test_a_killed_agent_is_announced_restored_and_goes_on_where_it_was(
    tmp_path: Path, start: Start, world: Ready, site: str, broker_url: str
) -> None:
    config = configure(tmp_path, site, broker_url, world)
    async with coordinator(broker_url, site) as other:
        process = start(config)
        await until(lambda: len(other.records) >= 3, process)
        other.limit(7.5)
        await until(lambda: any(ack.state is AckState.APPLIED for ack in other.acks), process)
        assert cap_of(world) == 7.5
        process.kill()
        process.wait()
        await until(lambda: other.presence() is Presence.LOST)
        restored = await asyncio.to_thread(call, "restore", "--config", config)
        assert (restored.returncode, restored.stdout) == (0, "board: restored\n")
        assert cap_of(world) is None
        again = await asyncio.to_thread(call, "restore", "--config", config)
        assert (again.returncode, again.stdout) == (0, "nothing to restore\n")
        before = other.last(other.node.birth, Birth)
        seen = len(other.records)
        process = start(config)
        await until(lambda: len(other.records) >= seen + 10, process)
        await until(lambda: other.acks[-1].state is AckState.EXPIRED, process)
        status, _ = await asyncio.to_thread(stop, process)
        assert status == 0
        after = other.last(other.node.birth, Birth)
        assert before is not None
        assert after is not None
        assert after.stream == before.stream
        assert sorted(record.seq for record in other.records) == list(range(1, len(other.records) + 1))


async def test_it_works_while_the_broker_is_down_and_loses_nothing(
    tmp_path: Path, start: Start, world: Ready, site: str, broker_url: str
) -> None:
    config = configure(tmp_path, site, f"mqtt://127.0.0.1:{NOT_THERE}", world)
    process = start(config)
    spooled = spooled_in(tmp_path / "state")
    await until(lambda: spooled() >= 8, process)
    status, log = await asyncio.to_thread(stop, process)
    assert status == 0
    assert log.count("connection refused") == 1
    config = configure(tmp_path, site, broker_url, world)
    async with coordinator(broker_url, site) as other:
        process = start(config)
        await until(lambda: len(other.hist) >= 8 and len(other.records) > len(other.hist), process)
        status, _ = await asyncio.to_thread(stop, process, signal.SIGINT)
        assert status == 0
        assert other.hist == list(range(1, len(other.hist) + 1))
        state = other.last(other.node.state, NodeState)
        assert state is not None
        assert (state.spooled, state.lost) == (0, 0)


async def test_a_damaged_spool_is_moved_aside_and_told(
    tmp_path: Path, start: Start, world: Ready, site: str, broker_url: str
) -> None:
    config = configure(tmp_path, site, f"mqtt://127.0.0.1:{NOT_THERE}", world)
    process = start(config)
    spooled = spooled_in(tmp_path / "state")
    await until(lambda: spooled() >= 3, process)
    process.kill()
    process.wait()
    (tmp_path / "state" / "spool.db").write_bytes(os.urandom(50_000))
    (tmp_path / "state" / "spool.db-wal").unlink()
    config = configure(tmp_path, site, broker_url, world)
    async with coordinator(broker_url, site) as other:
        process = start(config)
        await until(lambda: len(other.records) >= 5, process)
        status, log = await asyncio.to_thread(stop, process)
        assert status == 0
        state = other.last(other.node.state, NodeState)
        assert state is not None
        assert state.lost > 0
        assert state.generated == state.acked + state.spooled + state.lost
    assert log.count("spool: damaged") == 1
    assert list((tmp_path / "state").glob("spool.corrupt-*"))


async def test_a_dead_meter_is_missing_never_zero_and_said_once(
    tmp_path: Path, start: Start, world: Ready, site: str, broker_url: str
) -> None:
    config = configure(tmp_path, site, broker_url, world)
    config.write_text(config.read_text().replace(f"port: {world.pdus['pdu-1'].port}", f"port: {NOT_THERE}"))
    async with coordinator(broker_url, site) as other:
        process = start(config)
        await until(lambda: len(other.records) >= 10, process)
        status, log = await asyncio.to_thread(stop, process)
    assert status == 0
    assert {(record.w, record.q) for record in other.records} == {(None, "missing")}
    assert log.count("meter outlet-1") <= 2
    assert "Traceback" not in log


def test_it_tells_its_service_manager_that_it_is_ready_and_alive(
    tmp_path: Path, start: Start, world: Ready, site: str
) -> None:
    address = tmp_path / "notify"
    config = configure(tmp_path, site, f"mqtt://127.0.0.1:{NOT_THERE}", world)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(address))
        link.settimeout(20)
        process = start(config, NOTIFY_SOCKET=str(address), WATCHDOG_USEC="300000", JOURNAL_STREAM="1:2")
        words = [link.recv(1000).decode() for _ in range(8)]
        status, log = stop(process)
        words += [link.recv(1000).decode()]
    assert status == 0
    assert "READY=1" in words
    assert words.count("WATCHDOG=1") >= 3
    assert any(word.startswith("STATUS=not connected to mqtt://") for word in words)
    assert log.startswith("<")
    assert all(line.startswith("<") for line in log.splitlines())


async def test_a_second_agent_on_the_same_state_is_refused(
    tmp_path: Path, start: Start, world: Ready, site: str
) -> None:
    config = configure(tmp_path, site, f"mqtt://127.0.0.1:{NOT_THERE}", world)
    process = start(config)
    await until((tmp_path / "state" / "spool.db").exists, process)
    second = await asyncio.to_thread(call, "run", "--config", config)
    assert second.returncode == 1
    assert "in use by another agent" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    await asyncio.to_thread(stop, process)


def test_check_tells_what_broker_meters_and_actuators_say(
    tmp_path: Path, world: Ready, site: str, broker_url: str
) -> None:
    config = configure(tmp_path, site, broker_url, world)
    checked = call("check", "--config", config)
    assert checked.returncode == 0, checked.stderr
    lines = [line.split() for line in checked.stdout.splitlines()]
    assert lines[1] == ["broker", f"{broker_url}:", "answers"]
    assert lines[3] == ["METER", "KIND", "MEASURES", "POWER", "QUALITY"]
    assert (lines[4][:3], lines[4][-1]) == (["outlet-1", "modbus", "jetson-1"], "good")
    assert 14 < float(lines[4][3]) < 16
    assert lines[7] == ["board", "emulated", "5–20", "W", "unlimited"]
    found = json.loads(call("check", "--config", config, "--json").stdout)
    assert found["meters"][0]["quality"] == "good"
    assert found["actuators"][0]["max_w"] == 20


def test_check_tells_what_does_not_answer(tmp_path: Path, world: Ready, site: str) -> None:
    config = configure(tmp_path, site, f"mqtt://127.0.0.1:{NOT_THERE}", world)
    text = config.read_text().replace(f"port: {world.pdus['pdu-1'].port}", f"port: {NOT_THERE}")
    config.write_text(text.replace(f"port: {world.control.port}", f"port: {NOT_THERE}"))
    checked = call("check", "--config", config)
    assert checked.returncode == 1
    assert checked.stdout.count("refused") == 3
    assert "Traceback" not in checked.stderr


@pytest.mark.parametrize("command", ["run", "check", "restore"])
def test_a_bad_configuration_is_told_fault_by_fault(tmp_path: Path, command: str) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text("site: lab\nnodes: x\nmeters:\n  - {name: a, kind: cpu}\n")
    refused = call(command, "--config", config)
    assert refused.returncode == 2
    assert [line.replace(f"{config}", "agent.yaml").split(": ")[:2] for line in refused.stderr.splitlines()] == [
        ["agent.yaml", "node"],
        ["agent.yaml:2", "nodes"],
        ["agent.yaml:4", "meters[0]"],
    ] or "node" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert call(command, "--config", tmp_path / "none.yaml").returncode == 2


def refuses_executable_memory() -> bool:
    """Whether this kernel can hold a process to what MemoryDenyWriteExecute=yes demands (Linux 6.3)."""
    return ctypes.CDLL(None, use_errno=True).prctl(66, 0, 0, 0, 0) >= 0


async def test_it_works_without_executable_memory(
    tmp_path: Path, start: Start, world: Ready, site: str, broker_url: str
) -> None:
    if not refuses_executable_memory():
        pytest.skip("this kernel has no PR_SET_MDWE")
    wrapper = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
    async with coordinator(broker_url, site) as other:
        process = start(configure(tmp_path, site, broker_url, world), sys.executable, "-c", wrapper)
        await until(lambda: len(other.records) >= 3, process)
        other.limit(7.5)
        await until(lambda: any(ack.state is AckState.APPLIED for ack in other.acks), process)
        status, _ = await asyncio.to_thread(stop, process)
        assert status == 0


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["version"], ["run", "--help"]])
def test_help_and_version_come_without_the_libraries_of_the_daemon(arguments: Sequence[str]) -> None:
    code = (
        "import sys, agent.cli\n"
        f"try: agent.cli.main({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "assert not {'pymodbus', 'rich', 'numpy'} & set(sys.modules)\n"
    )
    if arguments != ["run", "--help"]:
        code += "assert not {'paho', 'sqlite3', 'asyncio'} & set(sys.modules)\n"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "wattloop" in ran.stdout
