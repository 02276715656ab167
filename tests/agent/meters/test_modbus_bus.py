import asyncio
import itertools
from collections.abc import Awaitable, Sequence

import pytest

from agent.meters.modbus.backoff import Backoff
from agent.meters.modbus.blocks import Block
from agent.meters.modbus.bus import ModbusBus, ModbusBuses
from agent.meters.modbus.endpoint import Endpoint, SerialEndpoint, TcpEndpoint
from agent.meters.modbus.errors import BusError, Refused, Silent
from agent.meters.modbus.turns import Turns
from hil.clock import ManualClock, settle

BLOCK = Block(3, 0, 1)
ENDPOINT = TcpEndpoint("wire", 1)


class Wire:
    """A bus whose units answer as they are told, after ``latency_s`` of a clock that stands still between requests."""

    def __init__(self, endpoint: Endpoint = ENDPOINT, *, matches: bool = True) -> None:
        self.clock = ManualClock()
        self.matches = matches
        self.latency_s = 0.0
        self.asked_for: list[tuple[int, Block, float]] = []
        self.silent: set[int] = set()
        self.refusing: set[int] = set()
        self.code = 2
        self.broken = False
        self.down = False
        self.links: list[WireLink] = []
        self.attempts = 0
        self.bus = ModbusBus(endpoint, self.clock, self.connect)

    async def connect(self, endpoint: Endpoint, timeout_s: float) -> "WireLink":
        self.attempts += 1
        if self.down:
            raise BusError("nobody there")
        self.links.append(WireLink(self))
        return self.links[-1]

    async def read(self, unit: int) -> Sequence[int]:
        return await self.bus.read(unit, BLOCK, timeout_s=1.0)

    @property
    def asked(self) -> int:
        return sum(link.asked for link in self.links)


class WireLink:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.asked = 0
        self.alive = True
        self.matches = wire.matches

    async def read(self, unit: int, block: Block, timeout_s: float) -> Sequence[int]:
        assert self.alive
        self.asked += 1
        self.wire.asked_for.append((unit, block, timeout_s))
        await asyncio.sleep(0)
        self.wire.clock.stall(self.wire.latency_s)
        if unit in self.wire.silent:
            await self.wire.clock.sleep_until(self.wire.clock.monotonic() + timeout_s)
            raise Silent("silence")
        if unit in self.wire.refusing:
            raise Refused(self.wire.code, "that")
        if self.wire.broken:
            raise BusError("garbage")
        return [unit]

    def close(self) -> None:
        self.alive = False


async def outcome(wire: Wire, unit: int) -> object:
    try:
        return list(await wire.read(unit))
    except BusError as error:
        return type(error)


async def test_one_connection_serves_all_units():
    wire = Wire()
    assert [await wire.read(unit) for unit in (1, 2, 1)] == [[1], [2], [1]]
    assert len(wire.links) == 1


async def test_requests_go_one_after_another():
    wire = Wire()
    wire.silent = {1}
    slow, quick = asyncio.create_task(outcome(wire, 1)), asyncio.create_task(outcome(wire, 2))
    await settle()
    assert wire.asked == 1
    await wire.clock.advance(1.0)
    assert (await slow, await quick) == (Silent, [2])


async def test_silence_closes_the_connection_and_an_exception_does_not():
    wire = Wire()
    wire.refusing = {1}
    assert [await outcome(wire, 1) for _ in range(3)] == [Refused] * 3
    assert [link.alive for link in wire.links] == [True]
    wire.silent = {2}
    asking = asyncio.create_task(outcome(wire, 2))
    await wire.clock.advance(1.0)
    assert await asking is Silent
    assert [link.alive for link in wire.links] == [False]


async def test_a_dead_unit_costs_the_others_one_timeout_a_probe():
    wire = Wire()
    wire.silent = {9}
    waits = []
    for _ in range(600):  # ten minutes at 1 Hz
        began = wire.clock.monotonic()
        asking = asyncio.create_task(outcome(wire, 9))
        await settle()
        if not asking.done():
            await wire.clock.advance(1.0)
            waits.append(began)
        assert await asking in {Silent, BusError}
        assert await outcome(wire, 1) == [1]
        await wire.clock.advance(began + 1.0 - wire.clock.monotonic())
    gaps = [round(later - earlier) for earlier, later in itertools.pairwise(waits)]
    # each gap is the probe's own timeout and the back-off, rounded up to the next reading
    assert gaps == [1, 3, 5, 9, 17, 33, 65, 129, 257]


async def test_a_unit_that_comes_back_is_asked_at_every_reading_again():
    wire = Wire()
    wire.silent = {9}
    for _ in range(2):
        asking = asyncio.create_task(outcome(wire, 9))
        await wire.clock.advance(1.0)
        assert await asking is Silent
    wire.silent = set()
    with pytest.raises(BusError, match="silence"):
        await wire.read(9)
    assert wire.asked == 2
    await wire.clock.advance(2.0)
    assert [await outcome(wire, 9) for _ in range(3)] == [[9]] * 3


async def test_an_endpoint_that_is_down_is_tried_ever_less_often_and_says_why():
    wire = Wire()
    wire.down = True
    for _ in range(1200):
        with pytest.raises(BusError, match="nobody there"):
            await wire.read(1)
        await wire.clock.advance(0.05)
    assert wire.attempts == 8  # at 0, 0.25, 0.75, 1.75, 3.75, 7.75, 15.75, 31.75 s of 60
    wire.down = False
    await wire.clock.advance(30.0)
    assert await outcome(wire, 1) == [1]


async def test_after_garbage_the_connection_is_made_anew():
    wire = Wire()
    wire.broken = True
    assert await outcome(wire, 1) is BusError
    wire.broken = False
    assert await outcome(wire, 1) == [1]
    assert [link.alive for link in wire.links] == [False, True]


async def test_a_connection_that_the_other_side_closed_is_made_anew():
    wire = Wire()
    await wire.read(1)
    wire.links[0].alive = False
    assert await outcome(wire, 1) == [1]


async def test_a_reading_given_up_takes_its_connection_along():
    wire = Wire()
    wire.silent = {1}
    asking = asyncio.create_task(outcome(wire, 1))
    await settle()
    asking.cancel()
    await settle()
    assert [link.alive for link in wire.links] == [False]
    assert await outcome(wire, 2) == [2]


async def test_meters_with_one_endpoint_share_its_bus_until_the_last_leaves():
    buses = ModbusBuses(ManualClock())
    a, b = TcpEndpoint("a", 502), TcpEndpoint("a", 503)
    one, two, other = buses.join(a), buses.join(a), buses.join(b)
    assert one is two
    assert one is not other
    buses.leave(one)
    assert buses.join(a) is one
    buses.leave(one)
    buses.leave(two)
    assert buses.join(a) is not one


async def ask(wire: Wire, unit: int) -> object:
    """The outcome of a read without a timeout of its own, as long as it takes."""
    asking = asyncio.create_task(_outcome(wire.bus.read(unit, BLOCK)))
    while not asking.done():
        await wire.clock.advance(0.1)
    return await asking


async def _outcome(reading: Awaitable[Sequence[int]]) -> object:
    try:
        return list(await reading)
    except BusError as error:
        return type(error)


@pytest.mark.parametrize(
    ("latency_s", "timeout_s"), [(0.001, 0.3), (0.07, 0.3), (0.1, 0.4), (0.3, 1.2), (0.9, 2.0)], ids=str
)
async def test_a_unit_gets_a_multiple_of_what_it_took_before(latency_s: float, timeout_s: float):
    wire = Wire()
    wire.latency_s = latency_s
    for _ in range(2):
        await ask(wire, 1)
    assert [given for _, _, given in wire.asked_for] == [1.0, pytest.approx(timeout_s)]


async def test_a_unit_that_becomes_quicker_gets_less_by_and_by():
    wire = Wire()
    wire.latency_s = 0.4
    await ask(wire, 1)
    wire.latency_s = 0.01
    for _ in range(200):
        await ask(wire, 1)
    assert wire.asked_for[1][2] == pytest.approx(1.6)
    assert wire.asked_for[-1][2] == 0.3


async def test_a_stranger_gets_what_its_neighbours_get():
    wire = Wire()
    wire.latency_s = 0.001
    await ask(wire, 1)
    wire.silent = {2}
    assert await ask(wire, 2) is Silent
    assert wire.asked_for[-1][2] == 0.3


async def test_a_unit_that_fell_silent_gets_more_but_never_more_than_a_second():
    wire = Wire()
    await ask(wire, 1)
    wire.silent = {1}
    for _ in range(5):
        assert await ask(wire, 1) is Silent
        await wire.clock.advance(300.0)
    assert [given for _, _, given in wire.asked_for[1:]] == [0.3, 0.6, 1.0, 1.0, 1.0]


async def test_a_unit_that_fell_silent_lets_the_others_go_first():
    wire = Wire()
    await wire.read(9)
    wire.silent = {9}
    wire.asked_for.clear()
    assert await ask(wire, 9) is Silent
    one = asyncio.create_task(outcome(wire, 1))
    probe = asyncio.create_task(_outcome(wire.bus.read(9, BLOCK)))
    two, three = (asyncio.create_task(outcome(wire, unit)) for unit in (2, 3))
    assert [await one, await two, await three] == [[1], [2], [3]]
    assert not probe.done()
    await wire.clock.advance(1.0)
    assert await probe is Silent
    assert [unit for unit, _, _ in wire.asked_for] == [9, 1, 2, 3, 9]


async def test_a_unit_behind_a_gateway_that_says_it_does_not_answer_is_left_alone_for_a_while():
    wire = Wire()
    wire.refusing, wire.code = {5}, 11
    for _ in range(2):
        assert await outcome(wire, 5) is Refused
    with pytest.raises(BusError, match="no answer behind the gateway"):
        await wire.read(5)
    assert wire.asked == 2
    assert [link.alive for link in wire.links] == [True]


LINE = SerialEndpoint("tty", 9600, "N", 1)
CHAR_S = 10 / 9600


async def test_the_time_on_the_wire_is_given_beside_what_the_unit_takes():
    wire = Wire(LINE, matches=False)
    await wire.read(1)
    assert wire.asked_for[0][2] == pytest.approx(1.0 + (8 + 7) * CHAR_S)


@pytest.mark.parametrize(("baudrate", "silence_s"), [(9600, 3.5 * CHAR_S), (115_200, 0.00175)], ids=str)
async def test_frames_are_parted_by_silence(baudrate: int, silence_s: float):
    wire = Wire(SerialEndpoint("tty", baudrate, "N", 1), matches=False)
    await wire.read(1)
    second = asyncio.create_task(wire.read(2))
    await wire.clock.advance(0.99 * silence_s)
    assert wire.asked == 1
    await wire.clock.advance(0.02 * silence_s)
    assert wire.asked == 2
    await second


@pytest.mark.parametrize("slow", [1, 2])
async def test_a_unit_that_needs_more_silence_has_it_before_its_request_and_after_its_answer(slow: int):
    wire = Wire(LINE, matches=False)
    silences_s = {slow: 0.1}
    await wire.bus.read(1, BLOCK, silence_s=silences_s.get(1, 0.0))
    second = asyncio.create_task(wire.bus.read(2, BLOCK, silence_s=silences_s.get(2, 0.0)))
    await wire.clock.advance(0.09)
    assert wire.asked == 1
    await wire.clock.advance(0.02)
    assert wire.asked == 2
    await second


async def test_on_a_line_silence_leaves_the_connection_until_it_happens_too_often():
    wire = Wire(LINE, matches=False)
    wire.silent = {1, 2}
    for unit in (1, 2):
        assert await ask(wire, unit) is Silent
    assert [link.alive for link in wire.links] == [True]
    assert await ask(wire, 1) is Silent
    assert [link.alive for link in wire.links] == [False]


async def test_what_an_answer_cannot_be_told_from_a_late_one_is_not_asked_until_the_unit_has_shown_it_is_done():
    wire = Wire(LINE, matches=False)
    wire.silent = {1}
    assert await ask(wire, 1) is Silent
    wire.silent = set()
    assert await ask(wire, 1) == [1]
    assert await ask(wire, 1) == [1]
    assert [(block.function, block.count) for _, block, _ in wire.asked_for] == [(3, 1), (4, 1), (3, 1), (3, 1)]


async def test_the_late_answer_of_a_unit_that_is_silent_for_long_is_not_waited_for():
    wire = Wire(LINE, matches=False)
    wire.silent = {1}
    assert await ask(wire, 1) is Silent
    await wire.clock.advance(5.0)
    wire.silent = set()
    assert await ask(wire, 1) == [1]
    assert [block.function for _, block, _ in wire.asked_for] == [3, 3]


async def test_a_refusal_shows_as_well_that_a_unit_is_done():
    wire = Wire(LINE, matches=False)
    wire.silent = {1}
    assert await ask(wire, 1) is Silent
    wire.silent, wire.refusing = set(), {1}
    assert await ask(wire, 1) is Refused
    assert [block.function for _, block, _ in wire.asked_for] == [3, 4, 3]


async def test_a_reading_given_up_on_a_line_may_be_answered_late():
    wire = Wire(LINE, matches=False)
    wire.silent = {1}
    asking = asyncio.create_task(wire.read(1))
    await settle()
    asking.cancel()
    await settle()
    wire.silent = set()
    assert await ask(wire, 1) == [1]
    assert [block.function for _, block, _ in wire.asked_for] == [3, 4, 3]


async def test_turns_go_on_when_one_who_waits_gives_up():
    turns = Turns()
    order = []

    async def work(name: str, rank: float) -> None:
        async with turns.turn(rank):
            order.append(name)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work(name, rank)) for name, rank in [("a", 0), ("b", 3), ("c", 2), ("d", 1)]]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["a", "c", "b"]
    await work("e", 0)
    assert order[-1] == "e"


async def test_a_turn_given_up_in_the_moment_it_comes_is_passed_on():
    turns = Turns()
    order = []

    async def work(name: str) -> None:
        async with turns.turn(0):
            order.append(name)
            await asyncio.sleep(0)
        if name == "a":
            tasks["b"].cancel()  # which is called, and not yet running

    tasks = {name: asyncio.create_task(work(name)) for name in "abc"}
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert order == ["a", "c"]


def test_backoff_doubles_up_to_its_longest():
    backoff = Backoff(2.0, 300.0, free=1)
    waits = []
    for _ in range(12):
        backoff.failed(1000.0, "silence")
        waits.append(backoff.wait_s(1000.0))
    assert waits == [0, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert backoff.wait_s(1299.0) == 1.0
    assert backoff.wait_s(2000.0) == 0.0
    backoff.worked()
    assert backoff.wait_s(1000.0) == 0.0


def test_backoff_survives_a_year_of_failures():
    backoff = Backoff(0.25, 30.0)
    for _ in range(100_000):
        backoff.failed(0.0, "silence")
    assert backoff.wait_s(0.0) == 30.0
