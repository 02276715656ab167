"""Which profiles fit a unit that nobody has named, and how sure that is."""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.meters.modbus.blocks import Block, RegisterImage, merge
from agent.meters.modbus.errors import Refused, WrongDevice
from agent.meters.modbus.examine import ask_nameplate, ask_probe
from agent.meters.modbus.judge import resolution_a
from agent.meters.modbus.nameplate import Nameplate
from agent.meters.modbus.oddity import Check, find_oddity, is_checkable, slack_of
from agent.meters.modbus.plan import Ask
from agent.meters.modbus.probe import Probe
from agent.meters.modbus.profile import Profile
from agent.meters.modbus.quantities import PHASE_VOLTAGES, Quantity
from agent.meters.modbus.registers import Register, RegisterError
from agent.meters.modbus.sunspec import fitting, registers_of, walk
from agent.meters.modbus.table import resolve

MAINS_V: Final = (80.0, 1000.0)
MAINS_HZ: Final = (45.0, 65.0)


class Sureness(enum.IntEnum):
    """How sure it is that a profile is the right one."""

    POSSIBLE = 0
    LIKELY = 1
    CERTAIN = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A profile that fits a unit: how surely and why, and what the unit shows through it.

    ``note`` is why it cannot be read as it is. ``outlets`` are those that answer, if there are several.
    """

    name: str
    profile: Profile
    sureness: Sureness
    why: str
    values: Mapping[Quantity, float]
    note: str = ""
    outlets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Recognition:
    """What a device's own words say of a profile: not it, certainly it (and how one can tell), or nothing."""

    refused: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """The believable values of a device's registers, and why there is no believable power among them, if so."""

    values: Mapping[Quantity, float]
    problem: str = ""


async def identify(ask: Ask, profiles: Mapping[str, Profile]) -> tuple[tuple[Candidate, ...], Nameplate | None]:
    """The profiles that fit best, by their names, and what the unit says of itself. Raises BusError."""
    nameplate = await ask_nameplate(ask)
    found = [
        candidate
        for name, profile in profiles.items()
        for candidate in await _candidates(ask, name, profile, nameplate)
    ]
    found.sort(key=lambda candidate: (candidate.sureness, len(candidate.values)), reverse=True)
    best = tuple(candidate for candidate in found if candidate.sureness is found[0].sureness)
    return best, nameplate


async def _candidates(ask: Ask, name: str, profile: Profile, nameplate: Nameplate | None) -> Sequence[Candidate]:
    if profile.sunspec is not None:
        return await _sunspec_candidates(ask, name, profile)
    recognition = await _recognised(ask, profile, nameplate)
    if recognition.refused or profile.registers is None:
        return ()
    registers = resolve(profile.registers, profile.defaults)
    shown = await _show(ask, profile, registers)
    if shown is None:
        return ()
    problem = shown.problem or _odd(shown.values, profile, registers)
    if problem and not recognition.why:
        return ()
    sureness, why = (Sureness.CERTAIN, recognition.why) if recognition.why else _guess(shown.values)
    outlets = await _outlets(ask, profile) if sureness > Sureness.POSSIBLE else (1,) if profile.outlets else ()
    note = await _unmet(ask, profile.requirements) or problem
    return (Candidate(name, profile, sureness, why, shown.values, note, outlets),)


async def _sunspec_candidates(ask: Ask, name: str, profile: Profile) -> Sequence[Candidate]:
    if profile.sunspec is None:
        return ()
    try:
        models = fitting(profile.sunspec, await walk(ask, profile.sunspec.bases))
    except WrongDevice:
        return ()
    if not models:
        return ()
    model, table = models[0]
    shown = await _show(ask, profile, registers_of(model, table, profile.defaults)) or Shown({}, "it shows no power")
    why = f"SunSpec model {model.number} at {model.address}"
    outlets = tuple(range(1, len(models) + 1)) if len(models) > 1 else ()
    return (Candidate(name, profile, Sureness.CERTAIN, why, shown.values, shown.problem, outlets),)


async def _recognised(ask: Ask, profile: Profile, nameplate: Nameplate | None) -> Recognition:
    why = ""
    if profile.nameplate is not None and nameplate is not None:
        if profile.nameplate.objection(nameplate):
            return Recognition(refused=True)
        if profile.nameplate.recognises(nameplate):
            why = f"it says {nameplate}"
    for probe in profile.identity:
        answer = await ask_probe(probe, ask)
        if answer is None:
            continue
        if probe.objection(answer):
            return Recognition(refused=True)
        if probe.recognises(answer):
            why = probe.said(answer)
    return Recognition(why=why)


async def _unmet(ask: Ask, requirements: Iterable[Probe]) -> str:
    for probe in requirements:
        answer = await ask_probe(probe, ask)
        if answer is not None and (objection := probe.objection(answer)):
            return objection
    return ""


async def _show(ask: Ask, profile: Profile, registers: Sequence[Register]) -> Shown | None:
    """What a device shows; None where it has no register of its power."""
    own = {register.quantity: register for register in registers}
    limits, image, problem = profile.block, RegisterImage(), ""
    await _collect(ask, merge([own[Quantity.POWER_W]], limits.max, limits.gap), image)
    try:
        own[Quantity.POWER_W].value(image)
    except LookupError:
        return None
    except RegisterError as error:  # most profiles are done with here, for one request
        problem = str(error)
    else:
        await _collect(ask, merge(registers, limits.max, limits.gap), image)
    values = {quantity: _value(register, image) for quantity, register in own.items()}
    return Shown({quantity: value for quantity, value in values.items() if value is not None}, problem)


async def _collect(ask: Ask, blocks: Iterable[Block], image: RegisterImage) -> None:
    for block in blocks:
        try:
            image.add(block, await ask.read(block))
        except Refused as error:
            if error.unreachable:
                raise
            if len(block.registers) > 1:
                await _collect(ask, block.split(), image)


def _value(register: Register, image: RegisterImage) -> float | None:
    try:
        return register.value(image)
    except (RegisterError, LookupError):
        return None


def _odd(values: Mapping[Quantity, float], profile: Profile, registers: Iterable[Register]) -> str:
    checks = frozenset(Check) - frozenset(profile.unchecked)
    if not is_checkable(values):
        return ""
    oddity = find_oddity(values, checks, slack_of(values, resolution_a(registers)), proven=True)
    return oddity.what if oddity is not None else ""


def _guess(values: Mapping[Quantity, float]) -> tuple[Sureness, str]:
    volts = [values[quantity] for quantity in (Quantity.VOLTAGE_V, *PHASE_VOLTAGES) if quantity in values]
    hertz = values.get(Quantity.FREQUENCY_HZ)
    if any(_within(voltage_v, MAINS_V) for voltage_v in volts) and hertz is not None and _within(hertz, MAINS_HZ):
        return Sureness.LIKELY, "voltage, frequency and power make sense"
    return Sureness.POSSIBLE, "the registers are there, nothing more is known"


def _within(value: float, span: tuple[float, float]) -> bool:
    return span[0] <= value <= span[1]


async def _outlets(ask: Ask, profile: Profile) -> tuple[int, ...]:
    """The outlets that show a power, from the first up to the first that does not."""
    if profile.outlets is None or profile.registers is None:
        return ()
    for number in range(1, profile.outlets.count + 1):
        registers = resolve(profile.registers, profile.defaults, profile.outlets.stride * (number - 1))
        own = {register.quantity: register for register in registers}
        image = RegisterImage()
        await _collect(ask, merge([own[Quantity.POWER_W]]), image)
        if _value(own[Quantity.POWER_W], image) is None:
            return tuple(range(1, number))
    return tuple(range(1, profile.outlets.count + 1))
