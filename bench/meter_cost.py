"""What a reading costs beside the bare floor, and what fifty devices cost an agent.

Readings: the emulated PDU in a process of its own, over Modbus TCP and over RTU behind a converter's port. A meter and
a bare pymodbus client ask for the same words in turn, batch by batch; per reading, CPU time of this process and wall
time, medians over the batches.

Fifty devices: as many units on ports of their own, read at 1 Hz by one real agent over mosquitto; CPU time of the
agent's process from /proc, and the samples that carry no value.

    python bench/meter_cost.py [--batches 30] [--readings 200] [--devices 50] [--seconds 30]

prints one JSON line.
"""

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from agent_cost import PATIENCE_S, SETTLING_S, Coordinator, cpu_s, memory, script
from measure import machine
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer import FramerType

from agent.meters.modbus import ModbusBuses, ModbusMeter, ModbusMeterConfig, plan_of
from hil.broker import EmbeddedBroker
from hil.clock import SystemClock
from hil.devices import Quality
from hil.emulated.ready import Place, Ready, read_ready
from hil.tether import tethered
from hil.yamlfile import Document

FRAMERS = {"socket": FramerType.SOCKET, "rtu": FramerType.RTU}
OUTLET_WORDS = (1000, 16)


@contextmanager
def emulated(folder: Path, world: str) -> Iterator[Ready]:
    (folder / "world.yaml").write_text(world)
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


def meter_of(place: Place) -> ModbusMeter:
    options: dict[str, Any] = {"host": place.host, "port": place.port, "framing": place.framing}
    options |= {"name": "m", "kind": "modbus", "profile": "wattloop-pdu", "outlet": 1, "unit": place.unit}
    config = msgspec.convert(options, ModbusMeterConfig)
    clock = SystemClock()
    plan = plan_of(config, Document(Path("bench.yaml")), ())
    assert plan is not None
    return ModbusMeter(config, plan, ModbusBuses(clock), clock)


async def batch(read: Callable[[], Awaitable[None]], readings: int) -> tuple[float, float]:
    """CPU and wall time per reading, in µs."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(readings):
        await read()
    return (time.process_time() - cpu) * 1e6 / readings, (time.perf_counter() - wall) * 1e6 / readings


async def readings(place: Place, batches: int, count: int) -> dict[str, object]:
    meter = meter_of(place)
    await meter.open()
    client = AsyncModbusTcpClient(place.host, port=place.port, framer=FRAMERS[place.framing], timeout=5, retries=0)
    assert await client.connect()

    async def ours() -> None:
        reading = await meter.read()
        assert reading.quality is Quality.GOOD, reading

    async def bare() -> None:
        address, words = OUTLET_WORDS
        answer = await client.read_input_registers(address, count=words, device_id=place.unit or 1)
        assert not answer.isError()

    for read in (ours, bare):
        await batch(read, count)
    taken = [(await batch(ours, count), await batch(bare, count)) for _ in range(batches)]
    await meter.close()
    client.close()
    columns = {
        "cpu_us": [one[0] for one, _ in taken],
        "bare_cpu_us": [other[0] for _, other in taken],
        "wall_us": [one[1] for one, _ in taken],
        "bare_wall_us": [other[1] for _, other in taken],
        "cpu_ratio": [one[0] / other[0] for one, other in taken],
        "wall_ratio": [one[1] / other[1] for one, other in taken],
    }
    return {name: round(statistics.median(values), 2) for name, values in columns.items()} | {
        "cpu_ratio_spread": [round(min(columns["cpu_ratio"]), 2), round(max(columns["cpu_ratio"]), 2)]
    }


def cost_of_readings(batches: int, count: int) -> dict[str, object]:
    world = (
        "nodes: [{name: n, load: {kind: constant, power_w: 15}}]\n"
        "pdus: [{name: tcp, outlets: {1: n}}, {name: rtu, framing: rtu, outlets: {1: n}}]\n"
    )
    with tempfile.TemporaryDirectory() as folder, emulated(Path(folder), world) as ready:
        return {name: asyncio.run(readings(ready.pdus[name], batches, count)) for name in ("tcp", "rtu")}


def cost_of_devices(devices: int, seconds: float) -> dict[str, object]:
    """One agent with so many devices, each on a port of its own, at 1 Hz."""
    names = [f"d-{n}" for n in range(devices)]
    nodes = "".join(f"- {{name: {name}, load: {{kind: constant, power_w: 15}}, noise_w: 0.1}}\n" for name in names)
    pdus = "".join(f"- {{name: {name}, outlets: {{1: {name}}}}}\n" for name in names)
    with (
        tempfile.TemporaryDirectory() as name,
        emulated(Path(name), f"nodes:\n{nodes}pdus:\n{pdus}") as ready,
        tempfile.TemporaryDirectory() as broker_folder,
        EmbeddedBroker(Path(broker_folder)) as broker,
    ):
        coordinator = Coordinator(broker.url)
        config = Path(name) / "agent.yaml"
        head = f'site: bench\nnode: gateway\nbroker: {{url: "{broker.url}"}}\nstate_dir: state\nmeters:\n'
        config.write_text(head + "".join(line(unit, place) for unit, place in ready.pdus.items()))
        agent = subprocess.Popen([script("wattloop-agent"), "run", "--config", str(config)])
        started = time.monotonic()
        while coordinator.first is None:
            assert agent.poll() is None
            assert time.monotonic() - started < PATIENCE_S
            time.sleep(0.01)
        time.sleep(SETTLING_S)
        before, began, sampled = cpu_s(agent.pid), time.monotonic(), coordinator.samples
        time.sleep(seconds)
        core, passed = cpu_s(agent.pid) - before, time.monotonic() - began
        samples = coordinator.samples - sampled
        rss_mib, threads = memory(agent.pid)
        agent.send_signal(signal.SIGTERM)
        assert agent.wait() == 0
        coordinator.stop()
    return {
        "devices": devices,
        "core_percent": round(100 * core / passed, 2),
        "rss_mib": round(rss_mib, 1),
        "threads": threads,
        "samples_per_s": round(samples / passed, 2),
        "missing": coordinator.missing,
    }


def line(unit: str, place: Place) -> str:
    where = f"host: {place.host}, port: {place.port}, profile: wattloop-pdu, outlet: 1"
    return f"  - {{name: {unit}, kind: modbus, {where}, measures: {unit}}}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--readings", type=int, default=200)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    result: dict[str, object] = {"bench": "meter_cost", "machine": machine()}
    result["reading"] = cost_of_readings(arguments.batches, arguments.readings)
    result["agent"] = cost_of_devices(arguments.devices, arguments.seconds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
