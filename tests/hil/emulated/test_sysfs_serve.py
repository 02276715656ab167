import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hil.clock import ManualClock, settle
from hil.emulated.client import ControlClient, ControlRefused
from hil.emulated.config import EmulationConfig, load_emulation
from hil.emulated.messages import Reset
from hil.emulated.serve import Emulation
from hil.emulated.sysfs import TreeError
from hil.yamlfile import ConfigError

WORLD = """\
nodes: [{name: a, load: {kind: constant, power_w: 15}, lag_ms: 0}]
pdus: [{name: p, outlets: {1: a}}]
rapl:
  - {name: r, node: a, root: sys}
  - {name: s, node: b, root: sys, vendor: amd}
"""


def emulation(root: Path, clock: ManualClock, **rapl: Any) -> Emulation:
    config = {
        "nodes": [{"name": "a", "load": {"kind": "constant", "power_w": 15}, "lag_ms": 0}],
        "rapl": [{"name": "r", "node": "a", "root": "sys", "refresh_ms": 10} | rapl],
    }
    return Emulation(msgspec.convert(config, EmulationConfig), clock, {}, {"r": root})


def count_uj(root: Path) -> int:
    return int((root / "class/powercap/intel-rapl:0/energy_uj").read_text())


async def test_counters_follow_the_node_start_anew_when_told_and_go_with_the_emulation(tmp_path: Path):
    clock, root = ManualClock(), tmp_path / "sys"
    world = emulation(root, clock)
    ready = await world.start()
    assert ready.rapl == {"r": str(root)}
    stop = asyncio.Event()
    running = asyncio.create_task(world.run_until(stop))
    await settle()
    await clock.advance(2.0)
    assert count_uj(root) == pytest.approx(30e6, rel=1e-5)
    client = ControlClient("127.0.0.1", ready.control.port)
    await client.request(Reset(rapl="r"))
    assert count_uj(root) == 0
    with pytest.raises(ControlRefused, match="no rapl x here"):
        await client.request(Reset(rapl="x"))
    await client.close()
    stop.set()
    await running
    await world.stop()
    assert list(root.iterdir()) == []


async def test_a_folder_of_somebody_else_stops_the_start(tmp_path: Path):
    (tmp_path / "precious").write_text("data")
    with pytest.raises(TreeError, match="not empty"):
        await emulation(tmp_path, ManualClock()).start()


def test_all_faults_of_trees_are_told_at_once(tmp_path: Path):
    path = tmp_path / "world.yaml"
    path.write_text(WORLD)
    with pytest.raises(ConfigError) as refused:
        load_emulation(path)
    assert [(fault.key, fault.line) for fault in refused.value.faults] == [("rapl[1].node", 5), ("rapl[1].root", 5)]
