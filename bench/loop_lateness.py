"""How late the live loop is: steps of 1 s in real time, bus and ledger on, 1 and 100 nodes that each send 1 sample/s.

The coordinator runs as users run it, over mosquitto on loopback; a publisher stands in for the agents, their seconds
spread over the second. At the same time, half a second out of step, a bare asyncio loop with absolute deadlines runs
in a process of its own: what it is late is the machine's doing.

    python bench/loop_lateness.py [--runs 3] [--seconds 60]

prints one JSON line, lateness in ms: medians over the runs with the spread (lowest and highest run); ``over_bare`` is
the difference of the 95th percentiles, run by run. Exits with 1 where that is more than promised.
"""

import argparse
import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import yaml
from measure import machine, medians, percentile

from hil.broker import EmbeddedBroker
from hil.brokerconfig import BrokerConfig
from hil.clock import SystemClock
from hil.devices import Quality
from hil.mqtt import MqttBus
from hil.tether import tethered
from hil.units import MICROSECONDS_PER_SECOND
from hil.wire import Birth, Data, MeterInfo, NodeState, Presence, Record, Topics, encode

STEP_S = 1.0
PROMISED_MS = {1: 2.0, 100: 5.0}
TOPICS = Topics("bench")
METER = "outlet"
WARM_UP_STEPS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description="lateness of the live loop beside a bare deadline loop")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=60, help="steps per run")
    parser.add_argument("--role", choices=["bare", "publisher"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--nodes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "bare":
        print(json.dumps(asyncio.run(bare(options.seconds))))
        return 0
    if options.role == "publisher":
        asyncio.run(publish(options.url, options.nodes))
        return 0
    found: dict[int, list[dict[str, float]]] = {nodes: [] for nodes in PROMISED_MS}
    for _ in range(options.runs):
        for nodes, runs in found.items():
            runs.append(run(nodes, options.seconds))
    figures = {f"nodes_{nodes}": medians(runs) | {"promised": PROMISED_MS[nodes]} for nodes, runs in found.items()}
    scale = {"runs": options.runs, "seconds": options.seconds, "unit": "ms"}
    print(json.dumps({"bench": "loop_lateness", **scale, **figures, "machine": machine()}))
    return 0 if all(kept(figure) for figure in figures.values()) else 1


def kept(figure: dict[str, object]) -> bool:
    """Whether a promise held in the median run."""
    over_bare, promised = figure["over_bare"], figure["promised"]
    assert isinstance(over_bare, float)
    assert isinstance(promised, float)
    return over_bare <= promised


def run(nodes: int, seconds: int) -> dict[str, float]:
    """One run: ms of lateness of the loop and of the bare loop beside it."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as name, ExitStack() as stack:
        folder = Path(name)
        broker = stack.enter_context(EmbeddedBroker(folder / "broker", prefer="mosquitto"))
        start(stack, [sys.executable, __file__, "--role", "publisher", "--url", broker.url, "--nodes", str(nodes)])
        scenario = folder / "scenario.yaml"
        scenario.write_text(yaml.safe_dump(day(broker.url, nodes)))
        command = [str(Path(sys.executable).with_name("wattloop-coordinator")), "run", str(scenario)]
        command += ["--run-dir", str(folder / "run"), "--state-dir", str(folder), "--duration", str(seconds)]
        coordinator = start(stack, command)
        await_first_step(coordinator, folder)
        time.sleep(STEP_S / 2)
        beside = start(stack, [sys.executable, __file__, "--role", "bare", "--seconds", str(seconds - WARM_UP_STEPS)])
        out, _ = beside.communicate()
        assert coordinator.wait() == 0
        loop_ms, steps_ms = lateness(folder)
    bare_ms = [1e3 * late_s for late_s in json.loads(out)]
    p95, bare_p95 = percentile(loop_ms, 0.95), percentile(bare_ms, 0.95)
    figures = {"p50": percentile(loop_ms, 0.5), "p95": p95, "max": max(loop_ms), "over_bare": p95 - bare_p95}
    figures |= {"bare_p50": percentile(bare_ms, 0.5), "bare_p95": bare_p95, "bare_max": max(bare_ms)}
    return figures | {"step_p95": percentile(steps_ms, 0.95)}


def start(stack: ExitStack, command: list[str]) -> "subprocess.Popen[str]":
    """Run a process until the stack unwinds."""
    process = subprocess.Popen(tethered(command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    stack.enter_context(process)
    stack.callback(process.terminate)
    return process


def day(url: str, nodes: int) -> dict[str, object]:
    """A scenario of one microgrid in which all nodes draw."""
    actors = [
        {"kind": "node", "node": node_name(number), "nameplate_w": 20, "meters": [f"{node_name(number)}/{METER}"]}
        for number in range(nodes)
    ]
    battery = {"kind": "lossless", "capacity_wh": 1000.0 * nodes, "soc": 0.5}
    microgrid = {"name": "bench", "actors": actors, "storage": battery, "grid": {}}
    return {
        "name": "bench",
        "site": TOPICS.site,
        "broker": {"url": url},
        "interval_s": STEP_S,
        "microgrids": [microgrid],
    }


def node_name(number: int) -> str:
    return f"node-{number}"


def await_first_step(coordinator: "subprocess.Popen[str]", folder: Path) -> None:
    deadline = time.monotonic() + 30.0
    while not times(folder):
        assert coordinator.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def times(folder: Path) -> list[tuple[float, float]]:
    """Lateness and computing time of each step on record, in s."""
    path = folder / "run" / "ledger.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as ledger:
        try:
            return ledger.execute("SELECT lateness_s, compute_s FROM step_time ORDER BY k").fetchall()
        except sqlite3.OperationalError:  # being made
            return []


def lateness(folder: Path) -> tuple[list[float], list[float]]:
    """Lateness and computing time of each step after the first few, in ms."""
    late, computed = zip(*times(folder)[WARM_UP_STEPS:], strict=True)
    return [1e3 * seconds for seconds in late], [1e3 * seconds for seconds in computed]


# --- in processes of their own ----------------------------------------------------------------------------------------


async def bare(steps: int) -> list[float]:
    """Seconds by which a loop that does nothing else wakes late."""
    start = time.monotonic()
    late = []
    for k in range(1, steps + 1):
        deadline = start + k * STEP_S
        await asyncio.sleep(deadline - time.monotonic())
        late.append(time.monotonic() - deadline)
    return late


async def publish(url: str, nodes: int) -> None:
    """Send what so many agents send, for ever."""
    bus = MqttBus(BrokerConfig(url=url), "agents", SystemClock())
    await bus.start()
    await bus.wait_connected()
    for number in range(nodes):
        topics = TOPICS.node(node_name(number))
        bus.publish(topics.birth, encode(birth(number)), retain=True)
        bus.publish(topics.state, encode(NodeState(state=Presence.READY, session=1)), retain=True)
    started = time.monotonic()
    seq = 0
    while True:
        seq += 1
        for number in range(nodes):
            await asyncio.sleep(started + seq + number / nodes - time.monotonic())
            t_us = time.time_ns() * MICROSECONDS_PER_SECOND // 1_000_000_000
            record = Record(seq, t_us, METER, 15.0 + number / nodes, None, 0, Quality.GOOD)
            bus.publish(TOPICS.node(node_name(number)).data, encode(Data(stream=stream(number), r=[record])))


def birth(number: int) -> Birth:
    """The least that an agent says of itself."""
    node = node_name(number)
    return Birth(
        node=node,
        version="bench",
        boot_id="bench",
        stream=stream(number),
        epoch=0,
        mode="observe",
        nameplate_w=20.0,
        failsafe="release",
        sync="tick",
        clock_synchronised=None,
        meters=[MeterInfo(name=METER, kind="bench", measures=node, interval_s=STEP_S)],
    )


def stream(number: int) -> str:
    return f"{number:016x}"


if __name__ == "__main__":
    sys.exit(main())
