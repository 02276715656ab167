import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from hil.clock import ManualClock
from hil.emulated.client import ControlClient, ControlRefused, ControlUnavailable
from hil.emulated.control import ControlServer
from hil.emulated.electrical import Quantity
from hil.emulated.listen import ListenError
from hil.emulated.load import ConstantLoad
from hil.emulated.messages import MAX_LINE, Get, Override, SetCap, SetFault, Unplug
from hil.emulated.modbusunit import Fault
from hil.emulated.node import EmulatedNode
from hil.emulated.pdu import EmulatedPdu
from hil.emulated.world import World


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.node = EmulatedNode("jetson-1", ConstantLoad(power_w=15.0).demand())
        self.world = World([self.node], self.clock)
        self.pdu = EmulatedPdu("pdu-1", {1: self.node})
        self.server = ControlServer("127.0.0.1", 0, self.world, {"pdu-1": self.pdu})
        self.world.advance()

    def client(self, timeout_s: float = 5.0) -> ControlClient:
        return ControlClient("127.0.0.1", self.server.port, timeout_s)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.server.start()
    yield bench
    await bench.server.stop()


@pytest.fixture
async def say(bench: Bench) -> AsyncIterator[Callable[[bytes], Awaitable[dict[str, object]]]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.server.port)

    async def say(line: bytes) -> dict[str, object]:
        writer.write(line + b"\n")
        answer = json.loads(await reader.readline())
        assert isinstance(answer, dict)
        return answer

    yield say
    writer.close()


async def test_get_tells_the_node_as_it_is_now(say, bench: Bench):
    await bench.clock.advance(2.0)
    answer = await say(b'{"op": "get", "node": "jetson-1"}')
    assert answer == {"node": {"power_w": 15.0, "energy_j": pytest.approx(30.0), "cap_w": None, "plugged": True}}


async def test_a_cap_is_set_and_lifted(say, bench: Bench):
    answer = await say(b'{"op": "set_cap", "node": "jetson-1", "cap_w": 7.5}')
    assert (answer["node"]["cap_w"], bench.node.power_w) == (7.5, 7.5)
    await say(b'{"op": "set_cap", "node": "jetson-1", "cap_w": null}')
    assert (bench.node.cap_w, bench.node.power_w) == (None, 15.0)


async def test_an_unplugged_node_takes_a_cap_in_vain(say):
    await say(b'{"op": "unplug", "node": "jetson-1"}')
    answer = await say(b'{"op": "set_cap", "node": "jetson-1", "cap_w": 7.5}')
    assert (answer["node"]["cap_w"], answer["node"]["power_w"]) == (7.5, 15.0)
    answer = await say(b'{"op": "plug", "node": "jetson-1"}')
    assert answer["node"]["power_w"] == 7.5


async def test_faults_and_overrides_reach_the_unit(say, bench: Bench):
    assert await say(b'{"op": "fault", "pdu": "pdu-1", "fault": "silent"}') == {}
    assert bench.pdu.fault is Fault.SILENT
    assert await say(b'{"op": "fault", "pdu": "pdu-1", "fault": null}') == {}
    assert bench.pdu.fault is None
    plain = bench.pdu.outlet_words(1)
    await say(b'{"op": "override", "pdu": "pdu-1", "outlet": 1, "quantity": "power_w", "value": 20}')
    assert bench.pdu.outlet_words(1) != plain
    await say(b'{"op": "override", "pdu": "pdu-1", "outlet": 1, "quantity": "power_w", "value": null}')
    assert bench.pdu.outlet_words(1) == plain


BAD_LINES = [
    b"",
    b"nonsense",
    b"\xff\xfe",
    b"[1]",
    b"{}",
    b'{"op": "explode", "node": "jetson-1"}',
    b'{"op": "get"}',
    b'{"op": "get", "node": "nobody"}',
    b'{"op": "get", "node": "jetson-1", "extra": 1}',
    b'{"op": "set_cap", "node": "jetson-1"}',
    b'{"op": "set_cap", "node": "jetson-1", "cap_w": -1}',
    b'{"op": "set_cap", "node": "jetson-1", "cap_w": NaN}',
    b'{"op": "set_cap", "node": "jetson-1", "cap_w": "7.5"}',
    b'{"op": "fault", "pdu": "nothing", "fault": null}',
    b'{"op": "fault", "pdu": "pdu-1", "fault": "fire"}',
    b'{"op": "override", "pdu": "pdu-1", "outlet": 2, "quantity": "power_w", "value": 1}',
    b'{"op": "override", "pdu": "pdu-1", "outlet": 1, "quantity": "power_w", "value": 1e39}',
    b'{"op": "override", "pdu": "pdu-1", "outlet": 1, "quantity": "energy_j", "value": -1}',
    b"[" * 4000,
]


@pytest.mark.parametrize("line", BAD_LINES)
async def test_a_bad_line_gets_an_error_and_changes_nothing(say, bench: Bench, line: bytes):
    answer = await say(line)
    assert answer.keys() == {"error"}
    assert (bench.node.cap_w, bench.pdu.fault) == (None, None)
    assert "node" in await say(b'{"op": "get", "node": "jetson-1"}')


async def test_an_endless_line_gets_an_error_and_the_door(bench: Bench):
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.server.port)
    writer.write(b"x" * (MAX_LINE + 1))
    assert b"at most 4096 bytes" in await reader.readline()
    assert await reader.read() == b""
    writer.close()


async def test_requests_in_one_packet_are_all_answered(bench: Bench):
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.server.port)
    writer.write(b'{"op": "get", "node": "jetson-1"}\nrubbish\n{"op": "unplug", "node": "jetson-1"}\n')
    answers = [json.loads(await reader.readline()) for _ in range(3)]
    assert [sorted(answer) for answer in answers] == [["node"], ["error"], ["node"]]
    writer.close()


async def test_the_client_asks_and_raises(bench: Bench):
    client = bench.client()
    answer = await client.request(SetCap(node="jetson-1", cap_w=7.5))
    assert answer.node is not None
    assert answer.node.cap_w == 7.5
    await client.request(Unplug(node="jetson-1"))
    await client.request(SetFault(pdu="pdu-1", fault=Fault.NAN))
    await client.request(Override(pdu="pdu-1", outlet=1, quantity=Quantity.POWER_W, value=1.0))
    with pytest.raises(ControlRefused, match="no node nobody here"):
        await client.request(Get(node="nobody"))
    await client.close()
    await client.close()


async def test_the_client_connects_anew_when_the_server_came_back(bench: Bench):
    client = bench.client()
    await client.request(Get(node="jetson-1"))
    await bench.server.stop()
    with pytest.raises(ControlUnavailable, match="connection refused"):
        await client.request(Get(node="jetson-1"))
    await bench.server.start()  # at the same port
    await client.request(Get(node="jetson-1"))
    await bench.server.stop()
    await bench.server.start()
    await client.request(Get(node="jetson-1"))
    await client.close()


@pytest.mark.parametrize(
    ("answer", "condition"),
    [(None, "no answer"), (b"", "closed"), (b"HTTP/1.1 400\r\n", "protocol"), (b"x" * 9000, "endless")],
)
async def test_a_server_that_is_none_is_named(answer: bytes | None, condition: str):
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is not None:
            await reader.readline()
            writer.write(answer)
        else:
            await reader.read()
        writer.close()
        ended.set()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    client = ControlClient("127.0.0.1", server.sockets[0].getsockname()[1], timeout_s=0.1 if answer is None else 5.0)
    with pytest.raises(ControlUnavailable, match=condition):
        await client.request(Get(node="jetson-1"))
    await client.close()
    server.close()
    await ended.wait()


async def test_a_cancelled_request_does_not_pass_its_answer_to_the_next(bench: Bench):
    client = bench.client()
    await client.request(Get(node="jetson-1"))
    asking = asyncio.create_task(client.request(SetCap(node="jetson-1", cap_w=1.0)))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    bench.node.cap_w = 2.0
    answer = await client.request(Get(node="jetson-1"))
    assert answer.node is not None
    assert answer.node.cap_w == bench.node.cap_w
    await client.close()


async def test_a_taken_port_is_named(bench: Bench):
    second = ControlServer("127.0.0.1", bench.server.port, bench.world, {})
    with pytest.raises(ListenError, match=r"control: cannot listen on 127\.0\.0\.1:\d+: address already in use"):
        await second.start()
