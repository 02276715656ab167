"""What a device says of itself: function 43 / 14, Read Device Identification, basic objects.

Modbus Application Protocol Specification V1.1b3, 6.21. Many devices do not know the function; some do not even refuse.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from agent.meters.modbus.blocks import Block
from agent.meters.modbus.encoding import text
from agent.meters.modbus.errors import BusError, Refused, Silent
from agent.meters.modbus.frames import CRC_BYTES, EXCEPTION, EXCEPTION_BYTES, checksum, is_sound
from hil.yamlfile import Section

FUNCTION: Final = 43
IDENTIFICATION: Final = 14
BASIC: Final = 1

QUESTION: Final = Block(FUNCTION, 0, 60)
"""Stands for the question where its length in words and its function matter; answers are of some 120 bytes at most."""

OBJECTS_AT: Final = 8
"""Where the objects begin in a frame: after unit, function, type, code, conformity, more, next and their number."""


Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class NameplateConfig(Section, frozen=True, kw_only=True):
    """What the texts of a nameplate begin with, one of each; letters count the same in both cases.

    Another vendor is an objection; another product is not, for there are more names than any list has.
    """

    vendor: Names | None = None
    product: Names | None = None

    def recognises(self, found: "Nameplate") -> bool:
        """Whether a nameplate is that of such a device for certain."""
        return self.product is not None and _begins(found.product, self.product) and not self.objection(found)

    def objection(self, found: "Nameplate") -> str:
        """What is wrong with a nameplate; empty where nothing is."""
        if not found.vendor or not self.vendor or _begins(found.vendor, self.vendor):
            return ""
        return f"its vendor is {found.vendor!r}, expected {' or '.join(map(repr, self.vendor))}"


def _begins(text: str, beginnings: Names) -> bool:
    return text.lower().startswith(tuple(beginning.lower() for beginning in beginnings))


@dataclass(frozen=True, slots=True)
class Nameplate:
    """Who made a device, what it is called, and its revision; empty where it does not say."""

    vendor: str = ""
    product: str = ""
    revision: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.vendor, self.product, self.revision) if part)


def nameplate(objects: Mapping[int, bytes]) -> Nameplate:
    """The device's basic objects as text."""
    return Nameplate(*(text(objects.get(number, b"")) for number in range(3)))


class NameplateHunt:
    """Looks for the answer to the question in what comes from a serial line, whatever else comes."""

    def __init__(self, unit: int) -> None:
        self._unit = unit
        content = bytes((unit, FUNCTION, IDENTIFICATION, BASIC, 0))
        self.request = content + checksum(content)
        self._answer = content[:4]
        self._exception = bytes((unit, FUNCTION | EXCEPTION))

    def look(self, received: bytes) -> Nameplate | None:
        """What the answer says; None while there is none. Raises Refused."""
        content = received.removeprefix(self.request)
        for at in range(len(content)):
            if content.startswith(self._answer, at) and (objects := _objects(content[at:])) is not None:
                return nameplate(objects)
            if content.startswith(self._exception, at) and is_sound(content[at:], EXCEPTION_BYTES):
                raise Refused(content[at + 2], asked(self._unit))
        return None

    def failure(self, received: bytes, timeout_s: float) -> BusError:
        """That there was no answer."""
        del received
        return Silent(f"no answer from unit {self._unit} within {timeout_s:.1f} s")


def asked(unit: int) -> str:
    """The question in words."""
    return f"its identification, function {FUNCTION}, unit {unit}"


def _objects(frame: bytes) -> dict[int, bytes] | None:
    """The objects of a frame; None while it is not whole and sound."""
    if len(frame) < OBJECTS_AT:
        return None
    objects: dict[int, bytes] = {}
    at = OBJECTS_AT
    for _ in range(frame[OBJECTS_AT - 1]):
        if len(frame) < at + 2:
            return None
        number, length = frame[at : at + 2]
        objects[number] = frame[at + 2 : at + 2 + length]
        at += 2 + length
    return objects if is_sound(frame, at + CRC_BYTES) else None
