"""What a dead unit costs its neighbours: ten units on a 19200-baud line, one of which falls silent.

The line is a pseudo-terminal with a real line's timing (characters, turnaround, silence) in a process of its own; each
unit has ten registers that are read in one request. The agent's own meters and cadence read all ten once a second:
first with every unit alive, then with one dead, then with it back. Told per phase: samples without a value, of the nine
and of the one, and how late the nine's readings were, in s after their tick.

    python bench/modbus_bus.py [--healthy 15] [--dead 30] [--healed 40]

prints one JSON line; exit status 1 if the nine lost more than one tick for each probe of the dead unit.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from measure import machine, percentile
from meter_cost import emulated

from agent.energy import EnergyMeter
from agent.meters.modbus import Booking, ModbusBuses, ModbusMeter, ModbusMeterConfig, plan_of
from agent.meters.modbus.timetable import round_of
from agent.sample import Sample
from agent.sampler import MeterCadence, Sampler
from hil.clock import SystemClock
from hil.devices import Quality
from hil.emulated.client import ControlClient
from hil.emulated.messages import SetFault
from hil.emulated.modbusunit import Fault
from hil.emulated.ready import Ready
from hil.yamlfile import Document

UNITS = 10
DEAD = 4
BAUDRATE = 19_200
TURNAROUND_MS = 20
INTERVAL_S = 1.0
PROFILE = """
profile: ten-registers
vendor: bench
model: bench
status: guess
source: bench
registers:
  power_w: {address: 0, type: f32}
  voltage_v: {address: 2, type: f32}
  current_a: {address: 4, type: f32}
  power_factor: {address: 6, type: f32}
  energy_j: {address: 8, type: u32, unit: Wh}
"""


@dataclass
class Phase:
    """The samples of a phase, and how long after their tick those of the nine were delivered."""

    others: int = 0
    others_missing: int = 0
    dead: int = 0
    dead_missing: int = 0
    doubted: int = 0
    late_s: list[float] = field(default_factory=list)

    def told(self) -> dict[str, object]:
        late = {"p50": round(percentile(self.late_s, 0.5), 3), "max": round(max(self.late_s), 3)}
        return {
            "others": {"samples": self.others, "missing": self.others_missing, "late_s": late},
            "dead_unit": {"samples": self.dead, "missing": self.dead_missing},
            "not_good": self.doubted,
        }


def world(folder: Path) -> str:
    (folder / "ten.yaml").write_text(PROFILE)
    serial = f"{{link: tty, baudrate: {BAUDRATE}, turnaround_ms: {TURNAROUND_MS}}}"
    nodes = "".join(f"- {{name: n-{n}, load: {{kind: constant, power_w: {10 + n}}}}}\n" for n in range(UNITS))
    units = "".join(
        f"- {{name: u-{n}, profile: ten.yaml, node: n-{n}, unit: {n + 1}, serial: {serial}}}\n" for n in range(UNITS)
    )
    return f"nodes:\n{nodes}units:\n{units}"


def meters(folder: Path, ready: Ready) -> tuple[list[ModbusMeter], float]:
    """The meters, and the seconds that a round of theirs takes by the timetable."""
    clock = SystemClock()
    buses = ModbusBuses(clock)
    document: Document[Any] = Document(folder / "agent.yaml")
    made, bookings = [], []
    for name, place in ready.serial.items():
        serial = {"port": place.link, "baudrate": BAUDRATE}
        options = {"name": name, "kind": "modbus", "profile": "ten.yaml", "unit": place.unit, "serial": serial}
        config = msgspec.convert(options, ModbusMeterConfig)
        plan = plan_of(config, document, ())
        assert plan is not None, document.faults
        bookings.append(Booking((), config.endpoint, plan, INTERVAL_S))
        made.append(ModbusMeter(config, plan, buses, clock))
    return made, round_of(bookings).total_s


async def run(folder: Path, ready: Ready, seconds: dict[str, float]) -> dict[str, object]:
    clock = SystemClock()
    phases = {name: Phase() for name in seconds}
    current = "healthy"
    started = 0.0
    dead = f"u-{DEAD}"

    def take(sample: Sample) -> None:
        phase = phases[current]
        phase.doubted += sample.quality not in {Quality.GOOD, Quality.MISSING}
        if sample.meter == dead:
            phase.dead += 1
            phase.dead_missing += sample.power_w is None
        else:
            phase.others += 1
            phase.others_missing += sample.power_w is None
            phase.late_s.append((clock.monotonic() - started) % INTERVAL_S)

    made, round_s = meters(folder, ready)
    cadences = [MeterCadence(meter, INTERVAL_S, EnergyMeter(), clock, take) for meter in made]
    control = ControlClient(ready.control.host, ready.control.port)
    started = clock.monotonic()
    sampling = asyncio.create_task(Sampler(cadences, clock).run())
    for current, fault in (("healthy", None), ("dead", Fault.SILENT), ("healed", None)):  # take reads it
        await control.request(SetFault(pdu=dead, fault=fault))
        await asyncio.sleep(seconds[current])
    sampling.cancel()
    with suppress(asyncio.CancelledError):
        await sampling
    await control.close()
    return {"round_s": round(round_s, 3), **{name: phase.told() for name, phase in phases.items()}}


def probes_within(seconds: float) -> int:
    """How often a unit that is dead for so long is asked, by the back-off: at once, then after 2, 4, … s."""
    count, at, pause = 2, 1.0, 2.0
    while (at := at + pause) < seconds:
        count, pause = count + 1, min(2 * pause, 300.0)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("healthy", 15.0), ("dead", 30.0), ("healed", 40.0)):
        parser.add_argument(f"--{name}", type=float, default=default, metavar="SECONDS")
    seconds = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with emulated(folder, world(folder)) as ready:
            result = asyncio.run(run(folder, ready, seconds))
    probes = probes_within(seconds["dead"])
    print(json.dumps({"bench": "modbus_bus", "machine": machine(), "units": UNITS, "probes": probes, **result}))
    lost = result["dead"]["others"]["missing"]  # type: ignore[index]  # written above
    return int(lost > probes * (UNITS - 1))


if __name__ == "__main__":
    sys.exit(main())
