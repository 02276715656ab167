"""Where a Modbus device is reached: over TCP, over a serial line, or over a serial line behind a TCP converter."""

import os
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from hil.yamlfile import Section

Framing = Literal["socket", "rtu"]
Parity = Literal["N", "E", "O"]

START_BIT: Final = 1
DATA_BITS: Final = 8


class SerialConfig(Section, frozen=True, kw_only=True):
    """A serial line: ``{port: /dev/ttyUSB0, baudrate: 9600, parity: N, stopbits: 1}``, always with 8 data bits."""

    port: str
    baudrate: Annotated[int, msgspec.Meta(ge=300, le=1_000_000)]
    parity: Parity = "N"
    stopbits: Literal[1, 2] = 1


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """A host and a port; ``framing`` rtu where a converter passes the bytes of a serial line on as they are."""

    host: str
    port: int
    framing: Framing = "socket"

    @property
    def place(self) -> str:
        """What two devices share that share this endpoint."""
        return f"{self.host}:{self.port}"

    @property
    def char_s(self) -> float:
        """Seconds that a character takes on the line; 0: not known here."""
        return 0.0

    def __str__(self) -> str:
        return self.place if self.framing == "socket" else f"{self.place} (RTU)"


@dataclass(frozen=True, slots=True)
class SerialEndpoint:
    """A serial port and the line's settings."""

    port: str
    baudrate: int
    parity: Parity
    stopbits: int

    @property
    def place(self) -> str:
        """What two devices share that share this endpoint: a port may have several names."""
        return os.path.realpath(self.port)

    @property
    def char_s(self) -> float:
        """Seconds that a character takes on the line."""
        return (START_BIT + DATA_BITS + (self.parity != "N") + self.stopbits) / self.baudrate

    @property
    def settings(self) -> str:
        """The line's settings for people: ``9600 baud, 8N1``."""
        return f"{self.baudrate} baud, {DATA_BITS}{self.parity}{self.stopbits}"

    def __str__(self) -> str:
        return f"{self.port} ({self.settings})"


Endpoint = TcpEndpoint | SerialEndpoint
