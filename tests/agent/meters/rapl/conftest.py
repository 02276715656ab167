"""An emulated machine whose powercap tree follows a clock that a test moves."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from agent.meters.rapl import RaplMeter, RaplMeterConfig
from hil.clock import ManualClock
from hil.emulated.load import ConstantLoad
from hil.emulated.node import EmulatedNode, NodeTraits
from hil.emulated.sysfs import EmulatedPowercap, RaplConfig, Tree
from hil.emulated.world import World

NOBODY = 65534


class EagerClock(ManualClock):
    """Who sleeps lets the time pass himself."""

    async def sleep_until(self, deadline: float) -> None:
        await self.advance(max(0.0, deadline - self.monotonic()))


class Machine:
    """A node that draws ``power_w``, and the files that show it."""

    def __init__(self, root: Path, power_w: float = 100.0, **layout: object) -> None:
        self.clock = EagerClock()
        self.root = root
        node = EmulatedNode("server-1", ConstantLoad(power_w=power_w).demand(), NodeTraits(max_w=400.0))
        self.world = World([node], self.clock)
        self.world.advance()
        config = msgspec.convert({"name": "rapl-1", "node": "server-1", "root": str(root)} | layout, RaplConfig)
        self.tree = EmulatedPowercap(config, Tree(root), node)
        self.tree.begin()

    @property
    def powercap(self) -> Path:
        return self.root / "class/powercap"

    async def run(self, seconds: float) -> None:
        """Let time pass."""
        await self.clock.advance(seconds)
        self.refresh()

    def refresh(self) -> None:
        self.world.advance()
        self.tree.show()

    def meter(self, interval_s: float = 1.0, **config: object) -> RaplMeter:
        entry = {"kind": "rapl", "name": "cpu"} | config
        return RaplMeter(msgspec.convert(entry, RaplMeterConfig), self.root, interval_s, self.clock)

    async def opened(self, **config: object) -> RaplMeter:
        """A meter that has looked once; a second has passed since."""
        meter = self.meter(**config)
        await meter.open()
        await self.run(1.0)
        return meter


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    machines: list[Machine] = []

    def make(power_w: float = 100.0, **layout: object) -> Machine:
        machines.append(Machine(tmp_path / f"sys-{len(machines)}", power_w, **layout))
        return machines[-1]

    yield make
    for machine in machines:
        machine.tree.end()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while, where this runs as root: no mode of a file keeps root out."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def forbidden_root() -> Iterator[Path]:
    """A tree whose counters may not be read by whoever runs this."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders let nobody in
        Path(name).chmod(0o755)
        server = Machine(Path(name, "sys"))
        for folder, _, _ in os.walk(name):
            Path(folder).chmod(0o755)
        (server.powercap / "intel-rapl:0/energy_uj").chmod(0)
        with unprivileged():
            yield server.root
        server.tree.end()
