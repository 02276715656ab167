"""What the energy counters of this machine are good for, without a configuration."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from agent.diagnosis import Finding, SourceState
from agent.meters.rapl.config import RaplMeterConfig
from agent.meters.rapl.errors import NotReadable, NoZones, Unfit
from agent.meters.rapl.meter import PATIENCE_S, RaplMeter
from agent.meters.rapl.zones import Powercap, Zone, ZoneKind, choose, find_zones
from agent.meters.worker import Blocked, Worker
from hil.clock import Clock
from hil.devices import DeviceError

SOURCE: Final = "RAPL"
CPUINFO: Final = Path("/proc/cpuinfo")
INTERVAL_S: Final = 1.0
VENDORS: Final = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon"}


@dataclass(frozen=True, slots=True)
class _Choice:
    """Zones that make a meter, and what can be said of them before they are read."""

    name: str
    wanted: tuple[str, ...]
    zones: tuple[Zone, ...]
    ability: str


async def diagnose(sysfs_root: Path, clock: Clock, cpuinfo: Path = CPUINFO) -> list[Finding]:
    """What can be read below ``sysfs_root``, each possible meter with a reading: processors, and the whole platform."""
    worker = Worker("rapl diagnosis")
    try:
        choices = await worker.call(partial(_choices, sysfs_root, cpuinfo), PATIENCE_S)
    except NoZones:
        return [Finding(SOURCE, SourceState.ABSENT, f"no powercap here ({_why_none(cpuinfo)})")]
    except Unfit as error:
        return [Finding(SOURCE, SourceState.ABSENT, str(error))]
    except (NotReadable, Blocked) as error:
        return [Finding(SOURCE, SourceState.UNREADABLE, str(error))]
    finally:
        worker.close()
    return [await _finding(choice, sysfs_root, clock) for choice in choices]


def _choices(sysfs_root: Path, cpuinfo: Path) -> list[_Choice]:
    powercap = find_zones(sysfs_root)
    kinds = {zone.kind for zone in powercap.zones}
    wanted: list[tuple[str, tuple[str, ...]]] = []
    if ZoneKind.PACKAGE in kinds:
        wanted.append(("cpu", ("package", "dram") if ZoneKind.DRAM in kinds else ("package",)))
    wanted += [("platform", (zone.name,)) for zone in powercap.zones if zone.kind is ZoneKind.PSYS]
    if not wanted:
        raise Unfit(f"neither package nor psys here, only {', '.join(zone.label for zone in powercap.zones)}")
    chosen = [(name, names, choose(powercap.zones, names)) for name, names in wanted]
    return [_Choice(name, names, zones, _ability(zones, powercap, cpuinfo)) for name, names, zones in chosen]


def _ability(zones: Sequence[Zone], powercap: Powercap, cpuinfo: Path) -> str:
    vendor = VENDORS.get(_field(cpuinfo, "vendor_id"))
    capped = any(zone.capped() for zone in zones)
    text = f"{vendor}: " if vendor else ""
    text += f"energy yes, cap {'yes' if capped else 'no'}"
    if capped and {zone.label for zone in zones} & {twin.label for twin in powercap.twins}:
        text += " (two limits, by MSR and by MMIO, of which the lower holds)"
    return text


async def _finding(choice: _Choice, sysfs_root: Path, clock: Clock) -> Finding:
    config = RaplMeterConfig(name=choice.name, zones=choice.wanted)
    source = f"{SOURCE} {', '.join(zone.label for zone in choice.zones)}"
    meter = RaplMeter(config, sysfs_root, INTERVAL_S, clock)
    try:
        await meter.open()
        reading = await meter.read()
    except DeviceError as error:
        return Finding(source, SourceState.UNREADABLE, error.what, snippet=_snippet(choice, sysfs_root))
    finally:
        await meter.close()
    return Finding(source, SourceState.OK, choice.ability, reading.power_w, _snippet(choice, sysfs_root))


def _snippet(choice: _Choice, sysfs_root: Path) -> str:
    lines = [f"- name: {choice.name}", "  kind: rapl", f"  zones: [{', '.join(choice.wanted)}]"]
    if sysfs_root != Path("/sys"):
        lines.append(f"  sysfs_root: {sysfs_root}")
    return "\n".join(lines) + "\n"


def _why_none(cpuinfo: Path) -> str:
    if "hypervisor" in _field(cpuinfo, "flags").split():
        return "a virtual machine, whose host keeps the counters to itself"
    if _field(cpuinfo, "vendor_id") in VENDORS:
        return "the kernel module intel_rapl_msr is not loaded, or does not know this processor"
    return "Intel's and AMD's processors have it"


def _field(cpuinfo: Path, name: str) -> str:
    """The first value of a field; empty where it has none."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1] if match else ""
