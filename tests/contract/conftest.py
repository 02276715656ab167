"""Worlds of buses: the same promises are tried in memory, through mosquitto and through amqtt."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest

from hil.broker import EmbeddedBroker
from hil.bus import Bus, MemoryBroker, MemoryBus, Will
from hil.clock import SystemClock
from hil.mqtt import BrokerConfig, MqttBus


class World(ABC):
    """A broker, and buses that go to it; everything ends with the test."""

    name: str
    has_dollar_topics = True

    def __init__(self) -> None:
        self.buses: list[Bus] = []

    async def bus(self, client_id: str, will: Will | None = None) -> Bus:
        """A bus that is not started."""
        bus = await self.make(client_id, will)
        self.buses.append(bus)
        return bus

    async def started(self, client_id: str, *filters: str, will: Will | None = None) -> Bus:
        """A bus that is connected and subscribed."""
        bus = await self.bus(client_id, will)
        for topic_filter in filters:
            bus.subscribe(topic_filter)
        await bus.start()
        await bus.wait_connected()
        return bus

    @abstractmethod
    async def make(self, client_id: str, will: Will | None) -> Bus:
        """A bus to this world's broker; one with a will can be cut."""

    @abstractmethod
    async def cut(self, bus: Bus) -> None:
        """Pull the cable of one bus."""

    @abstractmethod
    async def break_down(self) -> None:
        """Kill the broker."""

    @abstractmethod
    async def come_back(self) -> None:
        """Start the broker again, where it was."""

    async def close(self) -> None:
        """Stop everything."""
        for bus in self.buses:
            await bus.stop()


class MemoryWorld(World):
    """No broker process, one event loop."""

    name = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.broker = MemoryBroker()
        self.clock = SystemClock()

    async def make(self, client_id: str, will: Will | None) -> Bus:
        return MemoryBus(self.broker, self.clock.monotonic, will)

    async def cut(self, bus: Bus) -> None:
        assert isinstance(bus, MemoryBus)
        bus.cut()

    async def break_down(self) -> None:
        for bus in self.buses:
            await self.cut(bus)
        self.broker.retained.clear()

    async def come_back(self) -> None:
        for bus in self.buses:
            assert isinstance(bus, MemoryBus)
            bus.reconnect()


class Cable:
    """A TCP connection to a broker that can be pulled."""

    def __init__(self, port: int) -> None:
        self.url = ""
        self._broker_port = port
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def lay(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def pull(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._broker_port)
        self._writers += [writer, broker_writer]
        await asyncio.gather(_pump(reader, broker_writer), _pump(broker_reader, writer))
        broker_writer.close()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


class MqttWorld(World):
    """A broker process of its own; a bus with a will reaches it through a cable that can be pulled."""

    def __init__(self, kind: Literal["mosquitto", "amqtt"], directory: Path) -> None:
        super().__init__()
        self.name = kind
        self.has_dollar_topics = kind == "mosquitto"  # amqtt drops the client that publishes one
        self.broker = EmbeddedBroker(directory, prefer=kind)
        self.broker.start()
        self.cables: dict[int, Cable] = {}

    async def make(self, client_id: str, will: Will | None) -> Bus:
        if will is None:
            return MqttBus(BrokerConfig(url=self.broker.url), client_id, SystemClock())
        cable = Cable(int(self.broker.url.rpartition(":")[2]))
        await cable.lay()
        bus = MqttBus(BrokerConfig(url=cable.url), client_id, SystemClock(), will)
        self.cables[id(bus)] = cable
        return bus

    async def cut(self, bus: Bus) -> None:
        self.cables[id(bus)].pull()

    async def break_down(self) -> None:
        self.broker.kill()

    async def come_back(self) -> None:
        self.broker.start()

    async def close(self) -> None:
        await super().close()
        for cable in self.cables.values():
            cable.pull()
        self.broker.stop()


@pytest.fixture(params=["memory", "mosquitto", "amqtt"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A world of each kind in turn."""
    if request.param == "memory":
        made: World = MemoryWorld()
    else:
        if request.param == "mosquitto":
            request.getfixturevalue("mosquitto")
        made = MqttWorld(request.param, tmp_path / "a broker")
    try:
        yield made
    finally:
        await made.close()
