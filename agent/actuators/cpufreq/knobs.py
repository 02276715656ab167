"""The files of cpufreq: a policy for each group of cores, and the switch for boost."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.meters.rapl.sysfile import number_of
from hil.oserrors import reason

CPU: Final = "devices/system/cpu"
GROUP: Final = "wattloop-actuators"


class NotWritable(Exception):
    """A knob could not be turned; says which and why."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A group of cores that share a frequency; ``steps_khz`` are the frequencies there are, none: any."""

    folder: Path
    lowest_khz: int
    highest_khz: int
    steps_khz: tuple[int, ...]

    @property
    def max_freq(self) -> Path:
        """The highest frequency in kHz."""
        return self.folder / "scaling_max_freq"

    @property
    def epp(self) -> Path | None:
        """Its energy performance preference, where there is one."""
        path = self.folder / "energy_performance_preference"
        return path if path.exists() else None

    def fit(self, wanted_khz: int) -> int:
        """The nearest frequency in kHz that is there and no higher; the lowest there is where none is."""
        steps = [step for step in self.steps_khz if step <= wanted_khz]
        lowest = min(self.steps_khz, default=self.lowest_khz)
        wanted_khz = max(steps, default=lowest) if self.steps_khz else wanted_khz
        return min(max(wanted_khz, self.lowest_khz), self.highest_khz)


def find_policies(sysfs_root: Path) -> list[Policy]:
    """The policies of a machine, in their order; none where there is no cpufreq. Raises NotReadable."""
    folders = (sysfs_root / CPU / "cpufreq").glob("policy[0-9]*")
    return [_policy(folder) for folder in sorted(folders, key=lambda folder: int(folder.name[6:]))]


def _policy(folder: Path) -> Policy:
    lowest, highest = (number_of(folder / f"cpuinfo_{end}_freq", folder.name) for end in ("min", "max"))
    return Policy(folder, lowest, highest, _steps(folder / "scaling_available_frequencies"))


def _steps(path: Path) -> tuple[int, ...]:
    try:
        words = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):  # most drivers have none
        return ()
    return tuple(sorted(int(word) for word in words if word.isdigit()))


def find_boost(sysfs_root: Path) -> Path | None:
    """The switch for boost: ``boost``, or ``no_turbo``, which says the opposite; None where there is none."""
    switches = [sysfs_root / CPU / "cpufreq/boost", sysfs_root / CPU / "intel_pstate/no_turbo"]
    return next((switch for switch in switches if switch.exists()), None)


def boost_text(switch: Path, on: bool) -> str:
    """What to write to the switch."""
    return str(int(on != (switch.name == "no_turbo")))


def turn(path: Path, text: str) -> None:
    """Write a line to a file that must be there. Raises NotWritable."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(file, f"{text}\n".encode("ascii"))
        finally:
            os.close(file)
    except OSError as error:
        raise NotWritable(f"{path.parent.name}/{path.name}: {_refusal(error)}") from error


def _refusal(error: OSError) -> str:
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{reason(error)}, needs group {GROUP} (see docs/how-to/limit-a-node.md)"
    if error.errno == errno.EBUSY:
        return "busy: with the governor performance the kernel takes no other preference"
    return reason(error)
