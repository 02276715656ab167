"""Reads the registers of a meter, and learns which of them its device does not have."""

import logging
from collections.abc import Iterable
from typing import Final

from agent.meters.modbus.blocks import Block, RegisterImage
from agent.meters.modbus.errors import Refused
from agent.meters.modbus.plan import Ask, Rounds
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.registers import Register
from hil.clock import Clock

_log = logging.getLogger(__name__)

FORGET_S: Final = 3600.0
"""A register that the device does not have is asked for again after so long: it may only have been starting up."""


class Reader:
    """One meter's requests. A block that the device refuses is split; a register that it refuses alone is left out."""

    def __init__(self, name: str, rounds: Rounds, clock: Clock) -> None:
        self._name = name
        self._rounds = self._working = rounds
        self._clock = clock
        self._refused_at: float | None = None
        self._told: set[Register] = set()

    async def read(self, ask: Ask, *, slow: bool) -> RegisterImage:
        """The words of one round, with those of slow registers or without. Raises BusError."""
        if self._refused_at is not None and self._clock.monotonic() - self._refused_at >= FORGET_S:
            self._working, self._refused_at = self._rounds, None
        image = RegisterImage()
        every = await self._learn(self._working.every, ask, image)
        rare = await self._learn(self._working.slow, ask, image) if slow else self._working.slow
        self._working = Rounds(every, rare)
        return image

    async def _learn(self, blocks: Iterable[Block], ask: Ask, image: RegisterImage) -> tuple[Block, ...]:
        """The blocks that the device answers to, its words in ``image``."""
        answered: list[Block] = []
        for block in blocks:
            try:
                image.add(block, await ask.read(block))
            except Refused as error:
                if not error.misplaced or _is_power(block):
                    raise
                parts = block.split() if len(block.registers) > 1 else ()
                if not parts:
                    self._leave_out(block, error)
                answered += await self._learn(parts, ask, image)
            else:
                answered.append(block)
        return tuple(answered)

    def _leave_out(self, block: Block, error: Refused) -> None:
        self._refused_at = self._clock.monotonic()
        for register in block.registers:
            if register not in self._told:
                _log.warning("meter %s: %s is left out: %s", self._name, register.quantity, error)
            self._told.add(register)


def _is_power(block: Block) -> bool:
    return [register.quantity for register in block.registers] == [Quantity.POWER_W]
