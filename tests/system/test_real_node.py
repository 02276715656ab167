"""This machine as a node: a load of its own, paused through broker, agent and lease, and a meter that shows it."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from hil.brokerconfig import BrokerConfig
from hil.clock import SystemClock
from hil.mqtt import MqttBus
from hil.wire import (
    Ack,
    AckState,
    Action,
    Birth,
    Command,
    Data,
    Heartbeat,
    LimitState,
    Record,
    Target,
    Topics,
    Verb,
    decode,
    encode,
)

pytestmark = pytest.mark.system

AGENT = Path(sys.executable).with_name("wattloop-agent")
PATIENCE_S = 30.0
# Full load is 100 W, so that a power in W is a load in percent.
CONFIG = """\
site: {site}
node: here
broker: {{url: "{url}"}}
state_dir: state
mode: act
interval_s: 0.1
meters:
  - {{name: host, kind: cpu, idle_w: 0, max_w: 100, trust: good}}
actuators:
  - {{name: stress, kind: workload, argv: [{agent}, burn, --profile, stress]}}
"""


class Lab:
    """The coordinator's end."""

    def __init__(self, url: str, site: str) -> None:
        self.topics = Topics(site)
        self.node = self.topics.node("here")
        self.bus = MqttBus(BrokerConfig(url=url), f"{site}-lab", SystemClock())
        self.acks: list[Ack] = []
        self.records: list[Record] = []
        self.births: list[Birth] = []
        self.limits: list[LimitState] = []
        self._seq = 0

    async def listen(self) -> None:
        while True:
            for message in await self.bus.receive():
                if message.topic == self.node.cmd_ack:
                    self.acks.append(decode(message.payload, Ack))
                elif message.topic == self.node.data:
                    self.records += decode(message.payload, Data).r
                elif message.topic == self.node.birth:
                    self.births.append(decode(message.payload, Birth))
                elif message.topic == self.node.limit:
                    self.limits.append(decode(message.payload, LimitState))

    async def order(self, verb: Verb | None) -> Ack:
        """Say what to do with the stress test, None: release; the answer that it is done."""
        self._seq += 1
        command = Command(
            id=f"{self.topics.site}-{self._seq}",
            issuer="lab",
            epoch=1,
            seq=self._seq,
            target=Target(node="here", actuator="stress"),
            action=Action.RELEASE if verb is None else Action.WORKLOAD,
            workload=verb,
            issued_at=datetime.now(UTC),
            ttl_s=300,
            reason="test",
        )
        self.bus.publish(self.topics.heartbeat, encode(Heartbeat(epoch=1, count=self._seq)))
        self.bus.publish(self.node.cmd, encode(command))
        done = {AckState.APPLIED, AckState.RELEASED, AckState.REJECTED, AckState.FAILED}
        await until(lambda: any(ack.id == command.id and ack.state in done for ack in self.acks))
        return next(ack for ack in self.acks if ack.id == command.id and ack.state in done)

    async def load(self, samples: int = 12) -> float:
        """The machine's load in percent, measured from here on: the median of so many samples."""
        first = len(self.records) + 2  # those under way are of before
        await until(lambda: len(self.records) >= first + samples)
        return statistics.median(
            r.w for r in self.records[first : first + samples] if r.w is not None and r.q == "good"
        )


@asynccontextmanager
async def listening(url: str, site: str) -> AsyncIterator[Lab]:
    lab = Lab(url, site)
    lab.bus.subscribe(f"{lab.topics.root}/node/#")
    await lab.bus.start()
    await lab.bus.wait_connected()
    task = asyncio.create_task(lab.listen())
    yield lab
    task.cancel()
    await asyncio.wait({task})
    await lab.bus.stop()


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def status(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([AGENT, "status", "--config", config, "--json"], capture_output=True, text=True, timeout=30)


def burners(agent: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that burn: the load's, one a core, and their parent."""
    return [p for p in psutil.Process(agent.pid).children(recursive=True) if "burn" in p.cmdline()[2:3]]


def busy_s(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


async def test_a_pause_is_a_throttle_and_the_meter_shows_it(tmp_path: Path, mosquitto_url: str) -> None:
    site = f"real-{uuid.uuid4().hex[:8]}"
    config = tmp_path / "agent.yaml"
    config.write_text(CONFIG.format(site=site, url=mosquitto_url, agent=AGENT))
    async with listening(mosquitto_url, site) as lab:
        agent = subprocess.Popen(  # noqa: ASYNC220
            [AGENT, "run", "--config", config], stderr=subprocess.PIPE, text=True
        )
        try:
            await until(lambda: lab.births)
            assert lab.births[-1].actuators[0].actions == ["workload", "release"]
            before = await lab.load()

            assert (await lab.order(Verb.START)).state is AckState.APPLIED
            cores = len(os.sched_getaffinity(0))
            await until(lambda: len(burners(agent)) == cores + 1)
            processes = burners(agent)
            began = busy_s(processes)
            burning = await lab.load()
            assert busy_s(processes) > began + 0.3

            assert (await lab.order(Verb.PAUSE)).detail == "paused"
            held = busy_s(processes)
            paused = await lab.load()
            assert busy_s(processes) == held
            assert lab.limits[-1].note == "paused"
            report = json.loads((await asyncio.to_thread(status, config)).stdout)
            assert report["lease_state"] == "controlled"
            assert report["actuators"][0]["leases"][0]["action"] == "workload"

            assert (await lab.order(Verb.RESUME)).state is AckState.APPLIED
            again = await lab.load()
            assert busy_s(processes) > held + 0.3

            await lab.order(None)
            await until(lambda: not any(process.is_running() for process in processes))
        finally:
            agent.terminate()
            _, log = await asyncio.to_thread(agent.communicate, timeout=20)
        assert agent.returncode == 0, log
        assert "Traceback" not in log
    if cores < (os.cpu_count() or cores) or max(before, paused) > 60:
        pytest.skip(f"others keep this machine busy ({before:.0f} %, {paused:.0f} %): the load alone was checked")
    assert burning > paused + 20
    assert again > paused + 20
