"""What profiles make of registers that mean nothing: no crash, no number without end, no absurd reading called good.

Register images are made up from a seed, and each is read through one of the shipped profiles by the code that judges a
meter's first reading: random words, words of the profile's fixtures that are shifted, swapped, damaged or scaled, "not
available" and NaN of every type, plausible floating-point and whole numbers. Whether a reading that was called good is
absurd is decided here by other means: bounds typed by hand, and the power that voltage and current allow.

    python bench/profile_fuzz.py [--blocks 1000000] [--seed 1] [--unchecked]

prints one JSON line; the exit status is 1 if anything was found. ``--unchecked`` is the control: without the meter's
own checks there must be something to find.
"""

import argparse
import json
import logging
import math
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.meters.modbus.judge import Judge
from agent.meters.modbus.oddity import Check
from agent.meters.modbus.profile import FOLDER, Profile, load_profile, shipped
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.registers import Register, RegisterError
from agent.meters.modbus.table import resolve
from hil.devices import Quality, Reading

BOUNDS = {
    Quantity.POWER_W: (-1.001e8, 1.001e8),
    Quantity.ENERGY_J: (-1.0, 3.2e17),
    Quantity.VOLTAGE_V: (-1e6, 1e6),
    Quantity.CURRENT_A: (-1e5 - 1, 1e5 + 1),
    Quantity.FREQUENCY_HZ: (-0.5, 1000.5),
    Quantity.POWER_FACTOR: (-1.02, 1.02),
    Quantity.APPARENT_VA: (-1.001e8, 1.001e8),
}
PER_PHASE = {"power": Quantity.POWER_W, "voltage": Quantity.VOLTAGE_V, "current": Quantity.CURRENT_A}
PHASES = ("l1", "l2", "l3")

EXCESS = 1.5
"""Power may be so many times what voltage and current allow, and EXCESS_W more, at most: meters are not that exact."""
EXCESS_W = 5.0

WORDS = (0x0000, 0xFFFF, 0x8000, 0x7FFF, 0x7FC0, 0x7F80, 0xFF80, 0x7FF8, 0x7FF0, 0xFFF8, 0x0001, 0xFFFE)

Words = dict[tuple[int, int], int]
"""Words by function and address."""


class Image:
    """The words of one device, at one moment."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def words(self, function: int, address: int, count: int) -> Sequence[int]:
        """``count`` words from ``address`` on."""
        return [self._words[function, at] for at in range(address, address + count)]


@dataclass
class Device:
    """One table of one profile, and the words that a fixture has for it."""

    name: str
    profile: Profile
    registers: tuple[Register, ...]
    places: tuple[tuple[int, int], ...]
    known: list[Words]


@dataclass
class Tally:
    """What came of it."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def find(self, device: Device, what: str) -> None:
        """Note what must not be."""
        self.findings.append(f"{device.name}: {what}")


def devices() -> list[Device]:
    """Every table of every shipped profile."""
    found = []
    for name in shipped():
        profile = load_profile(FOLDER / f"{name}.yaml")
        tables = [profile.registers] if profile.registers else [entry.registers for entry in profile.sunspec.tables]
        for table in tables:
            registers = resolve(table, profile.defaults)
            needed = [part for register in registers for part in register.needs]
            places = sorted({(part.function, part.address + n) for part in needed for n in range(part.count)})
            found.append(Device(name, profile, registers, tuple(places), known_words(profile, places)))
    return found


def known_words(profile: Profile, places: Sequence[tuple[int, int]]) -> list[Words]:
    """The words of the fixtures, as far as they lie where the registers are."""
    words = []
    for fixture in profile.fixtures:
        offset = profile.outlets.stride * ((fixture.outlet or 1) - 1) if profile.outlets else 0
        flat = {at - offset + n: word for at, run in fixture.words.items() for n, word in enumerate(run)}
        own = {(function, at): flat[at] for function, at in places if at in flat}
        if own:
            words.append(own)
    return words


# Images


def anything(device: Device, chance: random.Random) -> Words:
    """Any word anywhere."""
    return {place: chance.getrandbits(16) for place in device.places}


def marks(device: Device, chance: random.Random) -> Words:
    """The words that devices have for "nothing", and their neighbours."""
    return {place: chance.choice(WORDS) for place in device.places}


def small(device: Device, chance: random.Random) -> Words:
    """Small whole numbers."""
    return {place: chance.choice((0, 0, chance.getrandbits(8), chance.getrandbits(13))) for place in device.places}


def floats(device: Device, chance: random.Random) -> Words:
    """Numbers of any size, in pairs of words that need not be those of the registers."""
    words: Words = dict.fromkeys(device.places, 0)
    for at, place in enumerate(device.places[:-1]):
        if at % 2 == 0:
            value = chance.choice((-1, 1)) * 10 ** chance.uniform(-3, chance.choice((4, 8, 38)))
            words[place], words[device.places[at + 1]] = struct.unpack(">2H", struct.pack(">f", min(value, 3e38)))
    return words


def mains(device: Device, chance: random.Random) -> Words:
    """Numbers as they could be, each made without regard to the others."""
    words: Words = dict.fromkeys(device.places, 0)
    for register in device.registers:
        for part in register.needs:
            value = 10 ** chance.uniform(-1, 5) * chance.choice((1, 1, 1, -1))
            run = encoded(part, value / part.factor)
            words |= {(part.function, part.address + n): word for n, word in enumerate(run)}
    return words


def encoded(register: Register, raw: float) -> Sequence[int]:
    """A raw number as the register's type has it."""
    bits = 16 * register.count
    if register.type in {"f32", "f64"}:
        content = struct.pack(">f" if bits == 32 else ">d", raw)
    else:
        content = (round(raw) % (1 << bits)).to_bytes(bits // 8, "big")
    run = struct.unpack(f">{register.count}H", content)
    return run[::-1] if register.little else run


def disturbed(device: Device, chance: random.Random) -> Words:
    """A fixture's words: as they are, moved, swapped, with bits flipped, or some of them gone."""
    if not device.known:
        return anything(device, chance)
    words: Words = dict.fromkeys(device.places, 0) | chance.choice(device.known)
    kind = chance.randrange(5)
    if kind == 0:
        shift = chance.choice((-2, -1, 1, 2))
        return {(f, at): words.get((f, at + shift), chance.getrandbits(16)) for f, at in device.places}
    if kind == 1:
        return {(f, at): words.get((f, at ^ 1), 0) for f, at in device.places}
    if kind == 2:
        return {(f, at): (word & 0xFF) << 8 | word >> 8 for (f, at), word in words.items()}
    if kind == 3:
        for place in chance.sample(device.places, min(len(device.places), 3)):
            words[place] ^= 1 << chance.randrange(16)
        return words
    for place in chance.sample(device.places, len(device.places) // 3):
        words[place] = chance.choice(WORDS)
    return words


MAKERS: tuple[Callable[[Device, random.Random], Words], ...] = (anything, marks, small, floats, mains, disturbed)


# Judging what came of one


def try_one(device: Device, words: Words, checks: frozenset[Check], tally: Tally) -> None:
    """Read an image through a profile, and note how it went."""
    image = Image(words)
    values = {}
    for register in device.registers:
        try:
            values[register.quantity] = register.value(image)
        except RegisterError:
            tally.outcomes["refused_values"] += 1
    tally.outcomes["values"] += len(values)
    for quantity, value in values.items():
        check_value(device, quantity, value, tally)
    judge = Judge(device.name, device.registers, checks - frozenset(device.profile.unchecked))
    try:
        reading = judge.reading(image, 0.0)  # type: ignore[arg-type]  # it only asks for words
    except RegisterError:
        tally.outcomes["no_reading"] += 1
        return
    tally.outcomes[reading.quality] += 1
    if reading.quality is Quality.GOOD:
        check_reading(device, reading, values, tally)


def check_value(device: Device, quantity: Quantity, value: float, tally: Tally) -> None:
    """Hold a single value against bounds typed by hand."""
    whole = PER_PHASE.get(quantity.partition("_")[0]) if "_l" in quantity else quantity
    low, high = BOUNDS[whole or quantity]
    if not math.isfinite(value) or not low <= value <= high:
        tally.find(device, f"{quantity} is {value!r}")


def check_reading(device: Device, reading: Reading, values: dict[Quantity, float], tally: Tally) -> None:
    """Hold a reading that was called good against what voltage and current allow."""
    power_w = reading.power_w
    if power_w is None or not math.isfinite(power_w):
        tally.find(device, f"good, and power is {power_w!r}")
        return
    if reading.energy_j is not None and not math.isfinite(reading.energy_j):
        tally.find(device, f"good, and energy is {reading.energy_j!r}")
    most_w = allowed_w(values)
    step_a = max([0.01, *(abs(r.factor) for r in device.registers if r.quantity.endswith("_a") and r.type[0] != "f")])
    volts = sum(abs(value) for quantity, value in values.items() if quantity.startswith("voltage"))
    if most_w is not None and abs(power_w) > EXCESS * most_w + EXCESS_W + volts * step_a:
        tally.find(device, f"good, and power is {power_w:.6g} W where volts and amperes make {most_w:.6g} W: {values}")


def allowed_w(values: dict[Quantity, float]) -> float | None:
    """The most power that voltage and current make, in W; None where they are not all known."""
    pairs = [(f"voltage_{phase}_v", f"current_{phase}_a") for phase in PHASES]
    if not all(name in values for pair in pairs for name in pair):
        pairs = [("voltage_v", "current_a")]
    if not all(name in values for pair in pairs for name in pair):
        return None
    return sum(abs(values[Quantity(volts)] * values[Quantity(amperes)]) for volts, amperes in pairs)


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1_000_000, help="images to read (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the images (%(default)s)")
    parser.add_argument("--unchecked", action="store_true", help="without the meter's own checks, as a control")
    arguments = parser.parse_args()
    checks = frozenset[Check]() if arguments.unchecked else frozenset(Check)
    logging.disable(logging.CRITICAL)
    chance, tally, every = random.Random(arguments.seed), Tally(), devices()
    began = time.perf_counter()
    for at in range(arguments.blocks):
        device = every[at % len(every)]
        try:
            try_one(device, chance.choice(MAKERS)(device, chance), checks, tally)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
            tally.find(device, f"{type(error).__name__}: {error}")
    took_s = time.perf_counter() - began
    print(
        json.dumps(
            {
                "bench": "profile_fuzz",
                "seed": arguments.seed,
                "blocks": arguments.blocks,
                "tables": len(every),
                "outcomes": dict(sorted(tally.outcomes.items())),
                "us_per_block": round(took_s / max(1, arguments.blocks) * 1e6, 1),
                "findings": len(tally.findings),
                "examples": tally.findings[:5],
            }
        )
    )
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
