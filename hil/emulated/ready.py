"""The file that tells other processes that an emulated world is up, and where its ports are."""

import os
from pathlib import Path
from typing import Literal

import msgspec


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where something listens; ``unit`` and ``framing`` are a Modbus unit's."""

    host: str
    port: int
    unit: int | None = None
    framing: Literal["socket", "rtu"] = "socket"


class SerialPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A Modbus unit on a serial line, the path of its terminal."""

    link: str
    unit: int


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """An emulated world that is up: its process, its places by name, its nodes' journals, its RAPL trees' folders.

    ``pdus`` and ``units`` are those on ports, ``serial`` those on lines, of either kind.
    """

    pid: int
    control: Place
    pdus: dict[str, Place]
    journals: dict[str, str]
    rapl: dict[str, str] = {}
    units: dict[str, Place] = {}
    serial: dict[str, SerialPlace] = {}


def write_ready(path: Path, ready: Ready) -> None:
    """Write the file in one stroke: who sees it sees all of it. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(ready) + b"\n")
    draft.replace(path)


def read_ready(path: Path) -> Ready | None:
    """The world that is up; None while there is no such file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ready)
    except FileNotFoundError:
        return None
