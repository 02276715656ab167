"""A pure-Python MQTT 3.1.1 broker in a process of its own, for machines without mosquitto.

    python -m hil.amqttd PORT

It listens on loopback, lets anyone in, keeps nothing on disk and publishes no ``$SYS`` topics. It needs the package
``amqtt`` (extra ``demo``), about 30 MB of memory, and carries some thousand messages a second: enough for a demo.
"""

import asyncio
import contextlib
import logging
import signal
import sys
from typing import Final

from amqtt.adapters import ReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig
from amqtt.errors import BrokerError

LOOPBACK: Final = "127.0.0.1"
MQTT_3_1_1: Final = 4
UNACCEPTABLE_VERSION: Final = b"\x20\x02\x00\x01"
SHUTDOWN_S: Final = 1.0


class Rewound(ReaderAdapter):  # type: ignore[misc]  # amqtt is untyped
    """A stream whose first bytes, read already, are read again."""

    def __init__(self, first: bytes, stream: asyncio.StreamReader) -> None:
        self._first = first
        self._stream = stream

    async def read(self, n: int = -1) -> bytes:
        """Exactly ``n`` bytes, or all there is."""
        if n < 0:
            n = len(self._first)
        again, self._first = self._first[:n], self._first[n:]
        return again + await self._stream.readexactly(n - len(again))

    def feed_eof(self) -> None:
        """Note that nothing more comes."""
        self._stream.feed_eof()


class VersionedBroker(Broker):  # type: ignore[misc]  # amqtt is untyped
    """amqtt that refuses MQTT 5 at once; left alone it reads such a CONNECT as 3.1.1 and waits for what never comes."""

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Serve a client, or tell it that its version is not spoken here."""
        try:
            first, level = await opening(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        if level == MQTT_3_1_1:
            await self.external_connected(Rewound(first, reader), StreamWriterAdapter(writer), listener_name)
            return
        writer.write(UNACCEPTABLE_VERSION)
        writer.close()


async def opening(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """The first bytes of a CONNECT packet and the protocol level in them."""
    head = await reader.readexactly(2)
    while head[-1] & 0x80 and len(head) < 5:  # the remaining length, seven bits a byte
        head += await reader.readexactly(1)
    name_length = await reader.readexactly(2)
    name_and_level = await reader.readexactly(int.from_bytes(name_length, "big") + 1)
    return head + name_length + name_and_level, name_and_level[-1]


async def serve(port: int) -> None:
    """Serve until SIGTERM or SIGINT. Raises BrokerError when the port cannot be had."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    config = BrokerConfig(
        listeners={"default": ListenerConfig(bind=f"{LOOPBACK}:{port}")},
        plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    )
    broker = VersionedBroker(config)
    await broker.start()
    await stop.wait()
    with contextlib.suppress(TimeoutError):  # clients that are slow to leave are left behind
        await asyncio.wait_for(broker.shutdown(), SHUTDOWN_S)


def main() -> int:
    """Entry point: 0 when stopped, 1 when the port is taken."""
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("amqtt.broker").setLevel(logging.CRITICAL)  # a taken port is told below, in one line
    try:
        asyncio.run(serve(int(sys.argv[1])))
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
