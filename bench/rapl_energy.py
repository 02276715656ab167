"""What a processor drew in an hour at 400 W, by its energy counters, which come round, are reset, and sleep.

An emulated powercap tree, read once a simulated second by the agent's own meter and added up by its own books: counters
that come round (every 11 minutes on Intel, every 3 on AMD), one suspension that takes the counters with it, one reset
while running. The node's own integral is the truth. Beside it, in the same run, what a reading costs: the meter's, and
a bare ``os.pread`` and ``int`` of the same files.

    python bench/rapl_energy.py [--seconds 3600]

prints one JSON line.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.energy import EnergyMeter
from agent.meters.rapl import RaplMeter, RaplMeterConfig
from agent.sample import EnergyState
from hil.clock import ManualClock
from hil.devices import DeviceUnavailable
from hil.emulated.load import ConstantLoad
from hil.emulated.node import EmulatedNode, NodeTraits
from hil.emulated.sysfs import EmulatedPowercap, RaplConfig, Tree

POWER_W = 400.0
NOISE_W = 5.0
ASLEEP_S = 600.0
SPIKE = 0.1
LAYOUTS = {
    "intel": {"vendor": "intel", "packages": 1, "dram_share": 0.1, "psys": True, "mmio": True, "start_j": 250_000},
    "amd": {"vendor": "amd", "packages": 1, "start_j": 60_000},
}


@dataclass
class Hour:
    """What came of it."""

    powers_w: list[float] = field(default_factory=list)
    states: list[EnergyState] = field(default_factory=list)
    missing: int = 0
    read_s: list[float] = field(default_factory=list)
    bare_s: list[float] = field(default_factory=list)

    @property
    def energy_j(self) -> float:
        """The energy of all epochs together, as a reader of the samples adds it up."""
        return sum({state.epoch: state.energy_j for state in self.states}.values())


async def live(layout: dict[str, object], seconds: int, root: Path) -> tuple[Hour, float]:
    """An hour, and the energy in J that was really drawn."""
    clock, hour, books = ManualClock(), Hour(), EnergyMeter()
    node = EmulatedNode("server", ConstantLoad(power_w=POWER_W).demand(), NodeTraits(noise_w=NOISE_W, seed=1))
    tree = EmulatedPowercap(
        msgspec.convert(layout | {"name": "rapl", "node": "server", "root": "-"}, RaplConfig), Tree(root), node
    )
    tree.begin()
    meter = RaplMeter(RaplMeterConfig(name="cpu"), root, 1.0, clock)
    await meter.open()
    with ExitStack() as stack:
        names = ["intel-rapl:0", "intel-rapl:0:2"] if layout.get("dram_share") else ["intel-rapl:0"]
        files = [stack.enter_context((root / "class/powercap" / name / "energy_uj").open("rb", 0)) for name in names]
        bare = [file.fileno() for file in files]
        for second in range(seconds):
            if second == seconds // 3:
                clock.suspend(ASLEEP_S)
                tree.reset()
            node.advance(0.5)
            if second == 2 * seconds // 3:
                tree.reset()
            node.advance(0.5)
            tree.show()
            clock.stall(1.0)
            await look(meter, books, hour, clock.monotonic())
            began = time.perf_counter()
            for fd in bare:
                int(os.pread(fd, 64, 0))
            hour.bare_s.append(time.perf_counter() - began)
    await meter.close()
    tree.end()
    return hour, node.energy_j


async def look(meter: RaplMeter, books: EnergyMeter, hour: Hour, now: float) -> None:
    """One tick, as the agent's sampler takes it."""
    began = time.perf_counter()
    try:
        reading = await meter.read()
    except DeviceUnavailable:
        hour.missing += 1
        books.miss()
        return
    hour.read_s.append(time.perf_counter() - began)
    state = books.take(reading, now)
    assert state is not None
    assert reading.power_w is not None
    hour.states.append(state)
    hour.powers_w.append(reading.power_w)


def figures(hour: Hour, drawn_j: float) -> dict[str, float]:
    """What is printed of one layout."""
    read_us, bare_us = (1e6 * statistics.median(values) for values in (hour.read_s, hour.bare_s))
    return {
        "drawn_wh": round(drawn_j / 3600, 3),
        "error_percent": round(100 * (hour.energy_j / drawn_j - 1), 4),
        "spikes": sum(abs(power_w / POWER_W - 1) > SPIKE for power_w in hour.powers_w),
        "highest_w": round(max(hour.powers_w), 2),
        "lowest_w": round(min(hour.powers_w), 2),
        "missing": hour.missing,
        "epochs": len({state.epoch for state in hour.states}),
        "read_us": round(read_us, 2),
        "bare_us": round(bare_us, 2),
        "over_bare_us": round(read_us - bare_us, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=3600)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: figures(*asyncio.run(live(layout, arguments.seconds, Path(folder, name))))
            for name, layout in LAYOUTS.items()
        }
    print(json.dumps({"bench": "rapl_energy", "seconds": arguments.seconds, "asleep_s": ASLEEP_S} | found))


if __name__ == "__main__":
    main()
