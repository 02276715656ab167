import asyncio
import contextlib

import pytest

from agent.mailbox import Mailbox, reading
from hil.bus import Inbound, MemoryBroker, MemoryBus
from hil.clock import ManualClock, settle
from hil.wire import Heartbeat, encode


async def test_messages_go_to_the_handler_of_their_topic_and_nonsense_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, broker = ManualClock(), MemoryBroker()
    bus, sender = MemoryBus(broker, clock.monotonic), MemoryBus(broker, clock.monotonic)
    beats: list[Heartbeat] = []
    raw: list[Inbound] = []
    mailbox = Mailbox(bus, {"beat": reading(Heartbeat, beats.append), "raw": raw.append})
    mailbox.subscribe()
    bus.subscribe("other")
    await bus.start()
    await sender.start()
    task = asyncio.create_task(mailbox.run())
    sender.publish("beat", encode(Heartbeat(epoch=1, count=2)))
    sender.publish("raw", b"\x00")
    for _ in range(50):
        sender.publish("beat", b"{}")
        sender.publish("beat", b"x" * 100_000)
        sender.publish("other", b"")
    sender.publish("beat", encode(Heartbeat(epoch=1, count=3)))
    await settle()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert [beat.count for beat in beats] == [2, 3]
    assert [message.payload for message in raw] == [b"\x00"]
    assert mailbox.refused == {"malformed": 50, "too_large": 50, "unknown_topic": 50}
    assert len(caplog.messages) == 3
