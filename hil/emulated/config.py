"""The file that describes an emulated world.

.. code-block:: yaml

    nodes:
      - name: jetson-1
        load: {kind: constant, power_w: 15}
        idle_w: 2.5
        max_w: 20
        lag_ms: 10
        noise_w: 0.1
        seed: 1
        journal: journal/jetson-1.csv     # relative to this file; none: no journal
    pdus:
      - name: pdu-1
        port: 5020                        # 0: a free one
        unit: 1
        outlets: {1: jetson-1}
    control: {port: 5021}

Sections ``pdus`` and ``units`` show nodes through Modbus (``hil.emulated.unitconfig``); ``rapl`` makes trees of files
that show a node as its kernel would (``hil.emulated.sysfs.config``).
"""

from pathlib import Path
from typing import Annotated

import msgspec

from hil.emulated.load import Load, Power
from hil.emulated.node import NodeTraits
from hil.emulated.sysfs import RaplConfig
from hil.emulated.unitconfig import PduConfig, Port, ProfileUnitConfig, check_units
from hil.wire import Name
from hil.yamlfile import Document, Section, load


class NodeConfig(Section, frozen=True, kw_only=True):
    """An emulated node. ``lag_ms`` is the time constant with which power follows; 0: at once."""

    name: Name
    load: Load
    idle_w: Power = 0.0
    max_w: Annotated[float, msgspec.Meta(gt=0, le=1e9)] = 1e9
    lag_ms: Annotated[float, msgspec.Meta(ge=0, le=3.6e6)] = 10.0
    noise_w: Power = 0.0
    seed: int = 0
    journal: str | None = None

    def __post_init__(self) -> None:
        if self.idle_w > self.max_w:
            raise ValueError(f"expected idle_w at most max_w, not {self.idle_w:g} and {self.max_w:g}")

    @property
    def traits(self) -> NodeTraits:
        """How the node behaves."""
        return NodeTraits(self.idle_w, self.max_w, self.lag_ms / 1000, self.noise_w, self.seed)


class ControlConfig(Section, frozen=True, kw_only=True):
    """Where the control socket listens."""

    host: str = "127.0.0.1"
    port: Port = 0


class EmulationConfig(Section, frozen=True, kw_only=True):
    """An emulated world."""

    nodes: Annotated[tuple[NodeConfig, ...], msgspec.Meta(min_length=1)]
    pdus: tuple[PduConfig, ...] = ()
    units: tuple[ProfileUnitConfig, ...] = ()
    rapl: tuple[RaplConfig, ...] = ()
    control: ControlConfig = ControlConfig()


def load_emulation(path: Path) -> Document[EmulationConfig]:
    """The world a file describes. Raises ConfigError with every fault."""
    document = load(path, EmulationConfig)
    world = document.value
    _refuse_twins(document, "nodes", [node.name for node in world.nodes])
    names = {node.name for node in world.nodes}
    _refuse_twins(document, "pdus", [pdu.name for pdu in world.pdus])
    _refuse_twins(document, "units", [unit.name for unit in (*world.pdus, *world.units)], len(world.pdus))
    check_units(world.pdus, world.units, names, document)
    _check_trees(document, names)
    document.check()
    return document


def _check_trees(document: Document[EmulationConfig], nodes: set[str]) -> None:
    trees = document.value.rapl
    _refuse_twins(document, "rapl", [tree.name for tree in trees])
    roots = [document.resolve(tree.root) for tree in trees]
    for index, tree in enumerate(trees):
        if tree.node not in nodes:
            document.add(("rapl", index, "node"), tree.node, "expected the name of a node above")
        if roots[index] in roots[:index]:
            document.add(("rapl", index, "root"), tree.root, "expected a folder that no other tree has")


def _refuse_twins(document: Document[EmulationConfig], section: str, names: list[str], before: int = 0) -> None:
    """Note names that come twice; the first ``before`` of them stand in another section."""
    for index, name in enumerate(names):
        if index >= before and name in names[:index]:
            document.add((section, index - before, "name"), name, "expected each name once")
