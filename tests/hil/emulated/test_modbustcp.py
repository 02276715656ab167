"""The server, read by pymodbus's own client from addresses typed by hand out of the register map."""

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException

from hil.clock import SystemClock
from hil.emulated.listen import ListenError
from hil.emulated.load import ConstantLoad
from hil.emulated.modbustcp import ModbusTcpPort
from hil.emulated.modbusunit import Fault
from hil.emulated.node import EmulatedNode
from hil.emulated.pdu import EmulatedPdu


class Bench:
    def __init__(self) -> None:
        self.node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand())
        self.other = EmulatedNode("jetson-2", ConstantLoad(power_w=4.0).demand())
        self.pdu = EmulatedPdu("pdu-1", {1: self.node, 2: self.other})
        self.refreshed = 0
        units = {1: self.pdu, 7: EmulatedPdu("pdu-7", {1: self.other})}
        self.port = ModbusTcpPort("127.0.0.1", 0, units, self.refresh, SystemClock())

    def refresh(self) -> None:
        self.refreshed += 1
        self.node.advance(0.1)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.port.start()
    yield bench
    await bench.port.stop()


@pytest.fixture
async def client(bench: Bench) -> AsyncIterator[AsyncModbusTcpClient]:
    client = AsyncModbusTcpClient("127.0.0.1", port=bench.port.port, timeout=0.2, retries=0)
    assert await client.connect()
    yield client
    client.close()


def floats(words: list[int]) -> tuple[float, ...]:
    return struct.unpack(f">{len(words) // 2}f", struct.pack(f">{len(words)}H", *words))


async def test_outlets_at_the_addresses_of_the_map(client: AsyncModbusTcpClient):
    one = await client.read_input_registers(1000, count=12, device_id=1)
    two = await client.read_input_registers(1020, count=2, device_id=1)
    assert floats(one.registers) == pytest.approx((15, 230, 15 / (230 * 0.98), 50, 0.98, 15 / 0.98))
    assert floats(two.registers) == (4.0,)


async def test_energy_counts_up_from_one_reading_to_the_next(client: AsyncModbusTcpClient):
    counts = []
    for _ in range(3):
        words = (await client.read_input_registers(1012, count=4, device_id=1)).registers
        counts.append(int.from_bytes(struct.pack(">4H", *words), "big"))
    assert counts == [1500, 3000, 4500]


async def test_one_request_may_span_outlets(client: AsyncModbusTcpClient, bench: Bench):
    words = (await client.read_input_registers(1000, count=40, device_id=1)).registers
    assert floats(words[:2]) + floats(words[20:22]) == (15.0, 4.0)
    assert bench.refreshed == 1


async def test_identification(client: AsyncModbusTcpClient):
    words = (await client.read_input_registers(0, count=12, device_id=1)).registers
    assert words[:3] == [0x574C, 1, 2]
    assert struct.pack(">8H", *words[4:]) == b"wattloop-pdu\0\0\0\0"


async def test_units_behind_one_port_are_told_apart(client: AsyncModbusTcpClient):
    words = (await client.read_input_registers(1000, count=2, device_id=7)).registers
    assert floats(words) == (4.0,)


@pytest.mark.parametrize("address", [12, 999, 1039, 1040, 65535])
async def test_addresses_outside_the_map_are_illegal(client: AsyncModbusTcpClient, address: int):
    answer = await client.read_input_registers(address, count=2 if address < 65535 else 1, device_id=1)
    assert (answer.isError(), answer.exception_code) == (True, 2)


async def test_other_functions_are_illegal(client: AsyncModbusTcpClient):
    read = await client.read_holding_registers(1000, count=2, device_id=1)
    written = await client.write_register(1000, 1, device_id=1)
    assert (read.exception_code, written.exception_code) == (1, 1)
    words = (await client.read_input_registers(1000, count=2, device_id=1)).registers
    assert floats(words) == (15.0,)


async def test_a_unit_that_is_not_there_stays_silent(client: AsyncModbusTcpClient):
    with pytest.raises(ModbusIOException, match="No response"):
        await client.read_input_registers(1000, count=2, device_id=2)


async def test_a_silent_unit_stays_silent_even_to_nonsense_and_comes_back(client: AsyncModbusTcpClient, bench: Bench):
    bench.pdu.fault = Fault.SILENT
    for address in (1000, 5):
        with pytest.raises(ModbusIOException, match="No response"):
            await client.read_input_registers(address, count=20, device_id=1)
    assert (await client.read_input_registers(1000, count=2, device_id=7)).registers
    bench.pdu.fault = None
    assert floats((await client.read_input_registers(1000, count=2, device_id=1)).registers) == (15.0,)


async def test_a_faulty_unit_answers_an_exception(client: AsyncModbusTcpClient, bench: Bench):
    bench.pdu.fault = Fault.EXCEPTION
    assert (await client.read_input_registers(1000, count=2, device_id=1)).exception_code == 4


async def test_a_taken_port_is_named(bench: Bench):
    second = ModbusTcpPort("127.0.0.1", bench.port.port, {1: bench.pdu}, bench.refresh, SystemClock())
    with pytest.raises(ListenError, match=rf"pdu-1: cannot listen on 127\.0\.0\.1:{bench.port.port}: address already"):
        await second.start()


async def test_stopping_twice_does_no_harm_and_frees_the_port(bench: Bench):
    await bench.port.stop()
    await bench.port.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", bench.port.port)
