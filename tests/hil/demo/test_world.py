from pathlib import Path

import pytest
import yaml

from agent.config import load_setup
from hil.clock import SystemClock
from hil.demo.world import lay_out
from hil.emulated.config import load_emulation
from hil.emulated.ready import Place, Ready, write_ready
from hil.rig import RigError
from hil.yamlfile import ConfigError

URL = "mqtt://127.0.0.1:20123"
SCENARIO = """\
name: x
site: attic
interval_s: 60
speed: 30
signals: {sun: {kind: constant, value: 1, unit: W}}
microgrids:
  - name: a
    actors:
      - {kind: node, node: jetson-1, nameplate_w: 20, meters: [gateway/slot, jetson-1/psu]}
      - {kind: node, node: jetson-2, nameplate_w: 40}
      - {kind: constant, name: panel, role: producer, power_w: 10}
  - name: b
    actors:
      - {kind: node, node: this-machine, nameplate_w: 100}
      - {kind: node, node: jetson-1, nameplate_w: 20}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


def ready(run_dir: Path) -> None:
    places = {"pdu-1": Place(host="127.0.0.1", port=5020, unit=1)}
    write_ready(
        run_dir / "emulated.ready.json",
        Ready(pid=1, control=Place(host="127.0.0.1", port=5021), pdus=places, journals={}),
    )


def test_every_node_but_this_machine_is_emulated_behind_an_outlet(scenario: Path, tmp_path: Path) -> None:
    world = lay_out(scenario, tmp_path, URL)
    assert (world.site, world.interval_s, world.speed) == ("attic", 60.0, 30.0)
    assert world.emulated is not None
    config = load_emulation(world.emulated).value
    assert [(node.name, node.max_w, node.load.power_w) for node in config.nodes] == [
        ("jetson-1", 20.0, 15.0),
        ("jetson-2", 40.0, 30.0),
    ]
    assert config.pdus[0].outlets == {1: "jetson-1", 2: "jetson-2"}
    assert all(Path(node.journal).parent == tmp_path for node in config.nodes)


def test_every_node_gets_an_agent_that_may_act_on_it(scenario: Path, tmp_path: Path) -> None:
    world = lay_out(scenario, tmp_path, URL)
    ready(tmp_path)
    world.connect()
    assert list(world.agents) == ["jetson-1", "jetson-2", "this-machine"]
    setups = {node: load_setup(path, SystemClock()) for node, path in world.agents.items()}
    assert [(setup.config.site, setup.config.node, setup.broker.url) for setup in setups.values()] == [
        ("attic", "jetson-1", URL),
        ("attic", "jetson-2", URL),
        ("attic", "this-machine", URL),
    ]
    assert {setup.config.mode for setup in setups.values()} == {"act"}
    assert [meter.name for setup in setups.values() for meter in setup.meters] == ["psu", "outlet", "cpu"]
    assert [actuator.name for actuator in setups["jetson-2"].actuators] == ["board"]
    assert setups["this-machine"].actuators == ()


def test_this_machine_alone_needs_no_emulation(scenario: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(SCENARIO)
    document["microgrids"] = [{"name": "a", "actors": [{"kind": "node", "node": "this-machine", "nameplate_w": 50}]}]
    scenario.write_text(yaml.safe_dump(document))
    world = lay_out(scenario, tmp_path, URL)
    world.connect()
    assert world.emulated is None
    assert list(world.agents) == ["this-machine"]


def test_agents_wait_for_the_emulation_s_ports(scenario: Path, tmp_path: Path) -> None:
    world = lay_out(scenario, tmp_path, URL)
    with pytest.raises(RigError, match=r"emulated\.ready\.json is missing"):
        world.connect()


@pytest.mark.parametrize("text", ["", "interval_s: -1\n", "interval_s: 60\nsite: NOT A NAME\n", "a: [\n"])
def test_what_makes_no_scenario_is_a_fault(text: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match="see wattloop-coordinator check"):
        lay_out(tmp_path / "s.yaml", tmp_path, URL)
