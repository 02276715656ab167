"""The actuator over the frequency of all cores."""

import asyncio
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.actuators.cpufreq.config import CpufreqConfig, Mode
from agent.actuators.cpufreq.curve import frequency_khz, power_w
from agent.actuators.cpufreq.knobs import NotWritable, Policy, boost_text, find_boost, find_policies, turn
from agent.meters.rapl.errors import NotReadable
from agent.meters.rapl.sysfile import number_of, text_of
from hil.devices import Capabilities, DeviceFailed, DeviceUnavailable, Setting
from hil.units import KILOHERTZ_PER_MEGAHERTZ

T = TypeVar("T")

Knobs = dict[Path, str]


class _Snapshot(msgspec.Struct, frozen=True):
    knobs: dict[str, str]


class CpufreqActuator:
    """Limits the processors' frequency, by named modes or in W along a curve."""

    def __init__(self, config: CpufreqConfig) -> None:
        self._config = config
        self._root = Path(config.sysfs_root)
        self._policies: list[Policy] = []
        self._owners: Knobs = {}
        self._mode_set: str | None = None

    @property
    def name(self) -> str:
        """The actuator's name in the agent's configuration."""
        return self._config.name

    @property
    def kind(self) -> str:
        """The kind by which the configuration chose it."""
        return str(self._config.__struct_config__.tag)

    async def open(self) -> Capabilities:
        """Find the knobs and try whether they turn. Raises DeviceUnavailable; DeviceFailed where there are none."""
        return await self._work(self._open)

    async def snapshot(self) -> str:
        """Every knob that may be turned, as JSON."""
        knobs = await self._work(self._read)
        return msgspec.json.encode(_Snapshot({str(self._relative(path)): knobs[path] for path in knobs})).decode()

    async def apply(self, setting: Setting) -> None:
        """Set a mode, a limit, or what was found. Raises DeviceUnavailable, DeviceFailed."""
        if setting.workload is not None:
            raise DeviceFailed(self.name, "is no workload")
        if setting.profile is not None and setting.profile not in self._config.modes:
            raise DeviceFailed(self.name, f"has no mode {setting.profile}")
        if setting.limit_w is not None and not (self._config.curve and 0 <= setting.limit_w < float("inf")):
            raise DeviceFailed(self.name, f"{setting.limit_w:g} W: takes no such limit")
        await self._work(lambda: self._put({**self._owned(), **self._wanted(setting)}))
        self._mode_set = setting.profile

    async def readback(self) -> Setting:
        """The power on the curve at the highest frequency, and the mode that the knobs show, if any."""
        return await self._work(self._readback)

    async def restore(self, snapshot: str) -> None:
        """Turn the knobs back. Raises DeviceUnavailable; DeviceFailed if the text is no snapshot."""
        try:
            found = msgspec.json.decode(snapshot, type=_Snapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DeviceFailed(self.name, f"not a snapshot: {error}") from error
        known = await self._work(self._paths)
        self._owners = {path: found.knobs[key] for path in known if (key := str(self._relative(path))) in found.knobs}
        await self._work(lambda: self._put(self._owners))

    async def frequencies_khz(self, count: int) -> list[int]:
        """Up to ``count`` frequencies in kHz, evenly apart from the lowest to the highest, for a calibration."""
        return await self._work(lambda: self._spread(count))

    async def hold_khz(self, highest_khz: int) -> None:
        """Let no core run faster, for a calibration. Raises DeviceUnavailable."""
        await self._work(lambda: self._put({p.max_freq: str(p.fit(highest_khz)) for p in self._found}))

    async def close(self) -> None:
        """Nothing is held."""

    # --- in a worker thread -------------------------------------------------------------------------------------------

    async def _work(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except (NotReadable, NotWritable) as error:
            raise DeviceUnavailable(self.name, str(error)) from error

    def _open(self) -> Capabilities:
        found = self._read()
        try:
            self._put(found)
        except NotWritable as error:
            raise DeviceFailed(self.name, str(error)) from error
        self._owners = self._owners or found
        modes, note = tuple(self._config.modes), self._missing()
        if not self._config.curve:
            return Capabilities(profiles=modes, note=note)
        ladder_w = self._ladder_w()
        step_w = max(b - a for a, b in itertools.pairwise(ladder_w)) if self._found[0].steps_khz else 0.0
        return Capabilities(ladder_w[0], ladder_w[-1], step_w, modes, note=note)

    @property
    def _found(self) -> list[Policy]:
        if not self._policies:
            self._policies = find_policies(self._root)
        if not self._policies:
            raise DeviceFailed(self.name, "no cpufreq here: the kernel does not set the processors' frequency")
        return self._policies

    def _paths(self) -> list[Path]:
        paths = [policy.max_freq for policy in self._found]
        if any(mode.epp for mode in self._config.modes.values()):
            paths += [policy.epp for policy in self._found if policy.epp is not None]
        boost = find_boost(self._root)
        if boost is not None and any(mode.boost is not None for mode in self._config.modes.values()):
            paths.insert(0, boost)  # where boost is off, the highest frequency there is may be lower
        return paths

    def _relative(self, path: Path) -> Path:
        return path.relative_to(self._root)

    def _read(self) -> Knobs:
        frequencies = {policy.max_freq for policy in self._found}
        return {path: str(_khz(path)) if path in frequencies else _text(path) for path in self._paths()}

    def _owned(self) -> Knobs:
        self._owners = self._owners or self._read()
        return self._owners

    def _put(self, knobs: Knobs) -> None:
        for path, text in knobs.items():
            if _text(path) != text or not self._owners:  # at first each is tried
                turn(path, text)

    def _wanted(self, setting: Setting) -> Knobs:
        mode = self._config.modes[setting.profile] if setting.profile is not None else Mode()
        knobs = self._mode(mode)
        if setting.limit_w is not None:
            limit_khz = frequency_khz(self._config.curve, setting.limit_w)
            for policy in self._found:
                lower_khz = min(limit_khz, int(knobs.get(policy.max_freq, limit_khz)))
                knobs[policy.max_freq] = str(policy.fit(lower_khz))
        return knobs

    def _mode(self, mode: Mode) -> Knobs:
        knobs: Knobs = {}
        boost = find_boost(self._root)
        if mode.boost is not None and boost is not None:
            knobs[boost] = boost_text(boost, mode.boost)
        for policy in self._found:
            if mode.max_mhz is not None:
                knobs[policy.max_freq] = str(policy.fit(int(mode.max_mhz * KILOHERTZ_PER_MEGAHERTZ)))
            if mode.epp is not None and policy.epp is not None:
                knobs[policy.epp] = mode.epp
        return knobs

    def _readback(self) -> Setting:
        now = self._read()
        highest_khz = max(int(now[policy.max_freq]) for policy in self._found)
        limit_w = power_w(self._config.curve, highest_khz) if self._config.curve else None
        return Setting(limit_w, self._mode_shown(now))

    def _mode_shown(self, now: Knobs) -> str | None:
        """Of the modes that the knobs agree with the one set last, else the lowest."""
        shown = [name for name, mode in self._config.modes.items() if self._shows(now, mode)]
        if self._mode_set in shown:
            return self._mode_set
        return min(shown, key=lambda name: self._config.modes[name].max_mhz or math.inf, default=None)

    def _shows(self, now: Knobs, mode: Mode) -> bool:
        wanted = self._mode(mode)
        # A lower frequency is still within the mode: a limit in W may hold beside it.
        frequencies = {policy.max_freq for policy in self._found} & wanted.keys()
        return all(now[path] == text for path, text in wanted.items() if path not in frequencies) and all(
            int(now[path]) <= int(wanted[path]) for path in frequencies
        )

    def _spread(self, count: int) -> list[int]:
        lowest, highest = (pick(p.fit(khz) for p in self._found) for pick, khz in ((min, 0), (max, 10**9)))
        apart = (highest - lowest) / (count - 1)
        return sorted({max(p.fit(round(lowest + apart * n)) for p in self._found) for n in range(count)})

    def _ladder_w(self) -> list[float]:
        policy = self._found[0]
        steps_khz = policy.steps_khz or (policy.lowest_khz, policy.highest_khz)
        return [power_w(self._config.curve, step_khz) for step_khz in steps_khz]

    def _missing(self) -> str:
        modes = self._config.modes.values()
        missing = []
        if any(mode.epp for mode in modes) and all(policy.epp is None for policy in self._found):
            missing.append("no energy_performance_preference here")
        if any(mode.boost is not None for mode in modes) and find_boost(self._root) is None:
            missing.append("no switch for boost here")
        return "; ".join(missing)


def _khz(path: Path) -> int:
    return number_of(path, path.parent.name)


def _text(path: Path) -> str:
    return text_of(path, path.parent.name)
