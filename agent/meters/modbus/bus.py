"""One task at a time on each Modbus endpoint, shared by the meters behind it."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from agent.meters.modbus.backoff import Backoff
from agent.meters.modbus.blocks import Block
from agent.meters.modbus.errors import BusError, Refused, Silent
from hil.clock import Clock

CONNECT_FIRST_S: Final = 0.25
CONNECT_LONGEST_S: Final = 30.0
PROBE_FIRST_S: Final = 2.0
PROBE_LONGEST_S: Final = 300.0
FREE_SILENCES: Final = 1
"""A lost frame is no dead unit: so many silences in a row cost nothing but their timeout."""

Endpoint = tuple[str, int]
"""Host and port."""


class Link(Protocol):
    """A connection to an endpoint; must be closed after any error but ``Refused``."""

    @property
    def alive(self) -> bool:
        """Whether the connection still stands."""

    async def read(self, unit: int, block: Block, timeout_s: float) -> Sequence[int]:
        """The words of a block. Raises BusError, Silent or Refused."""

    def close(self) -> None:
        """Close the connection."""


Connect = Callable[[str, int, float], Awaitable[Link]]


class ModbusBus:
    """An endpoint: requests go one after another over one connection, made when needed and made anew after an error.

    A unit that stays silent is asked again after 2, 4, … 300 s, so that it costs the others one timeout a probe.
    """

    def __init__(self, endpoint: Endpoint, clock: Clock, connect: Connect) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self._connect = connect
        self._one_at_a_time = asyncio.Lock()
        self._link: Link | None = None
        self._connecting = Backoff(CONNECT_FIRST_S, CONNECT_LONGEST_S)
        self._units: defaultdict[int, Backoff] = defaultdict(
            lambda: Backoff(PROBE_FIRST_S, PROBE_LONGEST_S, FREE_SILENCES)
        )

    async def read(self, unit: int, block: Block, timeout_s: float) -> Sequence[int]:
        """The words of a block. Raises BusError, at once while a unit or the endpoint is given time to recover."""
        health = self._units[unit]
        self._let_rest(health)
        async with self._one_at_a_time:
            self._let_rest(health)  # it may have failed another reading meanwhile
            link = await self._connected(timeout_s)
            try:
                words = await link.read(unit, block, timeout_s)
            except Refused:
                health.worked()
                raise
            except Silent as error:
                health.failed(self._clock.monotonic(), str(error))
                self.close()
                raise
            except (BusError, asyncio.CancelledError):
                self.close()  # what comes in later belongs to a request that nobody waits for
                raise
            health.worked()
            return words

    def close(self) -> None:
        """Close the connection; the next read makes another."""
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _connected(self, timeout_s: float) -> Link:
        if self._link is not None and self._link.alive:
            return self._link
        self.close()
        self._let_rest(self._connecting)
        try:
            self._link = await self._connect(*self.endpoint, timeout_s)
        except BusError as error:
            self._connecting.failed(self._clock.monotonic(), str(error))
            raise
        self._connecting.worked()
        return self._link

    def _let_rest(self, health: Backoff) -> None:
        if health.wait_s(self._clock.monotonic()) > 0:
            raise BusError(health.reason)  # in the same words each time, so that a log can tell it is the same fault


class ModbusBuses:
    """The buses in use, one for each endpoint; the last meter to leave one closes it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buses: dict[Endpoint, ModbusBus] = {}
        self._users: dict[Endpoint, int] = {}

    def join(self, endpoint: Endpoint) -> ModbusBus:
        """The endpoint's bus; ``leave`` it when done."""
        from agent.meters.modbus.link import connect_tcp  # agents without Modbus do without pymodbus

        if endpoint not in self._buses:
            self._buses[endpoint] = ModbusBus(endpoint, self._clock, connect_tcp)
        self._users[endpoint] = self._users.get(endpoint, 0) + 1
        return self._buses[endpoint]

    def leave(self, bus: ModbusBus) -> None:
        """Give a joined bus back."""
        self._users[bus.endpoint] -= 1
        if self._users[bus.endpoint] == 0:
            del self._users[bus.endpoint]
            self._buses.pop(bus.endpoint).close()
