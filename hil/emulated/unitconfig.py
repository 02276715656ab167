"""Modbus units in the file that describes an emulated world.

.. code-block:: yaml

    pdus:
      - name: pdu-1
        port: 5020                  # 0: a free one
        unit: 1
        outlets: {1: jetson-1}
    units:                          # as a real device would show the node
      - name: meter-1
        profile: sdm630.yaml        # a profile of the agent, relative to this file
        node: jetson-1              # or outlets, as for a PDU
        unit: 5
        serial: {link: /tmp/tty-meter, baudrate: 9600, stopbits: 1, turnaround_ms: 5}
      - name: meter-2
        profile: sdm630.yaml
        node: jetson-1
        port: 5022
        framing: rtu                # as a converter that passes a serial line's bytes on

Units with the same host and port, or the same link, share it, as units on one gateway or line do.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec

from hil.emulated.modbustcp import Framing
from hil.emulated.pdu import MAX_OUTLETS
from hil.emulated.registermap import load_map
from hil.emulated.serialline import LineSettings
from hil.wire import Name
from hil.yamlfile import ConfigError, Document, Section

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
UnitId = Annotated[int, msgspec.Meta(ge=1, le=247)]
Outlet = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Outlets = Annotated[dict[Outlet, Name], msgspec.Meta(min_length=1)]


class SerialConfig(Section, frozen=True, kw_only=True):
    """A serial line: a pseudo-terminal reached by ``link``; ``echo``: whoever talks hears itself."""

    link: Annotated[str, msgspec.Meta(min_length=1)]
    baudrate: Annotated[int, msgspec.Meta(ge=300, le=1_000_000)] = 9600
    stopbits: Literal[1, 2] = 1
    turnaround_ms: Annotated[float, msgspec.Meta(ge=0, le=10_000)] = 5.0
    echo: bool = False

    @property
    def settings(self) -> LineSettings:
        """How the line is set."""
        return LineSettings(self.baudrate, self.stopbits, self.turnaround_ms / 1000, self.echo)


class UnitConfig(Section, frozen=True, kw_only=True):
    """Where a unit is reached: on a port, or on a serial line."""

    name: Name
    host: str = "127.0.0.1"
    port: Port = 0
    framing: Framing = "socket"
    serial: SerialConfig | None = None
    unit: UnitId = 1

    def __post_init__(self) -> None:
        if self.serial is not None and (self.port or self.framing != "socket"):
            raise ValueError("expected port and framing only without serial")

    @property
    def place(self) -> str:
        """What units share that share a port or a line; each free port is another."""
        if self.serial is not None:
            return self.serial.link
        return f"{self.host}:{self.port}" if self.port else self.name


class PduConfig(UnitConfig, frozen=True, kw_only=True):
    """An emulated PDU: a Modbus unit whose outlets feed nodes."""

    outlets: Outlets


class ProfileUnitConfig(UnitConfig, frozen=True, kw_only=True):
    """A unit that shows a node, or one by outlet, as the device of a profile would."""

    profile: str
    node: Name | None = None
    outlets: Outlets | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.node is None) == (self.outlets is None):
            raise ValueError("expected either node or outlets")

    @property
    def feeds(self) -> Mapping[int, str]:
        """The nodes by outlet."""
        return self.outlets if self.outlets is not None else {1: self.node or ""}


def check_units(
    pdus: Iterable[PduConfig], units: Iterable[ProfileUnitConfig], nodes: set[str], document: Document[Any]
) -> None:
    """Note in ``document`` outlets that do not exist or feed no node, and units that cannot share what they share."""
    places: dict[str, list[UnitConfig]] = {}
    for index, pdu in enumerate(pdus):
        _check_outlets(pdu.outlets, nodes, MAX_OUTLETS, ("pdus", index), document)
        _check_place(pdu, places, ("pdus", index), document)
    for index, unit in enumerate(units):
        _check_outlets(unit.feeds, nodes, _outlet_count(unit, index, document), ("units", index), document)
        _check_place(unit, places, ("units", index), document)


def _check_outlets(
    feeds: Mapping[int, str], nodes: set[str], most: int, key: tuple[str, int], document: Document[Any]
) -> None:
    for outlet, node in feeds.items():
        if node not in nodes:
            document.add((*key, "outlets", str(outlet)), node, "expected the name of a node above")
        if outlet > most:
            document.add((*key, "outlets", str(outlet)), outlet, f"expected 1 to {most}")


def _outlet_count(unit: ProfileUnitConfig, index: int, document: Document[Any]) -> int:
    try:
        return load_map(document.resolve(unit.profile)).outlet_count
    except ConfigError as error:
        document.add(("units", index, "profile"), unit.profile, str(error))
        return MAX_OUTLETS


def _check_place(
    unit: UnitConfig, places: dict[str, list[UnitConfig]], key: tuple[str, int], document: Document[Any]
) -> None:
    others = places.setdefault(unit.place, [])
    if any(other.unit == unit.unit for other in others):
        document.add((*key, "unit"), unit.unit, f"another unit on {unit.place} has this number")
    if any((other.serial, other.framing) != (unit.serial, unit.framing) for other in others):
        document.add(key, unit.place, "expected the same settings as for another unit there")
    others.append(unit)
