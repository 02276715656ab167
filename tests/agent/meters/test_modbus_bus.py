import asyncio
import itertools
from collections.abc import Sequence

import pytest

from agent.meters.modbus.backoff import Backoff
from agent.meters.modbus.blocks import Block
from agent.meters.modbus.bus import ModbusBus, ModbusBuses
from agent.meters.modbus.errors import BusError, Refused, Silent
from hil.clock import ManualClock, settle

BLOCK = Block(3, 0, 1, ())


class Wire:
    """A bus whose units answer as they are told; time passes only while a unit is waited for in vain."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.silent: set[int] = set()
        self.refusing: set[int] = set()
        self.broken = False
        self.down = False
        self.links: list[WireLink] = []
        self.attempts = 0
        self.bus = ModbusBus(("wire", 1), self.clock, self.connect)

    async def connect(self, host: str, port: int, timeout_s: float) -> "WireLink":
        self.attempts += 1
        if self.down:
            raise BusError("nobody there")
        self.links.append(WireLink(self))
        return self.links[-1]

    async def read(self, unit: int) -> Sequence[int]:
        return await self.bus.read(unit, BLOCK, 1.0)

    @property
    def asked(self) -> int:
        return sum(link.asked for link in self.links)


class WireLink:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.asked = 0
        self.alive = True

    async def read(self, unit: int, block: Block, timeout_s: float) -> Sequence[int]:
        assert self.alive
        self.asked += 1
        if unit in self.wire.silent:
            await self.wire.clock.sleep_until(self.wire.clock.monotonic() + timeout_s)
            raise Silent("silence")
        if unit in self.wire.refusing:
            raise Refused("no such address")
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
    one, two, other = buses.join(("a", 502)), buses.join(("a", 502)), buses.join(("a", 503))
    assert one is two
    assert one is not other
    buses.leave(one)
    assert buses.join(("a", 502)) is one
    buses.leave(one)
    buses.leave(two)
    assert buses.join(("a", 502)) is not one


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
