"""The kinds of meter there are, and how each is made from its configuration."""

from typing import Any

from agent.meters.cpu import CpuMeter, CpuMeterConfig
from agent.meters.modbus import ModbusBuses, ModbusMeter, ModbusMeterConfig, blocks_of
from agent.meters.replay import ReplayMeter, ReplayMeterConfig, load_trace
from hil.clock import Clock
from hil.devices import Meter
from hil.yamlfile import Document, Key

AnyMeterConfig = ModbusMeterConfig | CpuMeterConfig | ReplayMeterConfig


class MeterMaker:
    """Makes meters; those that share a connection get the same one. What a configuration lacks it notes as faults."""

    def __init__(self, document: Document[Any], clock: Clock) -> None:
        self._document = document
        self._clock = clock
        self._buses = ModbusBuses(clock)

    def make(self, config: AnyMeterConfig, key: Key) -> Meter:
        """The meter that ``config`` (at ``key`` of the document) describes; not to be used if a fault was noted."""
        match config:
            case ModbusMeterConfig():
                return ModbusMeter(config, blocks_of(config, self._document, key), self._buses)
            case CpuMeterConfig():
                return CpuMeter(config, self._clock)
            case ReplayMeterConfig():
                trace = load_trace(self._document.resolve(config.file), self._document)
                return ReplayMeter(config, trace, self._clock)
