"""One set of a package's limit registers: a powercap zone with a long-term and mostly a short-term limit."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from agent.meters.rapl.errors import NotReadable
from agent.meters.rapl.sysfile import number_of, text_of
from agent.meters.rapl.zones import Zone
from hil.oserrors import reason

GROUP: Final = "wattloop-actuators"

Writer = Callable[[Path, int], None]


class NotWritable(Exception):
    """A limit could not be set; says why."""


class Limits(msgspec.Struct, frozen=True):
    """A package's limits in µW, long-term and short-term; None: there is no short-term one."""

    long_uw: int
    short_uw: int | None


def write_number(path: Path, number: int) -> None:
    """Write a number to a file of sysfs, which must be there. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(file, b"%d\n" % number)
    finally:
        os.close(file)


class LimitRegister:
    """The limits of one zone. ``problem`` says why they cannot be set; empty where they can."""

    def __init__(self, zone: Zone, write: Writer) -> None:
        self.problem = ""
        self._zone = zone
        self._write = write
        self._long: Path | None = None
        self._short: Path | None = None

    @property
    def key(self) -> str:
        """What the kernel calls it: ``intel-rapl:0``."""
        return self._zone.folder.name

    @property
    def package(self) -> str:
        """The package that it limits: ``package-0``."""
        return self._zone.label

    def find(self) -> bool:
        """Whether there is a long-term limit here. Raises NotReadable."""
        for path in sorted(self._zone.folder.glob("constraint_*_name")):
            limit = path.with_name(path.name.replace("_name", "_power_limit_uw"))
            match text_of(path, self.key):
                case "long_term":
                    self._long = limit
                case "short_term":
                    self._short = limit
        return self._long is not None

    def probe(self) -> None:
        """Find out whether the limits can be set, by writing what they are. Raises NotReadable."""
        if text_of(self._zone.folder / "enabled", self.key) == "0":
            self.problem = f"{self.key}: switched off"
            return
        try:
            self.set(self.read())
        except NotWritable as error:
            self.problem = str(error)

    def read(self) -> Limits:
        """The limits as they are. Raises NotReadable."""
        long = number_of(self._found(), self.key)
        return Limits(long, number_of(self._short, self.key) if self._short is not None else None)

    def most_uw(self) -> int:
        """The highest long-term limit in µW that makes sense: the processor's own figure, or the present limit."""
        path = self._found()
        try:
            told_uw = number_of(path.with_name(path.name.replace("power_limit", "max_power")), self.key)
        except NotReadable:  # not every processor tells
            told_uw = 0
        return max(told_uw, self.read().long_uw)

    def set(self, wanted: Limits) -> None:
        """Set both, so that the long-term limit is never the higher one. Raises NotReadable, NotWritable."""
        writes = [(self._found(), wanted.long_uw)]
        if self._short is not None and wanted.short_uw is not None:
            rising = wanted.long_uw > self.read().long_uw
            writes.insert(0 if rising else 1, (self._short, wanted.short_uw))
        for path, limit_uw in writes:
            try:
                self._write(path, limit_uw)
            except OSError as error:
                raise NotWritable(f"{self.key}: {_refusal(error)}") from error

    def _found(self) -> Path:
        if self._long is None:
            raise NotReadable(f"{self.key}: no long-term limit")
        return self._long


def _refusal(error: OSError) -> str:
    if error.errno == errno.ENODATA:  # whatever the driver's reason, powercap says this
        return "the limit cannot be set, probably locked by the firmware"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{reason(error)}, needs group {GROUP} (see docs/how-to/limit-a-node.md)"
    return reason(error)
