"""A laboratory of real processes: a broker, emulated nodes behind a PDU, their agents, and a coordinator."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import yaml

from hil.broker import EmbeddedBroker, free_port
from hil.rig import Part, Rig, script

PATIENCE_S = 30.0
SPEED = 10.0
METER_INTERVAL_S = 0.1  # as long as a step in real time
NAMEPLATE_W = 20.0
LOAD_W = 15.0
LIMIT_W = 7.5
TERMINAL = {"released", "expired", "superseded", "rejected", "failed"}


class Step(NamedTuple):
    """A microgrid's step: what went in for its node, and what came out."""

    k: int
    kind: str
    power_w: float
    quality: str
    source: str
    dt_s: float
    p_battery_w: float
    p_grid_w: float
    soc: float


class Acked(NamedTuple):
    """An agent's word on a command."""

    command_id: str
    state: str


class Recorded:
    """A run's ledger through plain SQL, also while it is being written."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query; none where there is no ledger yet."""
        path = self.run_dir / "ledger.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
            try:
                return connection.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # opened between its making and its first transaction
                    return []
                raise

    def steps(self, microgrid: str = "jetson-1") -> list[Step]:
        """A microgrid's steps, in order; its node has the microgrid's name."""
        return [
            Step(*row)
            for row in self.rows(
                "SELECT k, kind, power_w, quality, source, dt_s, p_battery_w, p_grid_w, soc "
                "FROM steps JOIN inputs USING (k, microgrid) WHERE microgrid = ? AND actor = microgrid ORDER BY k",
                microgrid,
            )
        ]

    def measured_w(self, count: int, microgrid: str = "jetson-1") -> list[float]:
        """The newest measured powers that went into steps."""
        return [step.power_w for step in self.steps(microgrid) if step.source == "measured"][-count:]

    def kinds(self, microgrid: str | None = None) -> list[str]:
        """The kinds of event so far; of one microgrid, or of the run."""
        rows = self.rows("SELECT kind, microgrid.name FROM event LEFT JOIN microgrid ON microgrid.id = microgrid")
        return [kind for kind, name in rows if microgrid is None or name == microgrid]

    def details(self, kind: str) -> list[str]:
        """What the events of a kind say."""
        return [detail for (detail,) in self.rows("SELECT detail FROM event WHERE kind = ? ORDER BY id", kind)]

    def commands(self, node: str = "jetson-1") -> list[tuple[str, str, float | None]]:
        """Id, action and limit of each command of a node, renewals too, in order."""
        return self.rows(
            "SELECT command_id, action, limit_w FROM command JOIN node ON node.id = node WHERE node.name = ? "
            "ORDER BY command.id",
            node,
        )

    def acks(self) -> list[Acked]:
        """The agents' words, in order."""
        return [Acked(*row) for row in self.rows("SELECT command_id, state FROM ack ORDER BY id")]

    def effects(self, node: str = "jetson-1") -> list[tuple[str, float]]:
        """What the meter showed of a node's limits."""
        return self.rows(
            "SELECT effect, measured_w FROM effect JOIN command USING (command_id) JOIN node ON node.id = node "
            "WHERE node.name = ? ORDER BY effect.id",
            node,
        )

    def epochs(self, node: str = "jetson-1") -> list[int]:
        """The epochs of a node's commands, each once, in order."""
        rows = self.rows(
            "SELECT message FROM command JOIN node ON node.id = node WHERE node.name = ? ORDER BY command.id", node
        )
        return list(dict.fromkeys(json.loads(message)["epoch"] for (message,) in rows))

    def last_words(self) -> dict[str, list[str]]:
        """The terminal states of each command."""
        words: dict[str, list[str]] = {command_id: [] for (command_id,) in self.rows("SELECT command_id FROM command")}
        for ack in self.acks():
            if ack.state in TERMINAL and ack.command_id in words:
                words[ack.command_id].append(ack.state)
        return words

    def samples(self) -> tuple[int, int]:
        """How many samples are stored, and how many different ones."""
        [(stored, different)] = self.rows("SELECT count(*), count(DISTINCT stream || ':' || seq) FROM sample")
        return stored, different


class Lab:
    """One loop in a folder of its own. Steps of 1 simulated second take 0.1 s; a rule limits every node to 7.5 W.

    Ports stay the same over restarts. Whatever is started ends with the rig.
    """

    def __init__(self, folder: Path, rig: Rig, broker: EmbeddedBroker, nodes: Sequence[str]) -> None:
        self.folder = folder
        self.rig = rig
        self.broker = broker
        self.nodes = nodes
        self.run = Recorded(folder / "run")
        self.scenario = folder / "scenario.yaml"
        self.report = folder / "report.out"
        self.agents: dict[str, Part] = {}
        self._pdu_port, self._control_port = free_port(), free_port()

    # --- files --------------------------------------------------------------------------------------------------------

    def write_scenario(self, limit_after_s: float | None = 3.0) -> None:
        """A microgrid per node; the limit comes so many real seconds after the start, at 20:00, or never."""
        early = timedelta(seconds=SPEED * (limit_after_s or 0.0))
        scenario = {
            "name": "bench",
            "site": "lab",
            "broker": {"url": self.broker.url},
            "start": (datetime(2026, 6, 21, 20, tzinfo=UTC) - early).isoformat(),
            "interval_s": 1,
            "speed": SPEED,
            "microgrids": [self._microgrid(node) for node in self.nodes],
            "controllers": [] if limit_after_s is None else [self._saving(node) for node in self.nodes],
        }
        self.scenario.write_text(yaml.safe_dump(scenario, sort_keys=False))

    def _microgrid(self, node: str) -> dict[str, Any]:
        actor = {"kind": "node", "node": node, "nameplate_w": NAMEPLATE_W, "meters": [f"{node}/outlet"]}
        battery = {"kind": "lossless", "capacity_wh": 10, "soc": 0.9}
        return {"name": node, "actors": [actor], "storage": battery, "grid": {}}

    def _saving(self, node: str) -> dict[str, Any]:
        evening = {"time": {"from": "20:00", "to": "23:00"}}
        limit = {"do": "limit", "node": node, "limit_w": LIMIT_W}
        return {"microgrid": node, "rules": [{"name": "saving", "when": evening, "then": [limit]}]}

    def write_agent(self, node: str) -> Path:
        """The configuration of a node's agent."""
        outlet = self.nodes.index(node) + 1
        meter = {"name": "outlet", "kind": "modbus", "host": "127.0.0.1", "port": self._pdu_port, "unit": 1}
        board = {"name": "board", "kind": "emulated", "node": node, "port": self._control_port, "min_w": 5, "max_w": 20}
        config = {
            "site": "lab",
            "node": node,
            "broker": {"url": self.broker.url},
            "state_dir": f"agent-{node}",
            "mode": "act",
            "interval_s": METER_INTERVAL_S,
            "nameplate_w": NAMEPLATE_W,
            "meters": [meter | {"profile": "wattloop-pdu", "outlet": outlet}],
            "actuators": [board],
        }
        path = self.folder / f"{node}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return path

    # --- processes ----------------------------------------------------------------------------------------------------

    async def start(self, *options: str) -> Part:
        """Everything; the coordinator with ``options``."""
        await self.emulate()
        for node in self.nodes:
            await self.agent(node)
        return await self.coordinate(*options)

    async def emulate(self) -> Part:
        """The nodes and their PDU."""
        traits = {"load": {"kind": "constant", "power_w": LOAD_W}, "idle_w": 2.5, "max_w": NAMEPLATE_W}
        nodes = [{"name": node, "lag_ms": 10, "noise_w": 0.05} | traits for node in self.nodes]
        pdu = {"name": "pdu-1", "port": self._pdu_port, "outlets": dict(enumerate(self.nodes, 1))}
        world = {"nodes": nodes, "pdus": [pdu], "control": {"port": self._control_port}}
        (self.folder / "world.yaml").write_text(yaml.safe_dump(world))
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        command = [script("wattloop-hil"), "emulate", self.folder / "world.yaml", "--ready-file", ready]
        part = await self.rig.start("emulated", command)
        await self.rig.wait_file(part, ready, PATIENCE_S)
        return part

    async def agent(self, node: str = "jetson-1") -> Part:
        """A node's agent."""
        command = [script("wattloop-agent"), "run", "--config", self.write_agent(node)]
        self.agents[node] = await self.rig.start(f"agent-{node}", command)
        return self.agents[node]

    async def coordinate(self, *options: str, name: str = "", state: str = "state") -> Part:
        """The coordinator; with a name another one, which keeps a run of its own."""
        folders = ["--run-dir", self.folder / f"run{name}", "--state-dir", self.folder / state]
        command = [script("wattloop-coordinator"), "run", self.scenario, *folders, "--json", *options]
        return await self.rig.start(f"coordinator{name}", command, stdout=self.report if not name else None)

    async def finish(self, coordinator: Part, steps: int) -> dict[str, Any]:
        """Let a run of so many steps come to its end, the agents after it; the coordinator's summary."""
        await self.until(
            lambda: self.run.steps(self.nodes[0])[-1].k == steps - 1 and all(self.run.last_words().values())
        )
        await asyncio.gather(*(self.rig.end(agent, PATIENCE_S) for agent in self.agents.values()))
        assert await asyncio.wait_for(coordinator.process.wait(), PATIENCE_S) == 0, self.logs()
        summary: dict[str, Any] = json.loads(self.report.read_text().splitlines()[-1])
        return summary

    async def kill(self, part: Part) -> None:
        """End a part as a crash does."""
        part.process.send_signal(signal.SIGKILL)
        await part.process.wait()

    # --- the world ----------------------------------------------------------------------------------------------------

    async def say(self, **request: object) -> dict[str, Any]:
        """What the emulated world answers on its control socket."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._control_port)
        writer.write(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await asyncio.wait_for(reader.readline(), PATIENCE_S))
        writer.close()
        assert "error" not in answer, answer
        return answer

    async def cap_w(self, node: str = "jetson-1") -> float | None:
        """What a node is capped to, by its own word."""
        cap_w: float | None = (await self.say(op="get", node=node))["node"]["cap_w"]
        return cap_w

    async def until(self, holds: Callable[[], object], within_s: float = PATIENCE_S) -> None:
        """Return once ``holds``; fails with what the parts have said when it takes too long."""
        deadline = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {within_s:g} s\n{self.logs()}")
            await asyncio.sleep(0.05)

    def logs(self) -> str:
        """Everything that the parts have said."""
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted((self.folder / "logs").iterdir()))

    def complaints(self) -> str:
        """The tracebacks among it."""
        return "" if "Traceback" not in (said := self.logs()) else said


MakeLab = Callable[..., Any]


@asynccontextmanager
async def make_lab(folder: Path, *nodes: str) -> AsyncIterator[Lab]:
    """A laboratory whose broker runs, and whose scenario is written."""
    async with EmbeddedBroker(folder / "broker") as broker, Rig(folder / "logs") as rig:
        lab = Lab(folder, rig, broker, nodes)
        lab.write_scenario()
        yield lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """A laboratory of one node, jetson-1."""
    async with make_lab(tmp_path, "jetson-1") as made:
        yield made
        assert not made.complaints()


@pytest.fixture(scope="session")
def new_lab() -> MakeLab:
    """``async with new_lab(folder, *nodes)``: a laboratory that a test makes for itself."""
    return make_lab


class Watch:
    """Knows every process that descends from those started with its environment, also if it was left behind."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}-{time.monotonic_ns()}"

    @property
    def environment(self) -> dict[str, str]:
        """Start processes with this."""
        return os.environ | {"WATTLOOP_TEST_MARK": self._mark}

    def alive(self) -> list[str]:
        """The command lines of those that live."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("WATTLOOP_TEST_MARK") == self._mark:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:  # gone, a zombie, or not ours
                continue
        return found

    def none_left(self, within_s: float) -> bool:
        """Whether all have ended within the time."""
        deadline = time.monotonic() + within_s
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


@pytest.fixture
def watch() -> Iterator[Watch]:
    """A watch on what a test starts; nothing may be left of it in the end."""
    made = Watch()
    yield made
    assert made.none_left(within_s=5.0), made.alive()


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def command() -> Command:
    """``command("wattloop-agent", "run", …)``: what a program said, and how it ended."""

    def run(program: str, *arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        argv = [Path(sys.executable).parent / program, *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=cwd)

    return run
