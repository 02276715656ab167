"""Raw counters through pyRAPL, for layouts that it knows: whole packages, and their dram.

pyRAPL 0.2.3 reads ``/sys/class/powercap/intel-rapl/intel-rapl:N/energy_uj`` and the ``dram`` below it, nothing else. It
knows neither dies nor psys, nor that counters come round: here it gives raw counts, as the files do.
"""

import importlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from agent.meters.rapl.errors import NotReadable, Unfit
from agent.meters.rapl.sysfile import refusal
from agent.meters.rapl.zones import Zone, ZoneKind

SYSFS: Final = Path("/sys")
EXTRA: Final = "pip install 'wattloop[rapl]'"
# It asks for zones 0, 1, … in decimal; the kernel numbers them in hexadecimal.
_FOLDER: Final = re.compile(r"intel-rapl:\d(:\d)?")
_LABEL: Final = re.compile(r"package-(\d+)(/dram)?")


class PyRaplCounters:
    """Counters through a ``pyRAPL.Sensor``; ``places`` are the zones' positions in its list."""

    def __init__(self, sensor: Any, places: Sequence[int]) -> None:
        self._sensor = sensor
        self._places = tuple(places)

    def read(self) -> tuple[int, ...]:
        """All counters in µJ, now. Raises NotReadable."""
        try:
            energies = self._sensor.energy()
            raw_uj = tuple(int(energies[place]) for place in self._places)
        except OSError as error:
            raise refusal(error, "energy_uj", "pyRAPL") from error
        except (ValueError, OverflowError) as error:
            raise NotReadable("pyRAPL: energy_uj holds garbage") from error
        if min(raw_uj) < 0:  # its way to say nothing
            raise NotReadable("pyRAPL: energy_uj holds garbage")
        return raw_uj

    def close(self) -> None:
        """Let go of the sensor, and with it of its files."""
        self._sensor = None


def open_pyrapl(zones: Sequence[Zone], sysfs_root: Path) -> PyRaplCounters:
    """The counters of ``zones``. Raises NotReadable, or Unfit where pyRAPL cannot read them."""
    places = _places(zones, sysfs_root)
    pyrapl = load_pyrapl()
    devices = [pyrapl.Device.PKG]
    if any(zone.kind is ZoneKind.DRAM for zone in zones):
        devices.append(pyrapl.Device.DRAM)
    try:
        sensor = pyrapl.Sensor(devices)
    except OSError as error:
        raise refusal(error, "energy_uj", "pyRAPL") from error
    except pyrapl.PyRAPLException as error:
        raise Unfit(f"pyRAPL cannot read this machine ({type(error).__name__}): expected backend powercap") from error
    return PyRaplCounters(sensor, places)


def _places(zones: Sequence[Zone], sysfs_root: Path) -> list[int]:
    if sysfs_root.resolve() != SYSFS:
        raise Unfit(f"pyRAPL reads {SYSFS} alone: expected backend powercap, or sysfs_root {SYSFS}")
    places = []
    for zone in zones:
        match = _LABEL.fullmatch(zone.label)
        if match is None or not _FOLDER.fullmatch(zone.folder.name):
            raise Unfit(f"pyRAPL cannot read {zone.label}: expected backend powercap")
        places.append(2 * int(match[1]) + bool(match[2]))
    return places


def load_pyrapl() -> Any:
    """The module. Importing it does to the log what an application alone may do, so that is undone. Raises Unfit."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    # It warns through the root logger that it finds no databases and tables, which nobody here asked for.
    root.addFilter(_refuse)
    try:
        return importlib.import_module("pyRAPL")
    except ImportError as error:
        raise Unfit(f"backend pyrapl needs pyRAPL: {EXTRA}") from error
    finally:
        root.removeFilter(_refuse)
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)


def _refuse(_record: logging.LogRecord) -> bool:
    return False
