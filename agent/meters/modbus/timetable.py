"""Whether what shares a line fits on it, found before anything is asked."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.bus import frame_silence_s
from agent.meters.modbus.endpoint import Endpoint, TcpEndpoint
from agent.meters.modbus.frames import answer_chars, request_chars
from agent.meters.modbus.plan import SLOW_EVERY, Plan
from hil.yamlfile import Document, Key


@dataclass(frozen=True, slots=True)
class Booking:
    """One meter's use of its endpoint; ``key`` is where it stands in the configuration."""

    key: Key
    endpoint: Endpoint
    plan: Plan
    interval_s: float


@dataclass(frozen=True, slots=True)
class Share:
    """Seconds that a line is taken, and by what."""

    requests: int = 0
    words: int = 0
    frames_s: float = 0.0
    silence_s: float = 0.0
    turnaround_s: float = 0.0

    def __add__(self, other: "Share") -> "Share":
        return Share(
            self.requests + other.requests,
            self.words + other.words,
            self.frames_s + other.frames_s,
            self.silence_s + other.silence_s,
            self.turnaround_s + other.turnaround_s,
        )

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.frames_s + self.silence_s + self.turnaround_s

    def __str__(self) -> str:
        return (
            f"{self.total_s:.2f} s: {self.words} registers in {self.requests} requests {self.frames_s:.2f} s, "
            f"silence {self.silence_s:.2f} s, turnaround {self.turnaround_s:.2f} s"
        )


def check_lines(bookings: Iterable[Booking], document: Document[Any]) -> None:
    """Note in ``document`` lines with two settings, and those on which a round of readings takes too long."""
    places: defaultdict[str, list[Booking]] = defaultdict(list)
    for booking in bookings:
        places[booking.endpoint.place].append(booking)
    for sharing in places.values():
        first = sharing[0]
        for other in sharing[1:]:
            if other.endpoint != first.endpoint:
                expected = f"expected {first.endpoint} as for another meter, for they share it"
                document.add(other.key, str(other.endpoint), expected)
        _check_round(sharing, document)


def round_of(sharing: Iterable[Booking]) -> Share:
    """What the longest round of readings takes, when each of the meters that share a line is read once.

    Slow registers are read in turn, not by all meters in the same round.
    """
    every = slowest = Share()
    slow = 0
    for booking in sharing:
        rounds = booking.plan.rounds()
        every += _share(rounds.every, booking)
        rare = _share(rounds.slow, booking)
        slow += rare.requests > 0
        slowest = max(slowest, rare, key=lambda share: share.total_s)
    for _ in range(math.ceil(slow / SLOW_EVERY)):
        every += slowest
    return every


def _check_round(sharing: list[Booking], document: Document[Any]) -> None:
    hasty = min(sharing, key=lambda booking: booking.interval_s)
    share = round_of(sharing)
    if share.total_s > hasty.interval_s:
        meters = f"the {len(sharing)} meters" if len(sharing) > 1 else "the one meter"
        takes = f"a round of {meters} on {hasty.endpoint} takes {share}"
        document.add((*hasty.key, "interval_s"), f"{hasty.interval_s:g} s", f"too short, {takes}")


def _share(blocks: tuple[Block, ...], booking: Booking) -> Share:
    endpoint, plan = booking.endpoint, booking.plan
    waits = not (isinstance(endpoint, TcpEndpoint) and endpoint.framing == "socket")
    return Share(
        requests=len(blocks),
        words=sum(block.count for block in blocks),
        frames_s=sum(request_chars() + answer_chars(block.count) for block in blocks) * endpoint.char_s,
        silence_s=len(blocks) * max(frame_silence_s(endpoint), plan.silence_s),
        turnaround_s=len(blocks) * plan.turnaround_s if waits else 0.0,
    )
