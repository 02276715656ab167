"""Finds units at an endpoint, by asking each possible one; it reads, and never writes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.bus import CONNECT_TIMEOUT_S, Connect, frame_silence_s
from agent.meters.modbus.endpoint import Endpoint
from agent.meters.modbus.errors import BusError, Refused, Silent
from agent.meters.modbus.identify import Candidate, identify
from agent.meters.modbus.nameplate import Nameplate
from agent.meters.modbus.profile import Profile
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.request import Link, Request, describing, reading
from hil.clock import Clock

T = TypeVar("T")

STRANGER_TIMEOUT_S: Final = 0.3
"""For a unit that has not answered yet; a gateway may need more."""

KNOWN_TIMEOUT_S: Final = 1.0
"""For one that has."""

CALLS: Final = (Block(4, 0, 2), Block(3, 0, 1))
"""Whatever is there answers to one of these, be it with a refusal."""

RECONNECTS: Final = 3
RECONNECT_S: Final = 0.5
"""Small devices take a moment until they take another connection."""

SERIAL_SILENCE_S: Final = 0.1
"""On a serial line, before each request to a unit of which nothing is known: some meters need as much."""


class NotReached(BusError):
    """There is no way to the endpoint."""


@dataclass(frozen=True, slots=True)
class Found:
    """A unit that answers, what it says of itself, and the profiles that fit it best; none if no profile does."""

    endpoint: Endpoint
    unit: int
    nameplate: Nameplate | None
    candidates: tuple[Candidate, ...]


@dataclass(slots=True)
class Scan:
    """What a scan has found so far, so that it may be cut off at any time."""

    connect: Connect
    clock: Clock
    profiles: Mapping[str, Profile]
    timeout_s: float = STRANGER_TIMEOUT_S
    tell: Callable[[str], None] = lambda _: None
    found: list[Found] = field(default_factory=list)
    asked: int = 0

    async def run(self, endpoints: Sequence[Endpoint], units: Sequence[int]) -> None:
        """Ask all units at one endpoint after another, up to the first where one answers. Raises NotReached."""
        for endpoint in endpoints:
            caller = Caller(endpoint, self.connect, self.clock)
            try:
                await self._ask_all(caller, units)
            finally:
                caller.close()
            if self.found:  # the devices on one line have one setting
                return

    async def _ask_all(self, caller: "Caller", units: Iterable[int]) -> None:
        for unit in units:
            self.tell(f"{caller.endpoint}: unit {unit}")
            if await _answers(caller, unit, self.timeout_s):
                self.tell(f"{caller.endpoint}: unit {unit} answers, what is it?")
                found = await self._look_at(caller, unit)
                if found is not None and not self._is_known(found):
                    self.found.append(found)
            self.asked += 1

    async def _look_at(self, caller: "Caller", unit: int) -> Found | None:
        interview = Interview(caller, unit, max(KNOWN_TIMEOUT_S, self.timeout_s))
        try:
            candidates, nameplate = await identify(interview, self.profiles)
        except NotReached:
            raise
        except BusError:  # it was there a moment ago
            return None
        return Found(caller.endpoint, unit, nameplate, candidates)

    def _is_known(self, found: Found) -> bool:
        """Whether the same device answered as another unit: some take any number for theirs."""
        return any(_energies(earlier) & _energies(found) for earlier in self.found)


def _energies(found: Found) -> set[tuple[str, float]]:
    return {
        (candidate.name, candidate.values[Quantity.ENERGY_J])
        for candidate in found.candidates
        if candidate.values.get(Quantity.ENERGY_J)
    }


async def _answers(caller: "Caller", unit: int, timeout_s: float) -> bool:
    for block in CALLS:
        try:
            await caller.put(reading(unit, block), timeout_s)
        except NotReached:
            raise
        except Refused as error:
            return not error.unreachable
        except BusError:  # silence, noise, half a frame
            continue
        return True
    return False


class Caller:
    """An endpoint to which a connection is made when needed, and made anew after an error."""

    def __init__(self, endpoint: Endpoint, connect: Connect, clock: Clock) -> None:
        self.endpoint = endpoint
        self._connect = connect
        self._clock = clock
        self._link: Link | None = None
        self._reached = False
        self._free_at = -float("inf")

    async def put(self, request: Request[T], timeout_s: float, silence_s: float = 0.0) -> T:
        """The answer to a request. Raises NotReached, or any other BusError."""
        link = await self._linked()
        deadline = self._free_at + max(frame_silence_s(self.endpoint), silence_s)
        if self._clock.monotonic() < deadline:
            await self._clock.sleep_until(deadline)
        try:
            return await request.put(link, timeout_s + request.chars * self.endpoint.char_s)
        except Refused:
            raise
        except BusError:
            if link.matches or not link.alive:
                self.close()
            raise
        finally:
            self._free_at = self._clock.monotonic()

    def close(self) -> None:
        """Close the connection; harmless when repeated."""
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _linked(self) -> Link:
        if self._link is None or not self._link.alive:
            self.close()
            self._link = await self._new_link(RECONNECTS if self._reached else 0)
            self._reached = True
        return self._link

    async def _new_link(self, more: int) -> Link:
        try:
            return await self._connect(self.endpoint, CONNECT_TIMEOUT_S)
        except BusError as error:
            if not more:
                raise NotReached(str(error)) from error
        await self._clock.sleep_until(self._clock.monotonic() + RECONNECT_S)
        return await self._new_link(more - 1)


class Interview:
    """One unit, which is asked each question once, however many want to know."""

    def __init__(self, caller: Caller, unit: int, timeout_s: float) -> None:
        self._caller = caller
        self._unit = unit
        self._timeout_s = timeout_s
        self._answers: dict[tuple[int, int, int], Sequence[int] | BusError] = {}

    async def read(self, block: Block) -> Sequence[int]:
        """The words of a block. Raises BusError."""
        key = (block.function, block.address, block.count)
        if key not in self._answers:
            self._answers[key] = await self._outcome(block)
        outcome = self._answers[key]
        if isinstance(outcome, BusError):
            raise outcome
        return outcome

    async def describe(self) -> Nameplate:
        """What the unit says of itself. Raises BusError."""
        return await self._caller.put(describing(self._unit), self._timeout_s, self._silence_s)

    async def _outcome(self, block: Block) -> Sequence[int] | BusError:
        try:
            return await self._caller.put(reading(self._unit, block), self._timeout_s, self._silence_s)
        except (Refused, Silent) as error:
            return error

    @property
    def _silence_s(self) -> float:
        return SERIAL_SILENCE_S if self._caller.endpoint.char_s else 0.0
