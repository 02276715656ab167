"""The actuator over the limits of all packages."""

import asyncio
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from agent.actuators.rapl.config import RaplActuatorConfig
from agent.actuators.rapl.register import LimitRegister, Limits, NotWritable, Writer, write_number
from agent.meters.rapl.errors import NotReadable, NoZones
from agent.meters.rapl.zones import ZoneKind, find_zones
from hil.devices import Capabilities, DeviceFailed, DeviceUnavailable, Setting
from hil.units import MICROWATTS_PER_WATT

STEP_W: Final = 0.125

T = TypeVar("T")


class _Snapshot(msgspec.Struct, frozen=True):
    limits: dict[str, Limits]


class RaplActuator:
    """Caps the processors' power in W, all packages together."""

    def __init__(self, config: RaplActuatorConfig, write: Writer = write_number) -> None:
        self._config = config
        self._write = write
        self._packages: list[list[LimitRegister]] = []
        self._owners: dict[str, Limits] = {}

    @property
    def name(self) -> str:
        """The actuator's name in the agent's configuration."""
        return self._config.name

    @property
    def kind(self) -> str:
        """The kind by which the configuration chose it."""
        return str(self._config.__struct_config__.tag)

    async def open(self) -> Capabilities:
        """Find the limits and try which can be set. Raises DeviceFailed where no package has one that can."""
        return await self._work(self._open)

    async def snapshot(self) -> str:
        """The limits of every zone, as JSON."""
        limits = await self._work(self._read)
        return msgspec.json.encode(_Snapshot(limits)).decode()

    async def apply(self, setting: Setting) -> None:
        """Limit the packages, or give them the limits that were found. Raises DeviceUnavailable, DeviceFailed."""
        if setting.profile is not None or setting.workload is not None:
            raise DeviceFailed(self.name, "takes nothing but a limit")
        limit_w = setting.limit_w
        if limit_w is None:
            await self._work(lambda: self._put(self._owners))
            return
        if not self._config.min_w <= limit_w <= (self._config.max_w or MICROWATTS_PER_WATT):
            raise DeviceFailed(self.name, f"{limit_w:g} W is outside the configured bounds")
        await self._work(lambda: self._limit(limit_w))

    async def readback(self) -> Setting:
        """The limit in force: of each package's long-term limits the lower, all packages together."""
        return await self._work(lambda: Setting(limit_w=self._in_force_w(), note=self._problems()))

    async def restore(self, snapshot: str) -> None:
        """Put the limits of a snapshot back. Raises DeviceUnavailable; DeviceFailed if the text is none."""
        try:
            found = msgspec.json.decode(snapshot, type=_Snapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DeviceFailed(self.name, f"not a snapshot: {error}") from error
        await self._work(lambda: self._put(found.limits))
        self._owners = found.limits

    async def close(self) -> None:
        """Nothing is held."""

    # --- in a worker thread -------------------------------------------------------------------------------------------

    async def _work(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except NoZones as error:
            raise DeviceFailed(self.name, str(error)) from error
        except (NotReadable, NotWritable) as error:
            raise DeviceUnavailable(self.name, str(error)) from error

    def _open(self) -> Capabilities:
        self._find()
        for register in self._registers:
            register.probe()
        if any(all(register.problem for register in package) for package in self._packages):
            raise DeviceFailed(self.name, self._problems())
        self._owners = self._owners or self._read()
        found_w = sum(map(_most_uw, self._packages)) / MICROWATTS_PER_WATT
        max_w = min(found_w, self._config.max_w or found_w)
        if max_w < self._config.min_w:
            raise DeviceFailed(self.name, f"takes at most {max_w:g} W, which is less than min_w")
        return Capabilities(self._config.min_w, max_w, STEP_W * len(self._packages), note=self._problems())

    def _find(self) -> None:
        found = find_zones(Path(self._config.sysfs_root))
        zones = [zone for zone in (*found.zones, *found.twins) if zone.kind is ZoneKind.PACKAGE]
        registers = [LimitRegister(zone, self._write) for zone in zones]
        capped = sorted((register for register in registers if register.find()), key=lambda register: register.package)
        if not capped:
            raise DeviceFailed(self.name, "these processors show their energy here and take no limit, as AMD's do")
        self._packages = [list(package) for _, package in groupby(capped, key=lambda register: register.package)]

    @property
    def _registers(self) -> list[LimitRegister]:
        if not self._packages:
            self._find()
        return [register for package in self._packages for register in package]

    def _problems(self) -> str:
        return "; ".join(register.problem for register in self._registers if register.problem)

    def _read(self) -> dict[str, Limits]:
        return {register.key: register.read() for register in self._registers}

    def _in_force_w(self) -> float:
        limits = self._read()
        lowest_uw = (min(limits[register.key].long_uw for register in package) for package in self._packages)
        return float(sum(lowest_uw) / MICROWATTS_PER_WATT)

    def _limit(self, limit_w: float) -> None:
        self._owners = self._owners or self._read()
        share_uw = round(limit_w * MICROWATTS_PER_WATT / len(self._packages))
        self._put({key: self._limits(share_uw, owners) for key, owners in self._owners.items()})

    def _limits(self, long_uw: int, owners: Limits) -> Limits:
        if owners.short_uw is None:
            return Limits(long_uw, None)
        return Limits(long_uw, max(long_uw, min(owners.short_uw, round(self._config.burst * long_uw))))

    def _put(self, limits: dict[str, Limits]) -> None:
        for register in self._registers:
            if register.key in limits and not register.problem:
                register.set(limits[register.key])


def _most_uw(package: list[LimitRegister]) -> int:
    """The highest limit in µW that can be in force: none above a locked one, or above what its fellows can take."""
    return min(register.read().long_uw if register.problem else register.most_uw() for register in package)
