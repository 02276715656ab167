"""A meter behind Modbus."""

import logging
from collections.abc import Sequence

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.bus import ModbusBus, ModbusBuses
from agent.meters.modbus.config import ModbusMeterConfig
from agent.meters.modbus.errors import BusError
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.registers import Register, RegisterError
from hil.devices import DeviceFailed, DeviceUnavailable, Reading

_log = logging.getLogger(__name__)


class ModbusMeter:
    """Power in W, and energy in J where the device counts it, by one request a block (``config.blocks_of``)."""

    def __init__(self, config: ModbusMeterConfig, blocks: tuple[Block, ...], buses: ModbusBuses) -> None:
        self._config = config
        self._blocks = blocks
        self._buses = buses
        self._bus: ModbusBus | None = None
        self._counter_lost = False

    @property
    def name(self) -> str:
        """The meter's name in the agent's configuration."""
        return self._config.name

    async def open(self) -> None:
        """Join the endpoint's bus; the first reading connects. Raises DeviceFailed without registers."""
        if not self._blocks:
            raise DeviceFailed(self.name, "no registers to read")
        if self._bus is None:
            self._bus = self._buses.join((self._config.host, self._config.port))

    async def read(self) -> Reading:
        """Power in W as the registers say, now. Raises DeviceUnavailable with the reason why there is none."""
        if self._bus is None:
            raise DeviceUnavailable(self.name, "not open")
        words: dict[Quantity, tuple[Register, Sequence[int]]] = {}
        try:
            for block in self._blocks:
                answer = await self._bus.read(self._config.unit, block, self._config.timeout_s)
                words.update((register.quantity, (register, own)) for register, own in block.cut(answer))
            register, own = words[Quantity.POWER_W]
            power_w = register.decode(own)
        except (BusError, RegisterError) as error:
            raise DeviceUnavailable(self.name, str(error)) from error
        return Reading(power_w, self._energy_j(words.get(Quantity.ENERGY_J)))

    def _energy_j(self, found: tuple[Register, Sequence[int]] | None) -> float | None:
        """The device's counter; None where it shows none, which takes nothing from the power beside it."""
        if found is None:
            return None
        register, own = found
        try:
            energy_j = register.decode(own)
        except RegisterError as error:
            if not self._counter_lost:
                _log.warning("meter %s: %s; energy is integrated from power meanwhile", self.name, error)
            self._counter_lost = True
            return None
        if self._counter_lost:
            _log.info("meter %s: its energy counter is back", self.name)
            self._counter_lost = False
        return energy_j

    async def close(self) -> None:
        """Leave the bus; harmless when repeated."""
        if self._bus is not None:
            self._buses.leave(self._bus)
            self._bus = None
