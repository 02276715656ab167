"""How many samples a second one core takes in: received, decoded, committed with fsync, and acknowledged.

Two subjects take turns, each in a process of its own on one core, fed with the same messages through the same broker
by a publisher on the other core that sends on as its samples are acknowledged:

- ``ours``: bus, ingest and ledger of the coordinator as it runs, 20 agents;
- ``bare``: paho, a typed decode and an insert into the same table in series, committed every 50 ms.

    python bench/ingest.py [--runs 5] [--seconds 3]

prints one JSON line: samples a second of wall time and of the subject's own CPU time, medians over the runs with the
spread (lowest and highest run), for 1 and for 100 samples a message, and ours as a share of bare, run by run.
"""

import argparse
import asyncio
import json
import os
import select
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from coordinator.ingest import Ingest
from coordinator.ledger import Ledger
from hil.broker import EmbeddedBroker
from hil.brokerconfig import BrokerConfig
from hil.clock import SystemClock
from hil.devices import Quality
from hil.mqtt import MqttBus
from hil.wire import Data, DataAck, Record, Topics, encode

SITE = "bench"
TOPICS = Topics(SITE)
NODES = [f"node-{number}" for number in range(20)]
STREAM = "0123456789abcdef"
WARM_UP_S = 1.0
COMMIT_S = 0.05
UNDERWAY = {1: 150, 100: 30}
"""Messages an agent sends beyond the last acknowledged one."""


def main() -> None:
    parser = argparse.ArgumentParser(description="samples a second of one core, beside bare paho and SQLite")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--role", choices=["ours", "bare", "publisher"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "ours":
        asyncio.run(ours(options.url, options.seconds))
    elif options.role == "bare":
        bare(options.url, options.seconds)
    elif options.role == "publisher":
        publish(options.url, options.batch)
    else:
        print(json.dumps({"bench": "ingest", **measure(options.runs, options.seconds)}))


# --- the measurement --------------------------------------------------------------------------------------------------


def measure(runs: int, seconds: float) -> dict[str, object]:
    figures: dict[str, object] = {"runs": runs, "cores": os.cpu_count()}
    for batch in (1, 100):
        found: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
        for run in range(runs):
            for role in ("ours", "bare") if run % 2 else ("bare", "ours"):
                found[role].append(one_run(role, batch, seconds))
        figures[f"batch_{batch}"] = {
            "ours": summary(found["ours"]),
            "bare": summary(found["bare"]),
            **{
                f"share_{kind}": spread(
                    [mine[kind] / theirs[kind] for mine, theirs in zip(found["ours"], found["bare"], strict=True)], 3
                )
                for kind in ("per_s", "per_cpu_s")
            },
        }
    return figures


def one_run(role: str, batch: int, seconds: float) -> dict[str, float]:
    """A fresh broker, subject and publisher; what the subject says of its measured seconds."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder), prefer="mosquitto") as broker:
        options = ["--url", broker.url, "--batch", str(batch), "--seconds", str(seconds)]
        with (
            spawn([*options, "--role", role], stdout=subprocess.PIPE) as subject,
            spawn([*options, "--role", "publisher"]) as publisher,
        ):
            said, _ = subject.communicate()
            publisher.kill()
    result: dict[str, float] = json.loads(said)
    return result


def spawn(options: list[str], **kwargs: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, __file__, *options], **kwargs)


def summary(results: list[dict[str, float]]) -> dict[str, object]:
    return {kind: spread([result[kind] for result in results], 0) for kind in ("per_s", "per_cpu_s")}


def spread(values: list[float], digits: int) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), digits),
        "low": round(min(values), digits),
        "high": round(max(values), digits),
    }


def use_core(last: bool) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1] if last else cores[0]})


def figures(samples: int, wall_s: float, cpu_s: float) -> str:
    return json.dumps({"per_s": samples / wall_s, "per_cpu_s": samples / cpu_s})


# --- ours -------------------------------------------------------------------------------------------------------------


async def ours(url: str, seconds: float) -> None:
    use_core(last=False)
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder), clock)
        await ledger.open()
        bus = MqttBus(BrokerConfig(url=url), "coordinator", clock)
        ingest = Ingest(SITE, NODES, ledger, bus, clock)
        ingest.start()
        await bus.start()
        taking = asyncio.create_task(ingest.run())
        while not ledger.counters.samples:  # noqa: ASYNC110  # a benchmark may poll
            await asyncio.sleep(0.01)
        await asyncio.sleep(WARM_UP_S)
        before, wall, cpu = ledger.counters.samples, time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        after = ledger.counters.samples
        print(figures(after - before, time.perf_counter() - wall, time.process_time() - cpu), flush=True)
        taking.cancel()
        await bus.stop()
        await ledger.close()


# --- bare -------------------------------------------------------------------------------------------------------------


class Bare:
    """What anybody would write in an afternoon, and fast: no checks, no duplicates, no names, no live view."""

    def __init__(self, path: Path) -> None:
        self.committed = 0
        self._decoder = msgspec.json.Decoder(Data)
        self._qualities = {quality: code for code, quality in enumerate(Quality)}
        self._meters = {"outlet-1": 1}
        self._nodes = {TOPICS.node(node).data: node for node in NODES}
        self._upto = dict.fromkeys(NODES, 0)
        self._waiting = 0
        self._due = 0.0
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE sample (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, seq INTEGER NOT NULL, "
            "meter INTEGER NOT NULL, t_us INTEGER NOT NULL, power_w REAL, energy_j REAL, "
            "energy_epoch INTEGER NOT NULL, quality INTEGER NOT NULL, hist INTEGER NOT NULL, "
            "arrived_us INTEGER NOT NULL)"
        )

    def on_message(self, client: Client, _userdata: object, message: MQTTMessage) -> None:
        data = self._decoder.decode(message.payload)
        node = self._nodes[message.topic]
        if not self._waiting:
            self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT INTO sample (stream, seq, meter, t_us, power_w, energy_j, energy_epoch, quality, hist, arrived_us) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (1, r.seq, self._meters[r.meter], r.t_us, r.w, r.e_j, r.e_epoch, self._qualities[r.q], 0, 0)
                for r in data.r
            ],
        )
        self._waiting += len(data.r)
        self._upto[node] = data.r[-1].seq
        now = time.monotonic()
        if now >= self._due:
            self._due = now + COMMIT_S
            self._connection.execute("COMMIT")
            self.committed += self._waiting
            self._waiting = 0
            for node, upto in self._upto.items():
                client.publish(TOPICS.node(node).data_ack, encode(DataAck(stream=STREAM, upto=upto)), qos=1)


def bare(url: str, seconds: float) -> None:
    use_core(last=False)
    with tempfile.TemporaryDirectory() as folder:
        taker = Bare(Path(folder) / "bare.db")
        client = Client(CallbackAPIVersion.VERSION2, "bare", protocol=MQTTProtocolVersion.MQTTv5)
        client.on_message = taker.on_message
        client.on_socket_open = lambda _client, _userdata, sock: sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        client.on_connect = lambda client, *_: client.subscribe(TOPICS.node("+").data, qos=1)
        parts = urlsplit(url)
        client.connect(parts.hostname or "", parts.port or 1883)
        loop_until(client, lambda: taker.committed > 0)
        warm = time.perf_counter() + WARM_UP_S
        loop_until(client, lambda: time.perf_counter() >= warm)
        before, wall, cpu = taker.committed, time.perf_counter(), time.process_time()
        loop_until(client, lambda: time.perf_counter() - wall >= seconds)
        print(figures(taker.committed - before, time.perf_counter() - wall, time.process_time() - cpu), flush=True)


def loop_until(client: Client, over: Any) -> None:
    while not over():
        client.loop(0.1)


# --- the publisher ----------------------------------------------------------------------------------------------------


class Agent:
    """One node's messages, made beforehand in a round and sent with fresh numbers as acknowledgements come."""

    def __init__(self, node: str, batch: int) -> None:
        self.acked = 0
        self._sent = 0
        self._batch = batch
        self._topic = TOPICS.node(node).data.encode()
        self._encoder = msgspec.json.Encoder()

    def due(self) -> Iterator[bytes]:
        """PUBLISH packets, as many as may be under way."""
        while self._sent - self.acked < UNDERWAY[self._batch] * self._batch:
            t_us = time.time_ns() // 1000
            records = [
                Record(seq, t_us, "outlet-1", 15.0 + seq % 97 / 97, 1.5 * seq, 0, Quality.GOOD)
                for seq in range(self._sent + 1, self._sent + self._batch + 1)
            ]
            self._sent += self._batch
            packet_id = self._sent // self._batch % 65_535 + 1
            yield publish_packet(self._topic, packet_id, self._encoder.encode(Data(stream=STREAM, r=records)))


def publish_packet(topic: bytes, packet_id: int, payload: bytes) -> bytes:
    """MQTT 3.1.1 PUBLISH at QoS 1 (OASIS MQTT 3.1.1, 3.3)."""
    body = len(topic).to_bytes(2, "big") + topic + packet_id.to_bytes(2, "big") + payload
    length, remaining = bytearray(), len(body)
    while True:
        length.append(remaining & 0x7F | (0x80 if remaining > 0x7F else 0))
        remaining >>= 7
        if not remaining:
            return b"\x32" + bytes(length) + body


def publish(url: str, batch: int) -> None:
    """Send without a client library: it would be the bottleneck."""
    use_core(last=True)
    parts = urlsplit(url)
    agents = {TOPICS.node(node).data_ack: Agent(node, batch) for node in NODES}
    follow_acks(parts.hostname or "", parts.port or 1883, agents)
    with socket.create_connection((parts.hostname, parts.port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x00\x00\x06agents")
        threading.Thread(target=drain, args=(sock,), daemon=True).start()
        await_subscriber(sock, agents)
        while True:
            packets = [packet for agent in agents.values() for packet in agent.due()]
            if packets:
                sock.sendall(b"".join(packets))
            else:
                time.sleep(0.001)


def await_subscriber(sock: socket.socket, agents: dict[str, Agent]) -> None:
    """Send one round again and again, until the subject is there to acknowledge it."""
    first = b"".join(next(agent.due()) for agent in agents.values())
    while not all(agent.acked for agent in agents.values()):
        sock.sendall(first)
        time.sleep(0.1)


def drain(sock: socket.socket) -> None:
    while select.select([sock], [], []) and sock.recv(65_536):
        pass


def follow_acks(host: str, port: int, agents: dict[str, Agent]) -> None:
    decoder = msgspec.json.Decoder(DataAck)

    def on_message(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        agents[message.topic].acked = decoder.decode(message.payload).upto

    client = Client(CallbackAPIVersion.VERSION2, "acks", protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = on_message
    client.on_connect = lambda client, *_: client.subscribe(TOPICS.node("+").data_ack, qos=1)
    client.connect(host, port)
    client.loop_start()


if __name__ == "__main__":
    main()
