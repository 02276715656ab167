import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from agent.agent import Agent, Identity
from agent.config import load_setup
from agent.leasestore import StoreFailed
from agent.statedir import StateDir
from agent.voice import will
from hil.bus import MemoryBroker, MemoryBus
from hil.clock import ManualClock, utc
from hil.devices import Capabilities, Quality, Setting
from hil.emulated.limiter import Limiter
from hil.intervals import Intervals
from hil.sdnotify import Notifier
from hil.wire import (
    Ack,
    AckState,
    Action,
    Birth,
    Command,
    Data,
    DataAck,
    Heartbeat,
    Last,
    Message,
    NodeState,
    Presence,
    Record,
    Target,
    Topics,
    decode,
    encode,
)

M = TypeVar("M", bound=Message)

TOPICS = Topics("lab")
NODE = TOPICS.node("jetson-1")
CONFIG = """
site: lab
node: jetson-1
state_dir: state
mode: act
interval_s: 0.5
nameplate_w: 30
meters:
  - {name: board-power, kind: replay, file: trace.csv}
  - {name: neighbour, kind: replay, file: trace.csv, measures: jetson-2, interval_s: 1}
"""


class Listener:
    """A coordinator's side of the bus: sees everything, acknowledges samples, and can speak up."""

    def __init__(self, broker: MemoryBroker, clock: ManualClock) -> None:
        self.broker = broker
        self.bus = MemoryBus(broker, clock.monotonic)
        self.records: list[Record] = []
        self.acks: list[Ack] = []
        self.states: list[NodeState] = []
        self.births: list[Birth] = []
        self.acknowledges = True
        self._held: dict[str, Intervals] = {}

    async def run(self) -> None:
        self.bus.subscribe(f"{TOPICS.root}/node/#")
        await self.bus.start()
        while True:
            for message in await self.bus.receive():
                self.hear(message.topic, message.payload)

    def hear(self, topic: str, payload: bytes) -> None:
        if topic == NODE.data:
            self.take(decode(payload, Data))
        elif topic == NODE.cmd_ack:
            self.acks.append(decode(payload, Ack))
        elif topic == NODE.state:
            self.states.append(decode(payload, NodeState))
        elif topic == NODE.birth:
            self.births.append(decode(payload, Birth))

    def take(self, data: Data) -> None:
        self.records += data.r
        held = self._held.setdefault(data.stream, Intervals())
        for record in data.r:
            held.add(record.seq, record.seq)
        if self.acknowledges:
            self.bus.publish(NODE.data_ack, encode(DataAck(stream=data.stream, upto=held.upto, have=list(held.have))))

    def retained(self, topic: str, kind: type[M]) -> M:
        return decode(self.broker.retained[topic], kind)


class Bench:
    """An agent with two replayed meters and a limiter, on a bus in memory and a manual clock."""

    def __init__(self, folder: Path) -> None:
        folder.joinpath("agent.yaml").write_text(CONFIG)
        folder.joinpath("trace.csv").write_text("t_s,power_w\n0,15\n10,20\n")
        self.clock = ManualClock()
        self.broker = MemoryBroker()
        self.listener = Listener(self.broker, self.clock)
        self.board = Limiter("board", Capabilities(min_w=5.0, max_w=20.0))
        setup = load_setup(folder / "agent.yaml", self.clock, {})
        self.setup = dataclasses.replace(setup, actuators=(self.board,))
        self.state_dir = StateDir(setup.state_dir)
        self.state_dir.acquire()
        self.stop = asyncio.Event()
        self.running: asyncio.Task[None] | None = None
        self._listening = asyncio.create_task(self.listener.run())

    async def start(self) -> None:
        session = self.state_dir.next_session(self.clock)
        self.bus = MemoryBus(self.broker, self.clock.monotonic, will(NODE, session))
        identity = Identity(session, "boot-1", "0.1.0")
        self.agent = Agent(self.setup, self.state_dir, identity, self.bus, self.clock, Notifier(None))
        self.stop.clear()
        self.running = asyncio.create_task(self.agent.run(self.stop))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                if self.running is not None and self.running.done():
                    self.running.result()
                await self.clock.advance(0.02)
                await asyncio.sleep(0.0005)

    async def for_seconds(self, seconds: float) -> None:
        deadline = self.clock.monotonic() + seconds
        await self.until(lambda: self.clock.monotonic() >= deadline)

    async def finish(self) -> None:
        self.stop.set()
        async with asyncio.timeout(20):
            while self.running is not None and not self.running.done():
                await self.clock.advance(0.02)
                await asyncio.sleep(0.0005)

    async def close(self) -> None:
        await self.finish()
        self._listening.cancel()
        await asyncio.wait({self._listening})
        self.state_dir.release()

    def command(self, limit_w: float, seq: int = 1, ttl_s: float = 60.0) -> None:
        command = Command(
            id=f"command-{seq}",
            issuer="lab",
            epoch=7,
            seq=seq,
            target=Target(node="jetson-1", actuator="board"),
            action=Action.LIMIT,
            limit_w=limit_w,
            issued_at=utc(self.clock.wall_us()) - timedelta(milliseconds=5),
            ttl_s=ttl_s,
        )
        self.listener.bus.publish(TOPICS.heartbeat, encode(Heartbeat(epoch=7, count=1)), qos=0)
        self.listener.bus.publish(NODE.cmd, encode(command))


@pytest.fixture
async def idle(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.close()


@pytest.fixture
async def bench(idle: Bench) -> Bench:
    await idle.start()
    return idle


async def test_it_says_who_it_is_and_what_it_has(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.listener.births))
    birth = bench.listener.retained(NODE.birth, Birth)
    assert (birth.node, birth.version, birth.boot_id, birth.mode, birth.nameplate_w) == (
        "jetson-1",
        "0.1.0",
        "boot-1",
        "act",
        30.0,
    )
    assert [(meter.name, meter.kind, meter.measures, meter.interval_s) for meter in birth.meters] == [
        ("board-power", "replay", "jetson-1", 0.5),
        ("neighbour", "replay", "jetson-2", 1.0),
    ]
    assert [(actuator.name, actuator.min_w, actuator.max_w) for actuator in birth.actuators] == [("board", 5.0, 20.0)]
    assert (birth.failsafe, birth.sync, birth.mqtt) == ("release", "tick", "memory bus")
    assert bench.listener.retained(NODE.state, NodeState).state is Presence.READY


async def test_each_tick_of_each_meter_arrives_once_and_in_order(bench: Bench) -> None:
    await bench.for_seconds(5.2)
    await bench.until(lambda: len(bench.listener.records) >= 16)
    assert [record.seq for record in bench.listener.records[:16]] == list(range(1, 17))
    own = [record for record in bench.listener.records if record.meter == "board-power"]
    assert {(record.w, record.q) for record in own} == {(15.0, Quality.GOOD)}
    gaps = [(later.t_us - earlier.t_us) / 1e6 for earlier, later in itertools.pairwise(own)]
    assert gaps == [0.5] * len(gaps)
    energies = [record.e_j for record in own]
    assert energies[:4] == [0.0, 7.5, 15.0, 22.5]


async def test_the_newest_value_is_shown_about_once_a_second(bench: Bench) -> None:
    await bench.for_seconds(3.0)
    last = bench.listener.retained(NODE.last("board-power"), Last)
    assert (last.power_w, last.quality) == (15.0, Quality.GOOD)


async def test_a_command_is_obeyed_and_its_effect_judged_by_the_own_meter(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.listener.births))
    bench.command(16.0)
    await bench.until(lambda: any(ack.state is AckState.APPLIED for ack in bench.listener.acks))
    assert (await bench.board.readback()) == Setting(limit_w=16.0)
    await bench.until(lambda: bench.listener.acks[-1].effect == "verified")
    assert bench.listener.acks[-1].measured_w == 15.0


async def test_a_lease_that_is_not_renewed_ends(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.listener.births))
    bench.command(10.0, ttl_s=5.0)
    await bench.until(lambda: any(ack.state is AckState.APPLIED for ack in bench.listener.acks))
    await bench.until(lambda: bench.listener.acks[-1].state is AckState.EXPIRED)
    assert (await bench.board.readback()) == Setting()


async def test_stopping_leaves_nothing_limited_and_the_books_closed(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.listener.births))
    bench.command(10.0)
    await bench.until(lambda: any(ack.state is AckState.APPLIED for ack in bench.listener.acks))
    await bench.for_seconds(2.0)
    await bench.finish()
    assert (await bench.board.readback()) == Setting()
    assert bench.listener.acks[-1].state is AckState.RELEASED
    state = bench.listener.retained(NODE.state, NodeState)
    assert state.state is Presence.DISCONNECTED
    assert (state.generated, state.acked, state.spooled, state.lost) == (len(bench.listener.records),) * 2 + (0, 0)


async def test_what_nobody_acknowledges_waits_for_the_next_life(idle: Bench) -> None:
    bench = idle
    bench.listener.acknowledges = False
    await bench.start()
    await bench.for_seconds(2.0)
    await bench.finish()
    first = bench.listener.retained(NODE.state, NodeState)
    assert (first.spooled, first.acked) == (first.generated, 0)
    bench.listener.acknowledges = True
    await bench.start()
    await bench.until(lambda: max(record.seq for record in bench.listener.records) > first.generated)
    await bench.finish()
    second = bench.listener.retained(NODE.state, NodeState)
    assert second.stream == first.stream
    assert second.session > first.session
    assert (second.spooled, second.lost) == (0, 0)
    assert second.generated == second.acked > first.generated


async def test_a_lost_connection_leaves_the_will_and_a_new_one_a_new_birth(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.listener.records))
    bench.bus.cut()
    assert bench.listener.retained(NODE.state, NodeState).state is Presence.LOST
    await bench.for_seconds(3.0)
    births = len(bench.listener.births)
    bench.bus.reconnect()
    await bench.until(lambda: len(bench.listener.births) > births)
    assert bench.listener.retained(NODE.state, NodeState).state is Presence.READY
    made = bench.listener.records[-1].seq
    await bench.until(lambda: {record.seq for record in bench.listener.records} >= set(range(1, made + 1)))


async def test_the_books_are_reported_each_minute(bench: Bench) -> None:
    await bench.for_seconds(62.0)
    state = bench.listener.retained(NODE.state, NodeState)
    assert state.generated >= 170
    assert state.generated == state.acked + state.spooled + state.lost


async def test_messages_that_make_no_sense_are_survived(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.until(lambda: bool(bench.listener.births))
    for topic in (NODE.cmd, NODE.data_ack, TOPICS.heartbeat, TOPICS.coordinator_state):
        for payload in (b"", b"{", b"nonsense", b"[" * 9000, b"\xff\xfe", b'{"a":' * 40, b"x" * 200_000):
            bench.listener.bus.publish(topic, payload)
    records = len(bench.listener.records)
    await bench.for_seconds(3.0)
    assert len(bench.listener.records) > records
    assert not [record for record in caplog.records if record.exc_info]
    assert len(caplog.records) < 30


async def test_a_retained_command_changes_nothing(bench: Bench) -> None:
    await bench.finish()
    bench.command(10.0)
    bench.broker.retained[NODE.cmd] = encode(
        Command(
            id="retained-1",
            issuer="lab",
            epoch=7,
            seq=9,
            target=Target(node="jetson-1", actuator="board"),
            action=Action.LIMIT,
            limit_w=6.0,
            issued_at=utc(bench.clock.wall_us()),
            ttl_s=60.0,
        )
    )
    await bench.start()
    await bench.until(lambda: bool(bench.listener.acks))
    assert (bench.listener.acks[-1].state, bench.listener.acks[-1].code) == (AckState.REJECTED, "retained")
    assert (await bench.board.readback()) == Setting()


async def test_a_lease_store_that_cannot_be_opened_is_said_plainly(idle: Bench) -> None:
    bench = idle
    bench.state_dir.leases.mkdir()
    await bench.start()
    with pytest.raises(StoreFailed):
        await bench.until(lambda: False)
    bench.state_dir.leases.rmdir()
    await bench.start()
    await bench.until(lambda: bool(bench.listener.births))
