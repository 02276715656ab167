"""The processors' energy counters as a meter."""

import logging
from functools import partial
from pathlib import Path
from typing import Final

from agent.meters.rapl.config import RaplMeterConfig
from agent.meters.rapl.connection import Connection, OpenCounters, connect, open_counters
from agent.meters.rapl.errors import NotReadable, Unfit
from agent.meters.rapl.tally import Gap, Look, Tally
from agent.meters.worker import Blocked, Worker
from hil.clock import Clock
from hil.devices import DeviceFailed, DeviceUnavailable, Reading

log = logging.getLogger(__name__)

PATIENCE_S: Final = 1.0
# Reading that takes less holds up the event loop for less time than a thread would cost.
QUICK_S: Final = 0.001
FIRST_SPAN_S: Final = 0.1
# Over less, what the counters have not been brought up to date with yet would be more than a few per cent.
SHORTEST_SPAN_S: Final = 0.01


class RaplMeter:
    """Power in W as the mean since the last reading, and energy in J, of some zones together.

    Counters are read in a thread, until they have shown that they answer quickly, and again when they no longer do.
    """

    def __init__(
        self,
        config: RaplMeterConfig,
        sysfs_root: Path,
        interval_s: float,
        clock: Clock,
        open_these: OpenCounters | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._config = config
        self._sysfs_root = sysfs_root
        self._interval_s = interval_s
        self._clock = clock
        self._open_these = open_these or open_counters(config)
        self._patience_s = patience_s
        self._worker = Worker(f"rapl {config.name}")
        self._connection: Connection | None = None
        self._quick = False
        self._tally: Tally | None = None
        self._epoch = 0
        self._ready_at = 0.0

    @property
    def name(self) -> str:
        """The meter's name in the agent's configuration."""
        return self._config.name

    async def open(self) -> None:
        """Open the counters and look at them once. Raises DeviceFailed; what may yet appear is no reason to raise."""
        try:
            await self._begin()
        except DeviceUnavailable as error:
            log.debug("meter %s: %s", self.name, error.what)  # readings will tell whether that lasts

    async def read(self) -> Reading:
        """The mean power since the last reading. Raises DeviceUnavailable with the reason, or DeviceFailed."""
        if self._tally is None:
            await self._begin()
        if self._clock.monotonic() < self._ready_at:
            await self._clock.sleep_until(self._ready_at)
        connection, look = await self._look()
        tally = self._tally
        if tally is None or tally.gauges != connection.gauges:
            self._start_tally(connection, look)
            raise DeviceUnavailable(self.name, "the zones are not those of the last reading")
        try:
            power_w = tally.take(look)
        except Gap as gap:
            self._disconnect()  # the files may have been replaced under us
            raise DeviceUnavailable(self.name, str(gap)) from gap
        self._ready_at = look.monotonic + SHORTEST_SPAN_S
        return Reading(power_w, tally.energy_j, counter_epoch=tally.epoch)

    async def close(self) -> None:
        """Close the counters; harmless when repeated or before ``open``."""
        self._disconnect()
        self._worker.close()
        self._end_tally()

    def _disconnect(self) -> None:
        if self._connection is not None and not self._worker.busy:
            self._connection.counters.close()
        self._connection = None

    async def _begin(self) -> None:
        self._start_tally(*await self._look())

    def _start_tally(self, connection: Connection, first: Look) -> None:
        self._end_tally()
        self._tally = Tally(connection.gauges, first, self._epoch)
        self._ready_at = first.monotonic + FIRST_SPAN_S
        counted = ", ".join(gauge.label for gauge in connection.gauges)
        log.info("meter %s: counts %s", self.name, counted)

    def _end_tally(self) -> None:
        if self._tally is not None:
            self._epoch = self._tally.epoch + 1
            self._tally = None

    async def _look(self) -> tuple[Connection, Look]:
        look_now = partial(self._look_with, self._connection)
        inline = self._connection is not None and self._quick and not self._worker.busy
        try:
            connection, look = look_now() if inline else await self._worker.call(look_now, self._patience_s)
        except NotReadable as error:
            self._connection = None
            raise DeviceUnavailable(self.name, str(error)) from error
        except Blocked as error:
            self._quick = False
            raise DeviceUnavailable(self.name, str(error)) from error
        except Unfit as error:
            raise DeviceFailed(self.name, str(error)) from error
        self._connection, self._quick = connection, look.took_s < QUICK_S
        return connection, look

    def _look_with(self, connection: Connection | None) -> tuple[Connection, Look]:
        connection = connection or connect(self._config, self._sysfs_root, self._interval_s, self._open_these)
        return connection, connection.look(self._clock)
