"""What an agent costs: CPU, memory and start, with four Modbus meters at 1 Hz and at 10 Hz.

Real processes over mosquitto on loopback: an emulated PDU with four outlets, an agent that reads them, and a paho
client that acknowledges the samples as a coordinator does. The cost is the agent's own: user and system time of all
its threads from /proc, after a settling time, and its resident memory at the end.

    python bench/agent_cost.py [--runs 3] [--seconds 20]

prints one JSON line: medians over the runs, with the spread (lowest and highest run).
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hil.broker import EmbeddedBroker
from hil.emulated.ready import Ready, read_ready
from hil.tether import tethered
from hil.wire import Data, DataAck, Topics, decode, encode

WORLD = """
nodes:
  - {name: n-1, load: {kind: constant, power_w: 15}, noise_w: 0.1, seed: 1}
  - {name: n-2, load: {kind: constant, power_w: 20}, noise_w: 0.1, seed: 2}
  - {name: n-3, load: {kind: constant, power_w: 30}, noise_w: 0.1, seed: 3}
  - {name: n-4, load: {kind: constant, power_w: 60}, noise_w: 0.1, seed: 4}
pdus: [{name: pdu-1, port: 0, unit: 1, outlets: {1: n-1, 2: n-2, 3: n-3, 4: n-4}}]
control: {port: 0}
"""
METERS = 4
TOPICS = Topics("bench")
NODE = TOPICS.node("gateway")
SETTLING_S = 3.0
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Cost:
    """One run: share of a core, resident memory, time from start to the first sample on disk and on the wire."""

    core_percent: float
    rss_mib: float
    threads: int
    first_sample_s: float
    samples: int
    missing: int


class Coordinator:
    """Acknowledges every sample, and counts them."""

    def __init__(self, url: str) -> None:
        self.samples = self.missing = 0
        self.first: float | None = None
        self._upto: dict[str, int] = {}
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.on_connect = self._connected
        self.client.on_message = self._message
        host, _, port = url.removeprefix("mqtt://").partition(":")
        self.client.connect(host, int(port))
        self.client.loop_start()

    def _connected(self, client: Client, _: object, __: ConnectFlags, ___: ReasonCode, ____: Properties | None) -> None:
        client.subscribe(NODE.data, 1)

    def _message(self, client: Client, _: object, message: MQTTMessage) -> None:
        data = decode(message.payload, Data)
        self.first = self.first or time.monotonic()
        self.samples += len(data.r)
        self.missing += sum(record.w is None for record in data.r)
        upto = self._upto[data.stream] = max(self._upto.get(data.stream, 0), data.r[-1].seq)
        client.publish(NODE.data_ack, encode(DataAck(stream=data.stream, upto=upto)), 1)

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def emulated(folder: Path) -> Iterator[Ready]:
    (folder / "world.yaml").write_text(WORLD)
    path = folder / "ready.json"
    command = [script("wattloop-hil"), "emulate", str(folder / "world.yaml"), "--ready-file", str(path)]
    process = subprocess.Popen(tethered(command), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while (ready := read_ready(path)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield ready
    finally:
        process.terminate()
        process.wait()


def configuration(folder: Path, url: str, ready: Ready, interval_s: float) -> Path:
    pdu = ready.pdus["pdu-1"]
    lines = ["site: bench", "node: gateway", f'broker: {{url: "{url}"}}', "state_dir: state", "meters:"]
    for outlet in range(1, METERS + 1):
        where = f"host: 127.0.0.1, port: {pdu.port}, profile: wattloop-pdu, outlet: {outlet}"
        lines.append(f"  - {{name: outlet-{outlet}, kind: modbus, {where}, measures: n-{outlet}}}")
    path = folder / "agent.yaml"
    path.write_text("\n".join([*lines, f"interval_s: {interval_s}", ""]))
    return path


def measure(url: str, interval_s: float, seconds: float) -> Cost:
    """One agent's cost over ``seconds``."""
    with tempfile.TemporaryDirectory() as name, emulated(Path(name)) as ready:
        coordinator = Coordinator(url)
        config = configuration(Path(name), url, ready, interval_s)
        started = time.monotonic()
        agent = subprocess.Popen([script("wattloop-agent"), "run", "--config", str(config)], stderr=subprocess.DEVNULL)
        while coordinator.first is None:
            assert agent.poll() is None
            assert time.monotonic() - started < PATIENCE_S
            time.sleep(0.002)
        time.sleep(SETTLING_S)
        before, began = cpu_s(agent.pid), time.monotonic()
        time.sleep(seconds)
        core = (cpu_s(agent.pid) - before) / (time.monotonic() - began)
        rss_mib, threads = memory(agent.pid)
        agent.send_signal(signal.SIGTERM)
        assert agent.wait() == 0
        coordinator.stop()
        first = coordinator.first - started
        return Cost(100 * core, rss_mib, threads, first, coordinator.samples, coordinator.missing)


def cpu_s(pid: int) -> float:
    """User and system time of a process in s, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> tuple[float, int]:
    """Resident memory in MiB, and the number of threads."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])


def script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def median(costs: Sequence[Cost], field: str) -> dict[str, float]:
    values = [getattr(cost, field) for cost in costs]
    return {"median": round(statistics.median(values), 3), "low": round(min(values), 3), "high": round(max(values), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    result: dict[str, object] = {"bench": "agent_cost", "meters": METERS, "runs": arguments.runs}
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder)) as broker:
        for rate_hz in (1, 10):
            costs = [measure(broker.url, 1 / rate_hz, arguments.seconds) for _ in range(arguments.runs)]
            result[f"{rate_hz}_hz"] = {
                field: median(costs, field)
                for field in ("core_percent", "rss_mib", "threads", "first_sample_s", "missing")
            }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
