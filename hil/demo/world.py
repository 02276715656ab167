"""What the demonstration runs on: the emulated nodes and the agents' configurations, written into the run's folder.

Every node of the scenario gets an agent. The one named ``this-machine`` measures this machine by its load; every other
node is emulated behind a metered PDU, drawing 75 % of its nameplate power until it is limited.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import yaml

from hil.emulated.ready import read_ready
from hil.rig import RigError
from hil.wire import Name
from hil.yamlfile import ConfigError, Fault

THIS_MACHINE: Final = "this-machine"
METER_INTERVAL_S: Final = 0.04
LOAD_SHARE: Final = 0.75
PDU: Final = "pdu-1"


class ActorSketch(msgspec.Struct):
    """As much of a scenario's actor as the demonstration needs."""

    kind: str = ""
    node: Name | None = None
    nameplate_w: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    meters: list[str] = []

    def meter(self, usual: str) -> str:
        """What its agent should call its meter: as the scenario does, if it does."""
        agents = (path.partition("/") for path in self.meters)
        return next((meter for agent, _, meter in agents if agent == self.node), usual)


class MicrogridSketch(msgspec.Struct):
    """As much of a microgrid."""

    actors: list[ActorSketch] = []


class ScenarioSketch(msgspec.Struct):
    """As much of a scenario; the coordinator checks the whole of it."""

    interval_s: Annotated[float, msgspec.Meta(gt=0)]
    site: Name = "lab"
    speed: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    microgrids: list[MicrogridSketch] = []

    def nodes(self) -> Iterator[ActorSketch]:
        """The scenario's nodes, each once."""
        seen = set()
        for microgrid in self.microgrids:
            for actor in microgrid.actors:
                if actor.kind == "node" and actor.node is not None and actor.node not in seen:
                    seen.add(actor.node)
                    yield actor


@dataclass(slots=True)
class World:
    """The files of a demonstration; ``agents`` maps nodes to their agents' configurations."""

    scenario: Path
    site: str
    interval_s: float
    speed: float
    run_dir: Path
    url: str
    emulated: Path | None = None
    agents: dict[str, Path] = field(default_factory=dict)
    _sketches: list[ActorSketch] = field(default_factory=list)

    @property
    def ready(self) -> Path:
        """Where the emulated world says where its ports are."""
        return self.run_dir / "emulated.ready.json"

    def connect(self) -> None:
        """Write the agents' configurations, now that the emulated world's ports are known."""
        ready = read_ready(self.ready) if self.emulated is not None else None
        for outlet, sketch in enumerate(_emulated(self._sketches), 1):
            if ready is None:
                raise RigError(f"{self.ready} is missing")
            place = ready.pdus[PDU]
            meter = {
                "name": sketch.meter("outlet"),
                "kind": "modbus",
                "host": place.host,
                "port": place.port,
                "unit": place.unit or 1,
            }
            board = {"name": "board", "kind": "emulated", "node": sketch.node, "host": ready.control.host}
            bounds = {"port": ready.control.port, "min_w": 0.25 * sketch.nameplate_w, "max_w": sketch.nameplate_w}
            self._write_agent(sketch, meter | {"profile": "wattloop-pdu", "outlet": outlet}, [board | bounds])
        for sketch in self._sketches:
            if sketch.node == THIS_MACHINE:
                line = {"idle_w": 0.2 * sketch.nameplate_w, "max_w": sketch.nameplate_w}
                self._write_agent(sketch, {"name": sketch.meter("cpu"), "kind": "cpu"} | line, [])

    def _write_agent(self, sketch: ActorSketch, meter: dict[str, Any], actuators: list[dict[str, Any]]) -> None:
        node = str(sketch.node)
        config = {
            "site": self.site,
            "node": node,
            "broker": {"url": self.url},
            "state_dir": str(self.run_dir / f"agent-{node}"),
            "mode": "act",
            "interval_s": METER_INTERVAL_S,
            "nameplate_w": sketch.nameplate_w,
            "meters": [meter],
            "actuators": actuators,
        }
        path = self.run_dir / f"agent-{node}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        self.agents[node] = path


def lay_out(scenario: Path, run_dir: Path, url: str) -> World:
    """Write the emulated world of a scenario's nodes into ``run_dir``. Raises ConfigError."""
    sketch = _sketch(scenario)
    world = World(scenario, sketch.site, sketch.interval_s, sketch.speed, run_dir, url)
    world._sketches = list(sketch.nodes())
    nodes = [
        {
            "name": node.node,
            "load": {"kind": "constant", "power_w": LOAD_SHARE * node.nameplate_w},
            "idle_w": 0.1 * node.nameplate_w,
            "max_w": node.nameplate_w,
            "lag_ms": 10,
            "noise_w": 0.005 * node.nameplate_w,
            "seed": seed,
            "journal": str(run_dir / f"journal-{node.node}.csv"),
        }
        for seed, node in enumerate(_emulated(world._sketches), 1)
    ]
    if nodes:
        outlets = {outlet: node["name"] for outlet, node in enumerate(nodes, 1)}
        config = {"nodes": nodes, "pdus": [{"name": PDU, "outlets": outlets}]}
        world.emulated = run_dir / "emulated.yaml"
        world.emulated.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return world


def _emulated(sketches: list[ActorSketch]) -> list[ActorSketch]:
    return [sketch for sketch in sketches if sketch.node != THIS_MACHINE]


def _sketch(scenario: Path) -> ScenarioSketch:
    try:
        return msgspec.convert(yaml.safe_load(scenario.read_text(encoding="utf-8")), ScenarioSketch)
    except OSError as error:
        raise ConfigError([Fault(str(scenario), None, "file", "unreadable", str(error.strerror))]) from error
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        fault = Fault(str(scenario), None, "scenario", " ".join(str(error).split()), "see wattloop-coordinator check")
        raise ConfigError([fault]) from error
