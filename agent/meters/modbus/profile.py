"""Profiles: what a kind of device has in its registers, as a YAML file people can check against its manual.

.. code-block:: yaml

    profile: example-meter
    vendor: Example
    model: M1, M2
    status: transcribed        # verified: on a device; transcribed: from the source; guess
    source: where the figures come from
    function: 3                # 3: holding registers, 4: input registers
    word_order: big            # big: high word first
    block: {max: 60, gap: 4}   # words a request may ask for, unused words it may skip over
    outlets: {count: 24, stride: 20}   # for a device with several; addresses below are the first's
    registers:
      power_w: {address: 0x34, type: f32, range: [0, 4000]}
      energy_j: {address: 0x48, type: f32, unit: kWh}
      voltage_v: {address: 0, type: i32, scale: 0.1, not_available: [0x7FFFFFFF]}
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from agent.meters.modbus.blocks import MAX_WORDS
from agent.meters.modbus.quantities import TRAITS
from agent.meters.modbus.registers import Function, RegisterTable, WordOrder
from hil.yamlfile import ConfigError, Document, Key, Section, load

FOLDER: Final = Path(__file__).parent.parent / "profiles"
ADDRESSES: Final = 0x10000

Words = Annotated[int, msgspec.Meta(ge=1, le=MAX_WORDS)]
Gap = Annotated[int, msgspec.Meta(ge=0, le=MAX_WORDS)]


class BlockLimits(Section, frozen=True, kw_only=True):
    """How many words a request may ask for, and how many unused ones in a row it may take along."""

    max: Words = MAX_WORDS
    gap: Gap = 0


class Outlets(Section, frozen=True, kw_only=True):
    """A device with several outlets, each ``stride`` words after the one before."""

    count: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    stride: Annotated[int, msgspec.Meta(ge=1, le=10_000)]


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
    addresses: Literal["wire"] | None = None
    block: BlockLimits = BlockLimits()
    outlets: Outlets | None = None
    registers: RegisterTable


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
    reach = (profile.outlets.count - 1) * profile.outlets.stride if profile.outlets else 0
    check_table(
        profile.registers,
        document,
        ("registers",),
        function=profile.function,
        reach=reach,
        vouched=profile.addresses == "wire",
    )
    document.check()
    return profile


def check_table(
    table: RegisterTable,
    document: Document[Any],
    key: Key,
    *,
    function: Function,
    reach: int = 0,
    vouched: bool = False,
) -> None:
    """Note in ``document`` units that do not fit and addresses that, ``reach`` words on, cannot be on the wire."""
    for quantity, register in table.given().items():
        at = (*key, str(quantity))
        units = TRAITS[quantity].units
        if register.unit is not None and register.unit not in units:
            document.add((*at, "unit"), register.unit, f"expected one of {', '.join(units)}")
        end = register.address + register.words + reach
        complaint = _complaint(register.address, end, register.function or function, vouched)
        if complaint:
            document.add((*at, "address"), register.address, complaint)


def _complaint(address: int, end: int, function: int, vouched: bool) -> str | None:
    """What is wrong with an address; manuals number from 1 and put the digit of the kind of register in front."""
    digit = {3: 4, 4: 3}[function]
    for first, count in ((digit * 100_000 + 1, ADDRESSES), (digit * 10_000 + 1, 9_999)):
        possible = end <= ADDRESSES
        if first <= address < first + count and not (vouched and possible):
            unless = "; if it is the one on the wire, say addresses: wire" if possible else ""
            return f"looks like a manual's number, expected the address on the wire: {address - first}?{unless}"
    if end > ADDRESSES:
        return f"expected an address on the wire, 0 to {ADDRESSES - 1} with all of the value's words"
    return None


def load_or_note(path: Path, document: Document[Any]) -> Profile | None:
    """The profile in a file, or None and its faults noted in ``document``."""
    try:
        return load_profile(path)
    except ConfigError as error:
        document.faults.extend(fault for fault in error.faults if fault not in document.faults)
        return None
