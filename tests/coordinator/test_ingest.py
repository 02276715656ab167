"""From the bus to the ledger and back to the agents: seen at once, on disk soon, acknowledged only then."""

import asyncio
import json
import resource
from itertools import pairwise

import pytest

from coordinator.acknowledger import ACKS_A_TURN, RANGES, Acknowledger
from coordinator.ingest import Ingest
from coordinator.intake import MAX_METERS, MAX_STREAMS
from coordinator.ledger import GROUP_S, RETRY_MAX_S, Ledger
from coordinator.ledgerreader import LedgerReader
from coordinator.ledgerschema import LedgerError
from coordinator.stream import StreamBooks
from hil.bus import MemoryBroker, MemoryBus
from hil.clock import ManualClock
from hil.devices import Quality
from hil.wire import (
    Ack,
    AckState,
    Birth,
    Data,
    DataAck,
    Lost,
    MeterInfo,
    NodeState,
    Presence,
    Record,
    Topics,
    decode,
    encode,
)

TOPICS = Topics("lab")
NODE = "jetson-1"
STREAM = "0123abcd"


def record(clock, seq, power_w=15.0, quality=Quality.GOOD, meter="outlet-1", ahead_s=0.0):
    return Record(seq, clock.wall_us() + round(ahead_s * 1e6), meter, power_w, None, 0, quality)


def birth(node=NODE, epoch=0, measures=NODE, interval_s=0.5):
    return Birth(
        node=node,
        version="0",
        boot_id="b",
        stream=STREAM,
        epoch=epoch,
        mode="act",
        nameplate_w=20.0,
        failsafe="release",
        sync="tick",
        clock_synchronised=True,
        meters=[MeterInfo(name="outlet-1", kind="modbus", measures=measures, interval_s=interval_s)],
    )


def ack(state=AckState.APPLIED, epoch=1):
    return Ack(id="cmd-0001", issuer="lab", epoch=epoch, seq=1, actuator="board", state=state)


class Lab:
    """A coordinator's ingest and an agent, on one memory bus under one clock."""

    def __init__(self, run_dir):
        self.run_dir = run_dir
        self.clock = ManualClock()
        self.broker = MemoryBroker()
        self.agent = MemoryBus(self.broker, self.clock.monotonic)

    async def start(self, **limits):
        self.agent.subscribe(TOPICS.node("+").data_ack)
        await self.agent.start()
        await self.begin(**limits)

    async def begin(self, **limits):
        """A coordinator's life."""
        self.bus = MemoryBus(self.broker, self.clock.monotonic)
        self.ledger = Ledger(self.run_dir, self.clock, **limits)
        await self.ledger.open()
        self.ingest = Ingest("lab", [NODE, "jetson-2"], self.ledger, self.bus, self.clock)
        self.ingest.start()
        await self.bus.start()
        self.task = asyncio.create_task(self.ingest.run())

    async def end(self):
        self.task.cancel()
        await asyncio.wait({self.task})
        await self.bus.stop()
        await self.ledger.close()

    def say(self, topic, payload):
        self.agent.publish(topic, payload)

    def send(self, *records, node=NODE, stream=STREAM, lost=(), hist=False):
        self.say(TOPICS.node(node).data, encode(Data(stream=stream, r=list(records), lost=list(lost), hist=hist)))

    async def acks(self):
        """What was acknowledged by the next commit, at least one."""
        await self.clock.advance(2 * GROUP_S)
        async with asyncio.timeout(10):
            return [decode(message.payload, DataAck) for message in await self.agent.receive()]

    async def taken(self):
        """Let everything said be taken in."""
        while self.ingest.counters.messages < self.bus.counters.received:
            await self.clock.advance(0.0)

    async def committed(self):
        await self.taken()
        await self.clock.advance(2 * GROUP_S)
        await self.ledger.flush()

    def read(self):
        return LedgerReader(self.run_dir)


@pytest.fixture
async def lab(tmp_path):
    lab = Lab(tmp_path)
    await lab.start()
    yield lab
    await lab.end()


# --- samples ----------------------------------------------------------------------------------------------------------


async def test_seen_at_once_on_disk_soon_acknowledged_then(lab):
    lab.send(record(lab.clock, 1, 10.0), record(lab.clock, 2, 20.0))
    await lab.taken()
    look = lab.ingest.window(NODE, "outlet-1").look()
    assert (look.mean_w, look.age_s) == (15.0, 0.0)
    assert lab.agent.counters.received == 0
    assert lab.ledger.waiting_samples == 2
    assert await lab.acks() == [DataAck(stream=STREAM, upto=2, have=[])]
    with lab.read() as reader:
        assert [row.power_w for row in reader.samples()] == [10.0, 20.0]
    assert lab.ingest.books() == [StreamBooks(NODE, STREAM, ((1, 2),), 2, 0, 0)]


async def test_one_ack_per_stream_and_commit(lab):
    for seq in range(1, 31):
        lab.send(record(lab.clock, seq))
        lab.send(record(lab.clock, seq), node="jetson-2", stream="ffffffff")
        await lab.taken()
    assert await lab.acks() == [
        DataAck(stream=STREAM, upto=30, have=[]),
        DataAck(stream="ffffffff", upto=30, have=[]),
    ]


async def test_a_repeat_is_dropped_counted_and_acknowledged_again(lab):
    lab.send(record(lab.clock, 1), record(lab.clock, 2))
    await lab.acks()
    lab.send(record(lab.clock, 2, 99.0), record(lab.clock, 3))
    assert await lab.acks() == [DataAck(stream=STREAM, upto=3, have=[])]
    lab.send(record(lab.clock, 1, 99.0), record(lab.clock, 2, 99.0))
    assert await lab.acks() == [DataAck(stream=STREAM, upto=3, have=[])]
    (books,) = lab.ingest.books()
    assert (books.committed, books.duplicates, books.lost) == (3, 3, 0)
    with lab.read() as reader:
        assert [(row.seq, row.power_w) for row in reader.samples()] == [(1, 15.0), (2, 15.0), (3, 15.0)]


async def test_repeats_are_known_across_lives(lab):
    lab.send(record(lab.clock, 1), record(lab.clock, 2), record(lab.clock, 9))
    assert await lab.acks() == [DataAck(stream=STREAM, upto=2, have=[(9, 9)])]
    await lab.end()
    await lab.begin()
    lab.send(record(lab.clock, 2), record(lab.clock, 3), record(lab.clock, 9))
    assert await lab.acks() == [DataAck(stream=STREAM, upto=3, have=[(9, 9)])]
    with lab.read() as reader:
        assert [row.seq for row in reader.samples()] == [1, 2, 9, 3]


async def test_tombstones_count_what_never_came(lab):
    lab.send(record(lab.clock, 1), record(lab.clock, 2), record(lab.clock, 8))
    lab.send(lost=[Lost(2, 5, "spool full")])
    assert await lab.acks() == [DataAck(stream=STREAM, upto=5, have=[(8, 8)])]
    (books,) = lab.ingest.books()
    assert (books.committed, books.lost) == (3, 3)


async def test_backlog_is_kept_but_not_shown_live(lab):
    shown = []
    lab.ingest.on_sample(lambda agent, meter, sample: shown.append((agent, meter, sample.seq)))
    lab.send(record(lab.clock, 1, 10.0), hist=True)
    lab.send(record(lab.clock, 5, 50.0))
    await lab.committed()
    assert shown == [(NODE, "outlet-1", 5)]
    assert lab.ingest.window(NODE, "outlet-1").look().mean_w == 50.0
    with lab.read() as reader:
        assert [(row.seq, row.hist) for row in reader.samples()] == [(1, True), (5, False)]


async def test_a_sample_from_the_future_is_kept_counted_and_not_used(lab, caplog):
    lab.send(record(lab.clock, 1, 10.0, ahead_s=4.9), record(lab.clock, 2, 99.0, ahead_s=5.1))
    lab.send(record(lab.clock, 3, 99.0, ahead_s=3600.0))
    await lab.committed()
    assert lab.ingest.window(NODE, "outlet-1").look().mean_w == 10.0
    assert lab.ingest.quarantined == 2
    assert caplog.text.count("stamped in the future") == 1
    with lab.read() as reader:
        assert [row.seq for row in reader.samples()] == [1, 2, 3]


async def test_below_zero_is_taken_as_read_counted_and_told_once(lab, caplog):
    lab.send(record(lab.clock, 1, -0.01), record(lab.clock, 2, -0.01))
    await lab.taken()
    assert lab.ingest.window(NODE, "outlet-1").look().mean_w == -0.01
    assert lab.ingest.negative == 2
    assert caplog.text.count("below 0 W") == 1


async def test_a_missing_sample_is_on_disk_without_a_power(lab):
    lab.send(record(lab.clock, 1, None, Quality.MISSING))
    await lab.committed()
    assert not lab.ingest.window(NODE, "outlet-1").heard
    with lab.read() as reader:
        assert [(row.power_w, row.quality) for row in reader.samples()] == [(None, Quality.MISSING)]


# --- what cannot be used ----------------------------------------------------------------------------------------------


def data(**changes):
    message = {"stream": STREAM, "r": [[1, 0, "outlet-1", 15.0, None, 0, "good"]], "lost": [], "hist": False}
    return json.dumps({**message, **changes}).encode()


BAD = [
    (data(stream="no stream"), "malformed"),
    (data(r=[[0, 0, "outlet-1", 15.0, None, 0, "good"]]), "malformed"),
    (data(r=[[2**63, 0, "outlet-1", 15.0, None, 0, "good"]]), "malformed"),
    (data(r=[[1, 2**63, "outlet-1", 15.0, None, 0, "good"]]), "malformed"),
    (data(r=[[1, 0, "outlet-1", float("nan"), None, 0, "good"]]), "malformed"),
    (data(r=[[1, 0, "outlet-1", 1e13, None, 0, "good"]]), "malformed"),
    (data(r=[[1, 0, "Outlet 1", 15.0, None, 0, "good"]]), "malformed"),
    (data(r=[[1, 0, "outlet-1\n", 15.0, None, 0, "good"]]), "malformed"),
    (data(r=[[1, 0, "outlet-1", 15.0, None, 0, "splendid"]]), "malformed"),
    (data(r=[[seq, 0, "outlet-1", 15.0, None, 0, "good"] for seq in range(1, 102)]), "malformed"),
    (data(lost=[[5, 4, "backwards"]]), "malformed"),
    (data(r=[]), "empty"),
    (data(pad="x" * 66_000), "too_large"),
    (b"[" * 50 + b"]" * 50, "too_deep"),
    (b"", "malformed"),
    (b"\xff\xfe", "malformed"),
    (b"null", "malformed"),
]


@pytest.mark.parametrize(("payload", "code"), BAD, ids=range(len(BAD)))
async def test_a_bad_message_is_counted_told_once_and_never_acknowledged(lab, caplog, payload, code):
    for _ in range(3):
        lab.say(TOPICS.node(NODE).data, payload)
    lab.send(record(lab.clock, 7))
    assert await lab.acks() == [DataAck(stream=STREAM, upto=0, have=[(7, 7)])]
    assert lab.ingest.counters.refused == {code: 3}
    assert caplog.text.count("refused") == 1


async def test_strangers_and_strange_topics_are_counted_and_survived(lab):
    lab.send(record(lab.clock, 1), node="server-9")
    lab.say(TOPICS.node("server-9").state, encode(NodeState(state=Presence.READY, session=1)))
    lab.say(TOPICS.node("server-9").birth, encode(birth("server-9", measures="server-9")))
    lab.say(TOPICS.node(NODE).birth, encode(birth("jetson-2")))
    lab.say(TOPICS.node(NODE).birth, encode(birth(interval_s=0.0)))
    lab.say(TOPICS.signal("no such name!"), b"1")
    await lab.committed()
    assert lab.ingest.counters.refused == {"unknown_node": 3, "malformed": 2, "unknown_topic": 1}
    assert lab.ingest.books() == []


async def test_cleared_retained_messages_are_no_fault(lab):
    lab.say(TOPICS.node(NODE).birth, b"")
    lab.say(TOPICS.node(NODE).state, b"")
    await lab.taken()
    assert not lab.ingest.counters.refused


async def test_one_agent_cannot_fill_our_memory(lab):
    for number in range(MAX_STREAMS + 5):
        lab.send(record(lab.clock, 1), stream=f"{number:08x}")
    for number in range(MAX_METERS + 5):
        lab.send(record(lab.clock, number + 1, meter=f"m{number}"), node="jetson-2")
    await lab.committed()
    assert lab.ingest.counters.refused == {"too_many_streams": 5, "too_many_meters": 5}


async def test_ten_thousand_bad_messages_are_one_line_in_the_log(lab, caplog):
    for _ in range(10_000):
        lab.say(TOPICS.node(NODE).data, b"{}")
    lab.send(record(lab.clock, 1))
    await lab.committed()
    assert lab.ingest.counters.refused == {"malformed": 10_000}
    assert len(caplog.records) == 1


# --- agents and commands ----------------------------------------------------------------------------------------------


async def test_births_states_acks_and_signals_reach_their_listeners(lab):
    heard = []
    lab.ingest.on_birth(lambda agent, birth: heard.append((agent, birth.mode)))
    lab.ingest.on_state(lambda agent, state: heard.append((agent, state.state)))
    lab.ingest.on_ack(lambda agent, ack: heard.append((agent, ack.state)))
    lab.ingest.on_signal(lambda name, message: heard.append((name, message.payload)))
    lab.ingest.on_other(lambda message: heard.append((message.topic, message.payload)))
    lab.bus.subscribe(TOPICS.heartbeat)
    lab.say(TOPICS.node(NODE).birth, encode(birth()))
    lab.say(TOPICS.node(NODE).state, encode(NodeState(state=Presence.READY, session=2, generated=9, acked=4)))
    lab.say(TOPICS.node(NODE).state, encode(NodeState(state=Presence.LOST, session=1)))
    lab.say(TOPICS.node(NODE).state, encode(NodeState(state=Presence.LOST, session=2)))
    lab.say(TOPICS.node(NODE).cmd_ack, encode(ack()))
    lab.say(TOPICS.signal("carbon"), b"55.5")
    lab.say(TOPICS.heartbeat, b"{}")
    await lab.committed()
    assert heard == [
        (NODE, "act"),
        (NODE, Presence.READY),
        (NODE, Presence.LOST),
        (NODE, AckState.APPLIED),
        ("carbon", b"55.5"),
        (TOPICS.heartbeat, b"{}"),
    ]
    with lab.read() as reader:
        ((node, state),) = reader.node_books()
    assert (node, state.state, state.generated, state.acked) == (NODE, Presence.LOST, 9, 4)


async def test_a_will_alone_overwrites_no_books(lab):
    lab.say(TOPICS.node(NODE).state, encode(NodeState(state=Presence.READY, session=2, generated=9)))
    await lab.committed()
    await lab.end()
    await lab.begin()
    lab.say(TOPICS.node(NODE).state, encode(NodeState(state=Presence.LOST, session=2)))
    await lab.committed()
    with lab.read() as reader:
        assert [state.generated for _, state in reader.node_books()] == [9]


async def test_higher_epochs_are_told_as_they_rise(lab):
    seen = []
    lab.ingest.on_epoch(lambda agent, epoch: seen.append((agent, epoch)))
    lab.say(TOPICS.node(NODE).birth, encode(birth(epoch=3)))
    lab.say(TOPICS.node("jetson-2").birth, encode(birth("jetson-2", epoch=3)))
    lab.say(TOPICS.node(NODE).cmd_ack, encode(ack(epoch=2)))
    lab.say(TOPICS.node(NODE).cmd_ack, encode(ack(epoch=5)))
    await lab.taken()
    assert seen == [(NODE, 3), (NODE, 5)]
    assert lab.ingest.highest_epoch == 5


@pytest.mark.parametrize("first", ["birth", "window"])
async def test_a_meter_has_the_period_that_its_agent_announced(lab, first):
    steps = [
        lambda: lab.say(TOPICS.node(NODE).birth, encode(birth(interval_s=0.25))),
        lambda: lab.ingest.window(NODE, "outlet-1"),
    ]
    for act in steps if first == "birth" else reversed(steps):
        act()
        await lab.taken()
    assert lab.ingest.window(NODE, "outlet-1").look().interval_s == 0.25


async def test_a_gateway_is_heard_for_the_node_it_measures(lab):
    lab.send(record(lab.clock, 1), node="gateway")
    lab.say(TOPICS.node("gateway").birth, encode(birth("gateway", measures=NODE)))
    lab.send(record(lab.clock, 2, 30.0), node="gateway")
    await lab.taken()
    assert lab.ingest.counters.refused == {"unknown_node": 1}
    assert [(agent, meter.name) for agent, meter in lab.ingest.roster.meters_of(NODE)] == [("gateway", "outlet-1")]
    assert lab.ingest.window("gateway", "outlet-1").look().mean_w == 30.0


# --- under stress -----------------------------------------------------------------------------------------------------


async def test_a_flood_leaves_the_event_loop_its_turns(lab):
    taken_by_turn = [0]

    async def watch():
        while True:
            taken_by_turn.append(lab.ingest.counters.messages)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    for first in range(1, 20_001, 100):
        lab.send(*(record(lab.clock, seq) for seq in range(first, first + 100)))
    await lab.committed()
    watching.cancel()
    assert max(after - before for before, after in pairwise(taken_by_turn)) <= 10  # of a hundred samples each
    assert [books.committed for books in lab.ingest.books()] == [20_000]


async def test_without_a_connection_nothing_is_lost(lab):
    lab.send(record(lab.clock, 1))
    await lab.taken()
    lab.bus.cut()
    await lab.committed()
    assert lab.agent.counters.received == 0
    lab.bus.reconnect()
    lab.send(record(lab.clock, 1))  # the agent heard no acknowledgement, and sends again
    assert await lab.acks() == [DataAck(stream=STREAM, upto=1, have=[])]
    assert [books.duplicates for books in lab.ingest.books()] == [1]


async def test_on_a_full_disk_the_loop_sees_on_and_nothing_is_acknowledged(tmp_path):
    lab = Lab(tmp_path)
    await lab.start(max_samples=100)
    lab.send(record(lab.clock, 1))
    await lab.acks()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = lab.ledger.path.with_name("ledger.db-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
    try:
        lab.send(*(record(lab.clock, seq) for seq in range(2, 102)))
        await lab.taken()
        lab.send(record(lab.clock, 102, 77.0))
        await lab.taken()
        assert lab.ingest.counters.refused == {"ledger_full": 1}
        look = lab.ingest.window(NODE, "outlet-1").look()
        assert (look.newest_w, look.samples.last) == (77.0, 102)
        async with asyncio.timeout(10):
            while lab.ledger.fault is None:
                await lab.clock.advance(GROUP_S)
        assert lab.agent.counters.received == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await lab.clock.advance(RETRY_MAX_S)
    assert await lab.acks() == [DataAck(stream=STREAM, upto=101, have=[])]
    lab.send(record(lab.clock, 102, 77.0))  # sent again, for it was not acknowledged
    assert await lab.acks() == [DataAck(stream=STREAM, upto=102, have=[])]
    assert lab.ingest.window(NODE, "outlet-1").look().mean_w is None  # and not shown twice
    await lab.end()


async def test_a_broken_ledger_ends_the_ingest(tmp_path):
    lab = Lab(tmp_path)
    await lab.start()
    await lab.ledger.close()
    lab.send(record(lab.clock, 1))
    with pytest.raises(LedgerError, match="closed"):
        await lab.task
    await lab.end()


async def test_acks_of_many_streams_leave_the_event_loop_its_turns():
    broker = MemoryBroker()
    clock = ManualClock()
    bus, agent = MemoryBus(broker, clock.monotonic), MemoryBus(broker, clock.monotonic)
    agent.subscribe(TOPICS.node("+").data_ack)
    await bus.start()
    await agent.start()
    books = [StreamBooks(f"n{number}", STREAM, ((1, 5),), 5, 0, 0) for number in range(3 * ACKS_A_TURN)]
    acknowledger = Acknowledger(TOPICS, bus)
    acknowledger.committed(books)
    assert agent.counters.received == ACKS_A_TURN
    newer = [StreamBooks(f"n{number}", STREAM, ((1, 6),), 6, 0, 0) for number in range(3 * ACKS_A_TURN)]
    acknowledger.committed(newer)  # what is still owed is told in its newer form alone
    await clock.advance(0.0)
    uptos = [decode(message.payload, DataAck).upto for message in await agent.receive()]
    assert sorted(uptos) == [5] * ACKS_A_TURN + [6] * 3 * ACKS_A_TURN


async def test_a_stream_full_of_holes_is_acknowledged_in_messages_that_fit():
    broker = MemoryBroker()
    clock = ManualClock()
    bus, agent = MemoryBus(broker, clock.monotonic), MemoryBus(broker, clock.monotonic)
    agent.subscribe(TOPICS.node("+").data_ack)
    await bus.start()
    await agent.start()
    ranges = tuple((seq, seq) for seq in range(2**52, 2**52 + 2 * (2 * RANGES + 1), 2))
    Acknowledger(TOPICS, bus).committed([StreamBooks(NODE, STREAM, ranges, len(ranges), 0, 0)])
    acks = [decode(message.payload, DataAck) for message in await agent.receive()]
    assert len(acks) == 3
    assert tuple(interval for ack in acks for interval in ack.have) == ranges
