import logging
from collections.abc import Sequence

import pytest

from agent.meters.modbus.blocks import Block, RegisterImage
from agent.meters.modbus.errors import Refused, Silent
from agent.meters.modbus.nameplate import Nameplate
from agent.meters.modbus.plan import Plan
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.reader import Reader
from agent.meters.modbus.registers import Register
from hil.clock import ManualClock

POWER = Register(Quantity.POWER_W, 3, 10, "u16")
VOLTAGE = Register(Quantity.VOLTAGE_V, 3, 8, "u16")
CURRENT = Register(Quantity.CURRENT_A, 3, 14, "u16")
ENERGY = Register(Quantity.ENERGY_J, 3, 18, "u16", slow=True)


class Device:
    """Answers with each word's own address, where it has that word."""

    def __init__(self) -> None:
        self.missing: set[int] = set()
        self.silent = False
        self.most = 125
        self.asked: list[tuple[int, int]] = []

    async def read(self, block: Block) -> Sequence[int]:
        self.asked.append((block.address, block.count))
        if self.silent:
            raise Silent("silence")
        if block.count > self.most:
            raise Refused(3, "so much")
        words = range(block.address, block.address + block.count)
        if self.missing & set(words):
            raise Refused(2, f"{block.count} words from {block.address}")
        return words

    async def describe(self) -> Nameplate:
        raise Refused(1, "who it is")


class Bench:
    def __init__(self, *registers: Register) -> None:
        self.device = Device()
        self.clock = ManualClock()
        self.reader = Reader("m", Plan(registers, max_gap=4).rounds(), self.clock)

    async def read(self, *, slow: bool = False) -> RegisterImage:
        self.device.asked.clear()
        return await self.reader.read(self.device, slow=slow)


async def test_slow_registers_are_read_when_told():
    bench = Bench(POWER, ENERGY)
    with pytest.raises(LookupError):
        ENERGY.value(await bench.read())
    assert ENERGY.value(await bench.read(slow=True)) == 18.0
    assert bench.device.asked == [(10, 1), (18, 1)]


async def test_a_refused_block_is_split_and_the_register_to_blame_left_out(caplog: pytest.LogCaptureFixture):
    bench = Bench(POWER, VOLTAGE, CURRENT)
    bench.device.missing = {14}
    image = await bench.read()
    assert (POWER.value(image), VOLTAGE.value(image)) == (10.0, 8.0)
    with pytest.raises(LookupError):
        CURRENT.value(image)
    assert bench.device.asked == [(8, 7), (8, 3), (14, 1)]
    for _ in range(3):
        assert POWER.value(await bench.read()) == 10.0
        assert bench.device.asked == [(8, 3)]
    assert [record.message for record in caplog.records] == [
        "meter m: current_a is left out: exception 2 (illegal address) on reading 1 words from 14"
    ]


async def test_a_hole_between_registers_only_parts_them():
    bench = Bench(POWER, CURRENT)
    bench.device.missing = {12}
    image = await bench.read()
    assert (POWER.value(image), CURRENT.value(image)) == (10.0, 14.0)
    await bench.read()
    assert bench.device.asked == [(10, 1), (14, 1)]


async def test_a_device_that_gives_less_at_once_than_it_should_is_asked_for_less():
    bench = Bench(POWER, VOLTAGE, CURRENT)
    bench.device.most = 3
    image = await bench.read()
    assert [register.value(image) for register in (VOLTAGE, POWER, CURRENT)] == [8.0, 10.0, 14.0]
    await bench.read()
    assert bench.device.asked == [(8, 3), (14, 1)]


async def test_without_its_power_there_is_no_reading_and_it_is_asked_for_again():
    bench = Bench(POWER, VOLTAGE)
    bench.device.missing = {10}
    for _ in range(2):
        with pytest.raises(Refused, match="1 words from 10"):
            await bench.read()
    bench.device.missing = set()
    assert POWER.value(await bench.read()) == 10.0


async def test_what_was_left_out_is_tried_again_after_an_hour_and_told_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    bench = Bench(POWER, CURRENT)
    bench.device.missing = {14}
    await bench.read()
    await bench.clock.advance(3599.0)
    await bench.read()
    assert bench.device.asked == [(10, 1)]
    await bench.clock.advance(1.0)
    await bench.read()
    assert len(caplog.records) == 1
    bench.device.missing = set()
    await bench.clock.advance(3600.0)
    assert CURRENT.value(await bench.read()) == 14.0


async def test_silence_teaches_nothing():
    bench = Bench(POWER, CURRENT)
    bench.device.silent = True
    with pytest.raises(Silent):
        await bench.read()
    bench.device.silent = False
    assert CURRENT.value(await bench.read()) == 14.0


async def test_an_exception_that_is_not_about_addresses_is_passed_on():
    bench = Bench(POWER, CURRENT)

    async def busy(block: Block) -> Sequence[int]:
        raise Refused(6, "anything")

    bench.device.read = busy
    with pytest.raises(Refused, match="device busy"):
        await bench.read()
