"""Where raw energy counters are read: a seam with two ways behind it."""

import io
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, Protocol

from agent.meters.rapl.sysfile import number_in, open_line
from agent.meters.rapl.zones import Zone

FILE: Final = "energy_uj"


class Counters(Protocol):
    """The raw counters of some zones, open. Reading may block for as long as a file of sysfs may."""

    def read(self) -> tuple[int, ...]:
        """All counters in µJ, now, in the order of the zones. Raises NotReadable: all of them or none."""

    def close(self) -> None:
        """Let go of the files; harmless when repeated."""


class PowercapCounters:
    """Counters through files that stay open: a reading is one system call a zone."""

    def __init__(self, files: Sequence[tuple[io.FileIO, str]]) -> None:
        self._files = files

    def read(self) -> tuple[int, ...]:
        """All counters in µJ, now. Raises NotReadable."""
        return tuple([number_in(file, FILE, label) for file, label in self._files])

    def close(self) -> None:
        """Close the files; harmless when repeated."""
        for file, _ in self._files:
            file.close()


def open_powercap(zones: Sequence[Zone]) -> PowercapCounters:
    """The counters of ``zones``. Raises NotReadable."""
    with ExitStack() as opened:
        files = [(opened.enter_context(open_line(zone.folder / FILE, zone.label)), zone.label) for zone in zones]
        opened.pop_all()
    return PowercapCounters(files)
