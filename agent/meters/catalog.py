"""The kinds of meter there are, and how each is made from its configuration."""

from typing import Any

from agent.meters.cpu import CpuMeter, CpuMeterConfig
from agent.meters.modbus import Booking, ModbusBuses, ModbusMeter, ModbusMeterConfig, check_lines, plan_of
from agent.meters.overhead import Overhead, OverheadMeter
from agent.meters.pue import make_pue
from agent.meters.rapl import RaplMeter, RaplMeterConfig
from agent.meters.replay import ReplayMeter, ReplayMeterConfig, load_trace
from hil.clock import Clock
from hil.devices import Meter
from hil.yamlfile import Document, Key

AnyMeterConfig = ModbusMeterConfig | RaplMeterConfig | CpuMeterConfig | ReplayMeterConfig


class MeterMaker:
    """Makes meters; those that share a connection get the same one. What a configuration lacks it notes as faults."""

    def __init__(self, document: Document[Any], clock: Clock) -> None:
        self._document = document
        self._clock = clock
        self._buses = ModbusBuses(clock)
        self._bookings: list[Booking] = []

    def make(self, config: AnyMeterConfig, key: Key, interval_s: float) -> Meter | None:
        """The meter that ``config`` (at ``key`` of the document) describes; None where a fault was noted."""
        meter = self._bare(config, key, interval_s)
        overhead = Overhead(config.offset_w, make_pue(config.pue, self._document))
        return OverheadMeter(meter, overhead, self._clock) if meter and overhead.scale != 1.0 else meter

    def _bare(self, config: AnyMeterConfig, key: Key, interval_s: float) -> Meter | None:
        match config:
            case ModbusMeterConfig():
                plan = plan_of(config, self._document, key)
                if plan is None:
                    return None
                self._bookings.append(Booking(key, config.endpoint, plan, interval_s))
                return ModbusMeter(config, plan, self._buses, self._clock)
            case RaplMeterConfig():
                return RaplMeter(config, self._document.resolve(config.sysfs_root), interval_s, self._clock)
            case CpuMeterConfig():
                return CpuMeter(config, self._clock)
            case ReplayMeterConfig():
                trace = load_trace(self._document.resolve(config.file), self._document)
                return ReplayMeter(config, trace, self._clock)

    def check(self) -> None:
        """Note as faults what only shows when all meters are made: lines with more on them than they can carry."""
        check_lines(self._bookings, self._document)
