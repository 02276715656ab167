"""Profiles: what a kind of device has in its registers, as a YAML file people can check against its manual.

.. code-block:: yaml

    profile: example-meter
    vendor: Example
    model: M1, M2
    status: transcribed        # verified: on a device; transcribed: from the source; guess
    source: where the figures come from
    function: 3                # 3: holding registers, 4: input registers
    word_order: big            # big: high word first
    byte_order: big            # big: high byte of a word first
    block: {max: 60, gap: 4}   # words a request may ask for, unused words it may skip over
    silence_ms: 100            # before a request, on a serial line
    turnaround_ms: 20          # what the device takes before it answers
    line: {baudrate: 9600}     # how its serial port leaves the factory
    rating: {power_w: 4000, voltage_v: 300, current_a: 16}   # the largest amounts that it can show
    outlets: {count: 24, stride: 20}   # for a device with several; addresses below are the first's
    nameplate: {vendor: [Example]}     # what it answers to function 43 / 14, if it does
    identify:
      - {address: 0xFC02, function: 3, expect: [0x0070]}
    require:
      - {address: 0xA000, expect: [7], because: it must be set to application H}
    unchecked: [phases]        # physics checks that do not hold for it
    registers:
      power_w: {address: 0x34, type: f32, range: [0, 4000]}
      energy_j: {address: 0x48, type: f32, unit: kWh, slow: true}
      voltage_v: {address: 0, type: i32, scale: 0.1, not_available: [0x7FFFFFFF]}
    fixtures:
      - source: a response in the manual, section 4.2
        words: {0x34: [0x4366, 0x3333]}
        expect: {power_w: 230.2}

Instead of ``registers`` a device that says itself where they are has ``sunspec`` (see ``sunspec.py``).
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from agent.meters.modbus.blocks import MAX_WORDS
from agent.meters.modbus.encoding import ByteOrder, WordOrder
from agent.meters.modbus.endpoint import Parity
from agent.meters.modbus.fixture import Fixture
from agent.meters.modbus.nameplate import NameplateConfig
from agent.meters.modbus.oddity import Check
from agent.meters.modbus.plan import TURNAROUND_S
from agent.meters.modbus.probe import Probe, ProbeConfig, probe
from agent.meters.modbus.sunspec import SunSpecConfig
from agent.meters.modbus.table import NO_RATING, Defaults, Function, Rating, RegisterTable, check_table, complaint
from hil.yamlfile import ConfigError, Document, Key, Section, load

FOLDER: Final = Path(__file__).parent.parent / "profiles"

Words = Annotated[int, msgspec.Meta(ge=1, le=MAX_WORDS)]
Gap = Annotated[int, msgspec.Meta(ge=0, le=MAX_WORDS)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=2000)]
Baudrate = Annotated[int, msgspec.Meta(ge=300, le=1_000_000)]


class BlockLimits(Section, frozen=True, kw_only=True):
    """How many words a request may ask for, and how many unused ones in a row it may take along."""

    max: Words = MAX_WORDS
    gap: Gap = 0


class Outlets(Section, frozen=True, kw_only=True):
    """A device with several outlets, each ``stride`` words after the one before."""

    count: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    stride: Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class LineConfig(Section, frozen=True, kw_only=True):
    """How a device's serial port leaves the factory."""

    baudrate: Baudrate
    parity: Parity = "N"
    stopbits: Literal[1, 2] = 1


class Profile(Section, frozen=True, kw_only=True):
    """A kind of device. ``addresses: wire`` vouches for addresses that look like a manual's 3xxxx or 4xxxx numbers."""

    profile: str
    vendor: str
    model: str
    status: Literal["verified", "transcribed", "guess"]
    source: str
    notes: str = ""
    function: Function = 3
    word_order: WordOrder = "big"
    byte_order: ByteOrder = "big"
    addresses: Literal["wire"] | None = None
    block: BlockLimits = BlockLimits()
    silence_ms: Milliseconds = 0.0
    turnaround_ms: Milliseconds = 1000.0 * TURNAROUND_S
    line: LineConfig | None = None
    rating: Rating = NO_RATING
    outlets: Outlets | None = None
    nameplate: NameplateConfig | None = None
    identify: tuple[ProbeConfig, ...] = ()
    require: tuple[ProbeConfig, ...] = ()
    unchecked: tuple[Check, ...] = ()
    registers: RegisterTable | None = None
    sunspec: SunSpecConfig | None = None
    fixtures: tuple[Fixture, ...] = ()

    def __post_init__(self) -> None:
        if (self.registers is None) == (self.sunspec is None):
            raise ValueError("expected either registers or sunspec")
        if self.sunspec is not None and self.outlets is not None:
            raise ValueError("expected no outlets with sunspec: a model is an outlet")

    @property
    def defaults(self) -> Defaults:
        """What holds for registers that do not say otherwise."""
        return Defaults(self.function, self.word_order, self.byte_order, self.rating)

    @property
    def identity(self) -> tuple[Probe, ...]:
        """The questions that tell whether a device is of this kind."""
        return tuple(probe(config, self.defaults) for config in self.identify)

    @property
    def requirements(self) -> tuple[Probe, ...]:
        """The questions that tell whether a device of this kind is set up as the table needs it."""
        return tuple(probe(config, self.defaults) for config in self.require)


def shipped() -> tuple[str, ...]:
    """The names of the profiles that come with the agent."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def find(name: str, document: Document[Any]) -> Path | None:
    """The file of a shipped profile, or of one that ``document`` names by its path; None if there is none so called."""
    if name in shipped():
        return FOLDER / f"{name}.yaml"
    return document.resolve(name) if name.endswith((".yaml", ".yml")) else None


def load_profile(path: Path) -> Profile:
    """The profile in a file. Raises ConfigError with every fault."""
    document = load(path, Profile)
    profile = document.value
    vouched = profile.addresses == "wire"
    reach = (profile.outlets.count - 1) * profile.outlets.stride if profile.outlets else 0
    if profile.registers is not None:
        check_table(
            profile.registers, document, ("registers",), function=profile.function, reach=reach, vouched=vouched
        )
    if profile.sunspec is not None:
        for index, entry in enumerate(profile.sunspec.tables):
            key: Key = ("sunspec", "tables", index, "registers")
            check_table(entry.registers, document, key, function=profile.function, vouched=vouched)
    for name, probes in (("identify", profile.identify), ("require", profile.require)):
        for index, config in enumerate(probes):
            end = config.address + config.count
            if found := complaint(config.address, end, config.function or profile.function, vouched):
                document.add((name, index, "address"), config.address, found)
    document.check()
    return profile


def load_or_note(path: Path, document: Document[Any]) -> Profile | None:
    """The profile in a file, or None and its faults noted in ``document``."""
    try:
        return load_profile(path)
    except ConfigError as error:
        document.faults.extend(fault for fault in error.faults if fault not in document.faults)
        return None
