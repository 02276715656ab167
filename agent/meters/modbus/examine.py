"""Looks at a device before its first reading: is it the one that its profile describes, and where are its registers?"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from agent.meters.modbus.errors import Refused, Silent, WrongDevice
from agent.meters.modbus.nameplate import Nameplate, NameplateConfig
from agent.meters.modbus.plan import Ask
from agent.meters.modbus.probe import Answer, Probe
from agent.meters.modbus.registers import Register
from agent.meters.modbus.sunspec import SunSpecConfig, choose, registers_of, walk
from agent.meters.modbus.table import Defaults

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Examination:
    """The questions of a profile; any answer that it does not accept is raised as WrongDevice."""

    profile: str
    nameplate: NameplateConfig | None
    identity: tuple[Probe, ...]
    requirements: tuple[Probe, ...]
    registers: tuple[Register, ...]

    async def __call__(self, ask: Ask) -> tuple[Register, ...]:
        """The registers, as the profile has them. Raises BusError; WrongDevice for a device that must not be read."""
        objection = await self._other_maker(ask) or await _objection(self.identity, ask)
        if objection:
            raise WrongDevice(f"not a {self.profile}: {objection} (identify: false reads it nevertheless)")
        objection = await _objection(self.requirements, ask)
        if objection:
            raise WrongDevice(f"not set up for {self.profile}: {objection}")
        return self.registers

    async def _other_maker(self, ask: Ask) -> str:
        if self.nameplate is None:
            return ""
        found = await ask_nameplate(ask)
        return self.nameplate.objection(found) if found is not None else ""


@dataclass(frozen=True, slots=True)
class SunSpecExamination:
    """Walks a chain of models to the ``nth`` that there is a table for."""

    config: SunSpecConfig
    defaults: Defaults
    nth: int = 1

    async def __call__(self, ask: Ask) -> tuple[Register, ...]:
        """The registers of the model, where this device has it. Raises BusError or WrongDevice."""
        model, table = choose(self.config, await walk(ask, self.config.bases), self.nth)
        _log.debug("SunSpec model %d at %d", model.number, model.address)
        return registers_of(model, table, self.defaults)


async def _objection(probes: Iterable[Probe], ask: Ask) -> str:
    for probe in probes:
        answer = await ask_probe(probe, ask)
        objection = probe.objection(answer) if answer is not None else ""
        if objection:
            return objection
    return ""


async def ask_probe(probe: Probe, ask: Ask) -> Answer | None:
    """What a device answers; None from one that knows no such register, which proves nothing. Raises BusError."""
    try:
        return probe.answer(await ask.read(probe.block))
    except Silent:  # so do some with a register that they do not have
        return None
    except Refused as error:
        if error.unreachable:
            raise
        return None


async def ask_nameplate(ask: Ask) -> Nameplate | None:
    """What a device says of itself; None from one that does not know how to, which proves nothing. Raises BusError."""
    try:
        return await ask.describe()
    except Silent:  # some know the function so little that they do not even refuse
        return None
    except Refused as error:
        if error.unreachable:
            raise
        return None
