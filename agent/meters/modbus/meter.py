"""A meter behind Modbus."""

from agent.meters.modbus.bus import ModbusBuses, Station
from agent.meters.modbus.config import ModbusMeterConfig
from agent.meters.modbus.errors import BusError, Refused
from agent.meters.modbus.judge import Judge
from agent.meters.modbus.plan import SLOW_EVERY, Plan
from agent.meters.modbus.reader import Reader
from agent.meters.modbus.registers import RegisterError
from hil.clock import Clock
from hil.devices import DeviceUnavailable, Reading


class ModbusMeter:
    """Power in W, and energy in J where the device counts it, as ``config.plan_of`` says how to read them."""

    def __init__(self, config: ModbusMeterConfig, plan: Plan, buses: ModbusBuses, clock: Clock) -> None:
        self._config = config
        self._plan = plan
        self._buses = buses
        self._clock = clock
        self._station: Station | None = None
        self._seat = 0
        self._round = 0
        self._reader: Reader | None = None
        self._judge: Judge | None = None

    @property
    def name(self) -> str:
        """The meter's name in the agent's configuration."""
        return self._config.name

    async def open(self) -> None:
        """Join the endpoint's bus; the first reading connects."""
        if self._station is None:
            bus = self._buses.join(self._config.endpoint)
            self._seat = bus.take_seat()
            self._station = Station(bus, self._config.unit, self._plan.silence_s, self._config.timeout_s)

    async def read(self) -> Reading:
        """Power in W as the registers say, now. Raises DeviceUnavailable with the reason why there is none."""
        if self._station is None:
            raise DeviceUnavailable(self.name, "not open")
        try:
            reading = await self._read(self._station)
        except (BusError, RegisterError) as error:
            self._miss(error)
            raise DeviceUnavailable(self.name, str(error)) from error
        self._round += 1
        return reading

    async def close(self) -> None:
        """Leave the bus; harmless when repeated."""
        if self._station is not None:
            self._buses.leave(self._station.bus)
            self._station = None

    async def _read(self, station: Station) -> Reading:
        if self._reader is None or self._judge is None:
            self._reader, self._judge = await self._commissioned(station)
        slow = self._round == 0 or (self._round + self._seat) % SLOW_EVERY == 0
        image = await self._reader.read(station, slow=slow)
        return self._judge.reading(image, self._clock.monotonic())

    async def _commissioned(self, station: Station) -> tuple[Reader, Judge]:
        registers = self._plan.registers
        if self._plan.commission is not None:
            registers = await self._plan.commission(station)
        reader = Reader(self.name, self._plan.rounds(registers), self._clock)
        return reader, Judge(self.name, registers, self._plan.checks)

    def _miss(self, error: Exception) -> None:
        if self._judge is not None:
            self._judge.gap()
        away = isinstance(error, BusError) and not isinstance(error, Refused)
        if away and self._plan.commission is not None:  # another device may come back in its place
            self._reader = self._judge = None
            self._round = 0
