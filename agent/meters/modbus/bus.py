"""One task at a time on each Modbus endpoint, shared by the meters behind it."""

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from agent.meters.modbus.backoff import Backoff
from agent.meters.modbus.blocks import Block
from agent.meters.modbus.endpoint import Endpoint
from agent.meters.modbus.errors import BusError, Refused, Silent
from agent.meters.modbus.nameplate import QUESTION, Nameplate
from agent.meters.modbus.request import Link, Request, describing, reading
from agent.meters.modbus.turns import Turns
from agent.meters.modbus.unit import STRANGER_TIMEOUT_S, Unit
from hil.clock import Clock

CONNECT_FIRST_S: Final = 0.25
CONNECT_LONGEST_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 2.0

SILENCE_CHARS: Final = 3.5
SILENCE_AT_LEAST_S: Final = 0.00175
"""Between frames on a serial line: 3.5 characters, 1.75 ms above 19200 baud (Modbus over Serial Line 1.02, 2.5.1.1)."""

YIELD_S: Final = 2.0
"""A unit that fell silent lets those go first that come up to so much later."""

SILENCES_PER_LINK: Final = 3
"""So many silences in a row, whoever's, and the connection itself is in doubt."""

OTHER_FUNCTION: Final = {3: 4, 4: 3, QUESTION.function: 3}

T = TypeVar("T")


def frame_silence_s(endpoint: Endpoint) -> float:
    """Seconds of silence that part two frames; 0 where the other side sees to it."""
    return max(SILENCE_CHARS * endpoint.char_s, SILENCE_AT_LEAST_S) if endpoint.char_s else 0.0


Connect = Callable[[Endpoint, float], Awaitable[Link]]


class ModbusBus:
    """An endpoint: requests go one after another over one connection, made when needed and made anew after an error.

    A unit that stays silent is asked again after 2, 4, … 300 s, and then after those in good health, so that it costs
    them one short timeout a probe at most.
    """

    def __init__(self, endpoint: Endpoint, clock: Clock, connect: Connect) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self._connect = connect
        self._turns = Turns()
        self._link: Link | None = None
        self._connecting = Backoff(CONNECT_FIRST_S, CONNECT_LONGEST_S)
        self._units: defaultdict[int, Unit] = defaultdict(Unit)
        self._silences = 0
        self._free_at = -float("inf")
        self._silence_s = 0.0
        self._seats = itertools.count()

    def take_seat(self) -> int:
        """How many meters came before: what each does but rarely, they do in turn."""
        return next(self._seats)

    async def read(
        self, unit: int, block: Block, *, silence_s: float = 0.0, timeout_s: float | None = None
    ) -> Sequence[int]:
        """The words of a block; see ``ask``."""
        return await self.ask(reading(unit, block), silence_s=silence_s, timeout_s=timeout_s)

    async def ask(self, request: Request[T], *, silence_s: float = 0.0, timeout_s: float | None = None) -> T:
        """The answer to a request. Raises BusError, at once while a unit or the endpoint is given time to recover.

        The line is silent for ``silence_s`` before the request and after the answer; without ``timeout_s`` the unit
        gets a multiple of what it took for earlier answers.
        """
        unit = self._units[request.unit]
        self._let_rest(unit.probing)
        now = self._clock.monotonic()
        async with self._turns.turn(now + YIELD_S if unit.probing.failures else now):
            self._let_rest(unit.probing)  # it may have failed another reading meanwhile
            link = await self._connected()
            if not link.matches and unit.may_answer_late(request.function, self._clock.monotonic()):
                await self._synchronise(link, request, silence_s, timeout_s)
            return await self._exchange(link, request, silence_s, timeout_s)

    def close(self) -> None:
        """Close the connection; the next read makes another."""
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _synchronise(self, link: Link, request: Request[T], silence_s: float, timeout_s: float | None) -> None:
        """Ask for something whose answer cannot be the late one: a unit that answers it has done with all before it."""
        question = Block(OTHER_FUNCTION[request.function], 0, 1)
        try:
            await self._exchange(link, reading(request.unit, question), silence_s, timeout_s)
        except Refused as error:
            if error.unreachable:
                raise
        self._units[request.unit].unanswered.clear()

    async def _exchange(self, link: Link, request: Request[T], silence_s: float, timeout_s: float | None) -> T:
        unit = self._units[request.unit]
        wire_s = request.chars * self.endpoint.char_s
        await self._be_silent(silence_s)
        began = self._clock.monotonic()
        try:
            answer = await request.put(link, (timeout_s or self._timeout_s(unit)) + wire_s)
        except Refused as error:
            self._free_at = self._clock.monotonic()
            if error.unreachable:
                unit.failed(self._free_at, str(error))
            else:
                self._answered(unit, request, began + wire_s)
            raise
        except (BusError, asyncio.CancelledError) as error:
            self._free_at = self._clock.monotonic()
            self._failed(link, unit, request, error)
            raise
        self._free_at = self._clock.monotonic()
        self._answered(unit, request, began + wire_s)
        return answer

    def _answered(self, unit: Unit, request: Request[T], began: float) -> None:
        self._silences = 0
        unit.answered(request.function, max(0.0, self._free_at - began))

    def _failed(self, link: Link, unit: Unit, request: Request[T], error: BaseException) -> None:
        if not isinstance(error, BusError) or isinstance(error, Silent):  # given up, or nothing came
            unit.left_open(request.function, self._free_at)
        if isinstance(error, Silent):
            unit.failed(self._free_at, str(error))
            self._silences += 1
        if link.matches or not link.alive or self._silences >= SILENCES_PER_LINK:
            self.close()
            self._silences = 0

    async def _be_silent(self, silence_s: float) -> None:
        """Wait until the line has been silent for as long as the last unit asked and the next one need."""
        deadline = self._free_at + max(frame_silence_s(self.endpoint), silence_s, self._silence_s)
        self._silence_s = silence_s
        if self._clock.monotonic() < deadline:
            await self._clock.sleep_until(deadline)

    def _timeout_s(self, unit: Unit) -> float:
        """Seconds for a unit; one that never answered gets as much as the slowest of the others."""
        if unit.usual_timeout_s is not None:
            return unit.timeout_s(unit.usual_timeout_s)
        others_s = [other.usual_timeout_s for other in self._units.values() if other.usual_timeout_s is not None]
        return unit.timeout_s(max(others_s, default=STRANGER_TIMEOUT_S))

    async def _connected(self) -> Link:
        if self._link is not None and self._link.alive:
            return self._link
        self.close()
        self._let_rest(self._connecting)
        try:
            self._link = await self._connect(self.endpoint, CONNECT_TIMEOUT_S)
        except BusError as error:
            self._connecting.failed(self._clock.monotonic(), str(error))
            raise
        self._connecting.worked()
        return self._link

    def _let_rest(self, health: Backoff) -> None:
        if health.wait_s(self._clock.monotonic()) > 0:
            raise BusError(health.reason)  # in the same words each time, so that a log can tell it is the same fault


@dataclass(frozen=True, slots=True)
class Station:
    """One unit on a bus, and the manner in which it is asked (see ``ModbusBus.read``)."""

    bus: ModbusBus
    unit: int
    silence_s: float = 0.0
    timeout_s: float | None = None

    async def read(self, block: Block) -> Sequence[int]:
        """The words of a block. Raises BusError."""
        return await self.bus.read(self.unit, block, silence_s=self.silence_s, timeout_s=self.timeout_s)

    async def describe(self) -> Nameplate:
        """What the unit says of itself. Raises BusError."""
        return await self.bus.ask(describing(self.unit), silence_s=self.silence_s, timeout_s=self.timeout_s)


class ModbusBuses:
    """The buses in use, one for each place; the last meter to leave one closes it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buses: dict[str, ModbusBus] = {}
        self._users: Counter[ModbusBus] = Counter()

    def join(self, endpoint: Endpoint) -> ModbusBus:
        """The endpoint's bus; ``leave`` it when done."""
        from agent.meters.modbus.connection import connect  # agents without Modbus do without pymodbus

        bus = self._buses.get(endpoint.place)
        if bus is None:
            bus = self._buses[endpoint.place] = ModbusBus(endpoint, self._clock, connect)
        self._users[bus] += 1
        return bus

    def leave(self, bus: ModbusBus) -> None:
        """Give a joined bus back."""
        self._users[bus] -= 1
        if not self._users[bus]:
            del self._users[bus]
            self._buses = {place: other for place, other in self._buses.items() if other is not bus}
            bus.close()
