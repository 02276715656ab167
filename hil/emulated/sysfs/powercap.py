"""The powercap tree of an emulated node: what ``/sys/class/powercap`` shows of its processors.

As the kernel has it (Documentation/power/powercap/powercap.rst, drivers/powercap/intel_rapl_common.c): zones lie below
``devices/virtual/powercap/intel-rapl``, numbered in hexadecimal, and ``class/powercap`` has a link to each of them.

==========================================  ============================================================================
``name``                                    ``package-0``, ``package-0-die-1``, ``psys``; below a package ``core``,
                                            ``uncore``, ``dram``
``energy_uj``                               32-bit counter in steps of 2⁻¹⁴ J (AMD: 2⁻¹⁶ J), shown in µJ; 0400
``max_energy_range_uj``                     where it comes round: 262143328850 (AMD: 65532610987)
``constraint_{0,1}_*``                      long-term and short-term limit of packages and psys; AMD has none
==========================================  ============================================================================

Who writes to the packages' long-term limits caps the node, so that they and their dram draw no more.

``devices/system/cpu`` shows one processor in each package, which is how some tools count packages.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from hil.clock import Clock
from hil.emulated.node import EmulatedNode
from hil.emulated.sysfs.config import RaplConfig
from hil.emulated.sysfs.tree import NumberFile, Tree
from hil.units import MICROWATTS_PER_WATT

ZONES: Final = "devices/virtual/powercap"
CLASS: Final = "class/powercap"
COUNTER: Final = 1 << 32
DIGITS: Final = 12
OWNER_ONLY: Final = 0o400
BITS: Final = {"intel": 14, "amd": 16}
CORE_SHARE, UNCORE_SHARE = 0.7, 0.1
ANY_TDP_W: Final = 400.0
UNBOUNDED_W: Final = 1e6
LONG_TERM_US, SHORT_TERM_US = 27_983_872, 2_440
SHORT_TERM: Final = 1.25


class EmulatedPowercap:
    """A powercap tree in ``tree`` that shows ``node``; alive between ``begin`` and ``end``."""

    def __init__(self, config: RaplConfig, tree: Tree, node: EmulatedNode) -> None:
        self._config = config
        self._tree = tree
        self._node = node
        self._bits = BITS[config.vendor]
        # The kernel's unit is a whole number of nanojoules.
        self._unit_nj = 10**9 >> self._bits
        self._start = int(config.start_j * (1 << self._bits))
        self._since_j = 0.0
        self._counters: list[tuple[NumberFile, float]] = []
        self._limits: dict[str, list[Path]] = {}
        self._limit_w = 0.0
        self._unlimited_w = 0.0

    def begin(self) -> None:
        """Make the tree. Raises TreeError."""
        config = self._config
        self._tree.begin()
        try:
            self._control("intel-rapl")
            packages = [(package, die) for package in range(config.packages) for die in range(config.dies)]
            for index, (package, die) in enumerate(packages):
                name = f"package-{package}" + (f"-die-{die}" if config.dies > 1 else "")
                self._package(f"intel-rapl:{index:x}", name, 1 / len(packages))
            if config.psys:
                zone = f"intel-rapl:{len(packages):x}"
                self._zone(f"intel-rapl/{zone}", "psys", 1.0, self._tdp_w(1.0))
            if config.mmio:
                self._control("intel-rapl-mmio")
                share = (1 - config.dram_share) / len(packages)
                self._zone("intel-rapl-mmio/intel-rapl-mmio:0", "package-0", share, self._tdp_w(share))
            self._processors()
            self._limit_w = self._unlimited_w = self._in_force_w() or 0.0
            self.show()
        except BaseException:
            self._tree.end()
            raise

    def show(self) -> None:
        """Show what the node has drawn so far."""
        energy_j = self._node.energy_j - self._since_j
        for file, share in self._counters:
            count = (self._start + int(energy_j * share * (1 << self._bits))) % COUNTER
            file.write(count * self._unit_nj // 1000)

    def obey(self) -> None:
        """Cap the node to the limits in force, if somebody has changed them; any limit below the first is one."""
        limit_w = self._in_force_w()
        if limit_w is None or limit_w == self._limit_w:
            return
        self._limit_w = limit_w
        self._node.cap_w = limit_w / (1 - self._config.dram_share) if limit_w < self._unlimited_w else None

    async def run(self, refresh: Callable[[], None], clock: Clock) -> None:
        """Keep showing the node, which ``refresh`` brings up to now, until cancelled."""
        deadline = clock.monotonic()
        while True:
            refresh()
            self.obey()
            self.show()
            deadline = max(deadline + self._config.refresh_ms / 1000, clock.monotonic())
            await clock.sleep_until(deadline)

    def reset(self) -> None:
        """Let every counter start anew at 0, as it does when the processors lose their power."""
        self._since_j = self._node.energy_j
        self._start = 0
        self.show()

    def end(self) -> None:
        """Remove the tree; harmless when repeated."""
        self._counters.clear()
        self._limits.clear()
        self._tree.end()

    def _in_force_w(self) -> float | None:
        """The packages' long-term limits in W, of twins the lower; None where one is just being written, or none."""
        try:
            limits_uw = [
                min(int(path.read_text(encoding="ascii")) for path in twins) for twins in self._limits.values()
            ]
        except (OSError, ValueError):
            return None
        return sum(limits_uw) / MICROWATTS_PER_WATT if limits_uw else None

    def _tdp_w(self, share: float) -> float:
        if self._config.tdp_w is not None:
            return self._config.tdp_w
        max_w = self._node.traits.max_w
        return max_w * share if max_w < UNBOUNDED_W else ANY_TDP_W

    def _control(self, name: str) -> None:
        self._tree.write(f"{ZONES}/{name}/enabled", "1")
        self._tree.link(f"{CLASS}/{name}", f"{ZONES}/{name}")

    def _package(self, zone: str, name: str, share: float) -> None:
        config = self._config
        own = share * (1 - config.dram_share)
        self._zone(f"intel-rapl/{zone}", name, own, self._tdp_w(own))
        children = [("core", own * CORE_SHARE)]
        if config.vendor == "intel":
            children.append(("uncore", own * UNCORE_SHARE))
        if config.dram_share:
            children.append(("dram", share * config.dram_share))
        for index, (child, child_share) in enumerate(children):
            self._zone(f"intel-rapl/{zone}/{zone}:{index:x}", child, child_share, None)

    def _zone(self, path: str, name: str, share: float, tdp_w: float | None) -> None:
        place = f"{ZONES}/{path}"
        self._tree.write(f"{place}/name", name)
        self._tree.write(f"{place}/enabled", "1" if tdp_w else "0")
        self._tree.write(f"{place}/max_energy_range_uj", str((COUNTER - 1) * self._unit_nj // 1000), 0o444)
        self._counters.append((self._tree.number(f"{place}/energy_uj", DIGITS, OWNER_ONLY), share))
        if tdp_w and self._config.vendor == "intel":
            self._constraint(place, 0, "long_term", tdp_w, LONG_TERM_US)
            if name.startswith("package"):
                limit = self._tree.root / place / "constraint_0_power_limit_uw"
                self._limits.setdefault(name, []).append(limit)
            self._constraint(place, 1, "short_term", tdp_w * SHORT_TERM, SHORT_TERM_US)
        self._tree.link(f"{CLASS}/{path.rpartition('/')[2]}", place)

    def _constraint(self, place: str, index: int, name: str, limit_w: float, window_us: int) -> None:
        limit_uw = str(round(limit_w * 1e6))
        values = {"name": name, "power_limit_uw": limit_uw, "time_window_us": str(window_us)}
        if index == 0:
            values["max_power_uw"] = limit_uw
        for attribute, text in values.items():
            self._tree.write(f"{place}/constraint_{index}_{attribute}", text)

    def _processors(self) -> None:
        count = self._config.packages
        self._tree.write("devices/system/cpu/present", f"0-{count - 1}" if count > 1 else "0")
        for package in range(count):
            path = f"devices/system/cpu/cpu{package}/topology/physical_package_id"
            self._tree.write(path, str(package))
