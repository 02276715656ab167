"""The zones of a powercap tree: what there is to count."""

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.meters.rapl.errors import NotReadable, NoZones, Unfit
from agent.meters.rapl.sysfile import number_of, text_of
from hil.oserrors import reason

FOLDER: Final = "class/powercap"
_ZONE: Final = re.compile(r"(intel-rapl|intel-rapl-mmio)((?::[0-9a-f]+)+)")
_MAIN: Final = "intel-rapl"


class ZoneKind(enum.StrEnum):
    """What a zone covers."""

    PACKAGE = "package"
    DRAM = "dram"
    PSYS = "psys"
    CORE = "core"
    UNCORE = "uncore"
    OTHER = "other"


_KINDS: Final = {
    ZoneKind.PACKAGE: re.compile(r"package-\d+(-die-\d+)?"),
    ZoneKind.PSYS: re.compile(r"psys(-\d+)?"),
    ZoneKind.DRAM: re.compile("dram"),
    ZoneKind.CORE: re.compile("core"),
    ZoneKind.UNCORE: re.compile("uncore"),
}


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone with a counter. ``label`` is its name behind its parents' (``package-0/dram``)."""

    folder: Path
    label: str
    kind: ZoneKind

    @property
    def name(self) -> str:
        """The name that the kernel gives it; not unique."""
        return self.label.rpartition("/")[2]

    @property
    def parent(self) -> str:
        """The label of the zone that it is below; empty for none."""
        return self.label.rpartition("/")[0]

    def range_uj(self) -> int:
        """Where its counter comes round, in µJ. Raises NotReadable."""
        range_uj = number_of(self.folder / "max_energy_range_uj", self.label)
        if range_uj == 0:
            raise NotReadable(f"{self.label}: max_energy_range_uj is 0")
        return range_uj

    def capped(self) -> bool:
        """Whether there are power limits to set."""
        return any(self.folder.glob("constraint_*_power_limit_uw"))


@dataclass(frozen=True, slots=True)
class Powercap:
    """The zones of a machine; ``twins`` show the energy of some of them a second time."""

    zones: tuple[Zone, ...]
    twins: tuple[Zone, ...]


def find_zones(sysfs_root: Path) -> Powercap:
    """The zones below ``sysfs_root``, in the kernel's order. Raises NotReadable; NoZones where there are none."""
    folder = sysfs_root / FOLDER
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError as error:
        raise NoZones("no powercap here") from error
    except OSError as error:
        raise NotReadable(f"{folder}: {reason(error)}") from error
    places = sorted(place for name in names if (place := _place(name)) is not None)
    found: dict[tuple[str, tuple[int, ...]], Zone] = {}
    for control, numbers in places:
        parent = found.get((control, numbers[:-1]))
        found[control, numbers] = _zone(folder / _name(control, numbers), parent)
    main = {zone.label for (control, _), zone in found.items() if control == _MAIN}
    if not found:
        raise NoZones("no powercap here")
    is_twin = {place: place[0] != _MAIN and zone.label in main for place, zone in found.items()}
    return Powercap(
        tuple(zone for place, zone in found.items() if not is_twin[place]),
        tuple(zone for place, zone in found.items() if is_twin[place]),
    )


def _place(name: str) -> tuple[str, tuple[int, ...]] | None:
    match = _ZONE.fullmatch(name)
    return (match[1], tuple(int(number, 16) for number in match[2][1:].split(":"))) if match else None


def _name(control: str, numbers: Sequence[int]) -> str:
    return ":".join([control, *(f"{number:x}" for number in numbers)])


def _zone(folder: Path, parent: Zone | None) -> Zone:
    name = text_of(folder / "name", folder.name)
    label = f"{parent.label}/{name}" if parent else name
    kind = next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(name)), ZoneKind.OTHER)
    return Zone(folder, label, kind)


def choose(zones: Sequence[Zone], wanted: Sequence[str] | None) -> tuple[Zone, ...]:
    """The zones to count: by kind, name or label; None: packages and their dram. Raises Unfit."""
    if wanted is None:
        chosen = tuple(zone for zone in zones if zone.kind in {ZoneKind.PACKAGE, ZoneKind.DRAM})
        if not any(zone.kind is ZoneKind.PACKAGE for zone in chosen):
            raise Unfit(f"no zone package here; there {_listed(zones)}")
    else:
        for name in wanted:
            if not any(_answers(zone, name) for zone in zones):
                raise Unfit(f"no zone {name} here; there {_listed(zones)}")
        chosen = tuple(zone for zone in zones if any(_answers(zone, name) for name in wanted))
    _refuse_overlap(chosen)
    return chosen


def _answers(zone: Zone, name: str) -> bool:
    return name in {zone.kind, zone.name, zone.label}


def _listed(zones: Sequence[Zone]) -> str:
    labels = [zone.label for zone in zones]
    return f"{'is' if len(labels) == 1 else 'are'} {', '.join(labels)}"


def _refuse_overlap(chosen: Sequence[Zone]) -> None:
    """Refuse to count energy twice: psys covers everything, a package its cores; dram lies beside its package."""
    platforms = [zone for zone in chosen if zone.kind is ZoneKind.PSYS]
    if platforms and len(chosen) > 1:
        others = ", ".join(zone.label for zone in chosen if zone is not platforms[0])
        raise Unfit(f"{platforms[0].label} covers the whole platform: {others} would be counted twice")
    labels = {zone.label for zone in chosen}
    for zone in chosen:
        if zone.kind is not ZoneKind.DRAM and zone.parent in labels:
            raise Unfit(f"{zone.parent} covers {zone.label}: its energy would be counted twice")
