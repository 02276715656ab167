"""Open counters, and what they count: everything about a machine's zones that may block is done here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.meters.rapl.config import RaplMeterConfig
from agent.meters.rapl.counters import Counters, open_powercap
from agent.meters.rapl.errors import NotReadable, Unfit
from agent.meters.rapl.pyraplcounters import open_pyrapl
from agent.meters.rapl.tally import Gauge, Look
from agent.meters.rapl.zones import Zone, ZoneKind, choose, find_zones
from hil.clock import Clock

# Above what any processor draws. Its power limits tell nothing: they may have been lowered for the moment, and where
# there is none, firmware writes 4095 W.
MAX_W: Final = 1000.0
LOOKS_A_ROUND: Final = 4

OpenCounters = Callable[[Sequence[Zone], Path], Counters]


def open_counters(config: RaplMeterConfig) -> OpenCounters:
    """How the counters of a meter are opened."""
    if config.backend == "pyrapl":
        return open_pyrapl
    return lambda zones, _root: open_powercap(zones)


@dataclass(frozen=True, slots=True)
class Connection:
    """Counters that are open, and what they count."""

    counters: Counters
    gauges: tuple[Gauge, ...]

    def look(self, clock: Clock) -> Look:
        """All counters now. Raises NotReadable, and is then of no more use."""
        before = clock.monotonic()
        try:
            raw_uj = self.counters.read()
        except NotReadable:
            self.counters.close()
            raise
        after = clock.monotonic()
        return Look(raw_uj, (before + after) / 2, clock.boottime(), after - before)


def connect(config: RaplMeterConfig, sysfs_root: Path, interval_s: float, open_these: OpenCounters) -> Connection:
    """Find, choose and open what ``config`` asks for. Raises NotReadable or Unfit."""
    zones = choose(find_zones(sysfs_root).zones, config.wanted)
    gauges = tuple(_gauge(zone, config.max_w or MAX_W) for zone in zones)
    for gauge in gauges:
        _refuse_slow(gauge, interval_s)
    return Connection(open_these(zones, sysfs_root), gauges)


def _gauge(zone: Zone, max_w: float) -> Gauge:
    # Graphics that are off draw nothing; everything else draws a little even asleep.
    moves = zone.kind not in {ZoneKind.UNCORE, ZoneKind.OTHER}
    return Gauge(zone.label, zone.range_uj(), max_w, moves)


def _refuse_slow(gauge: Gauge, interval_s: float) -> None:
    longest_s = gauge.round_s / LOOKS_A_ROUND
    if interval_s > longest_s:
        raise Unfit(
            f"{gauge.label}: at {gauge.max_w:g} W its counter comes round every {gauge.round_s:.0f} s: "
            f"expected interval_s of at most {longest_s:.0f}, not {interval_s:g}, or a lower max_w"
        )
