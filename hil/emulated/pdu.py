"""A metered power distribution unit as Modbus shows it: the registers of its outlets, each feeding one node.

Register map ``wattloop-pdu``, version 1. Input registers (function 4), 0-based addresses as on the wire, high word
first. Outlet n (from 1) begins at ``1000 + 20·(n − 1)``.

=========  ======  ==================================================================
address    type    content
=========  ======  ==================================================================
0          u16     0x574C, "WL"
1          u16     version of the map: 1
2          u16     number of outlets
4 … 11     text    model, 16 bytes: ``wattloop-pdu``
outlet+0   f32     active power, W
outlet+2   f32     voltage, V
outlet+4   f32     current, A
outlet+6   f32     frequency, Hz
outlet+8   f32     power factor
outlet+10  f32     apparent power, VA
outlet+12  u64     energy since the emulation began, mJ
outlet+16  u16×4   reserved, 0
=========  ======  ==================================================================

The unit is as exact as its registers: what a node draws is what its outlet shows.
"""

import enum
import math
import random
import struct
from collections.abc import Mapping
from typing import Final

from hil.emulated.node import EmulatedNode

IDENTITY: Final = 0
IDENTITY_WORDS: Final = 12
OUTLETS: Final = 1000
STRIDE: Final = 20
MAX_OUTLETS: Final = 48

VOLTAGE_V: Final = 230.0
FREQUENCY_HZ: Final = 50.0
POWER_FACTOR: Final = 0.98

_OUTLET = struct.Struct(">ffffffQ8x")
_WORDS: Final = f">{STRIDE}H"


class Quantity(enum.StrEnum):
    """What an outlet's registers hold, in their order."""

    POWER_W = "power_w"
    VOLTAGE_V = "voltage_v"
    CURRENT_A = "current_a"
    FREQUENCY_HZ = "frequency_hz"
    POWER_FACTOR = "power_factor"
    APPARENT_VA = "apparent_va"
    ENERGY_J = "energy_j"


class Fault(enum.StrEnum):
    """What can be wrong with a unit."""

    SILENT = "silent"
    EXCEPTION = "exception"
    NAN = "nan"
    GARBAGE = "garbage"


class EmulatedPdu:
    """One Modbus unit. ``fault`` and ``override`` make it lie or fall silent; nothing else does."""

    def __init__(self, name: str, outlets: Mapping[int, EmulatedNode]) -> None:
        self.name = name
        self.fault: Fault | None = None
        self._outlets = dict(outlets)
        self._overrides: dict[tuple[int, Quantity], float] = {}
        self._garbage = random.Random(name)

    @property
    def outlet_count(self) -> int:
        """How many outlets the unit has; one that feeds no node draws nothing."""
        return max(self._outlets, default=0)

    def override(self, outlet: int, quantity: Quantity, value: float | None) -> None:
        """Show ``value`` in an outlet's register whatever the node draws; None shows the node again."""
        if value is None:
            self._overrides.pop((outlet, quantity), None)
        else:
            self._overrides[outlet, quantity] = value

    def identity_words(self) -> tuple[int, ...]:
        """The registers from address 0."""
        content = struct.pack(">HHHH16s", 0x574C, 1, self.outlet_count, 0, b"wattloop-pdu")
        return struct.unpack(f">{IDENTITY_WORDS}H", content)

    def outlet_words(self, outlet: int) -> tuple[int, ...]:
        """The registers of one outlet, now."""
        if self.fault is Fault.GARBAGE:
            return tuple(self._garbage.randrange(0x10000) for _ in range(STRIDE))
        node = self._outlets.get(outlet)
        power_w, energy_j = (node.power_w, node.energy_j) if node else (0.0, 0.0)
        values = {
            Quantity.POWER_W: power_w,
            Quantity.VOLTAGE_V: VOLTAGE_V,
            Quantity.CURRENT_A: power_w / (VOLTAGE_V * POWER_FACTOR),
            Quantity.FREQUENCY_HZ: FREQUENCY_HZ,
            Quantity.POWER_FACTOR: POWER_FACTOR,
            Quantity.APPARENT_VA: power_w / POWER_FACTOR,
            Quantity.ENERGY_J: energy_j,
        }
        for quantity in Quantity:
            if self.fault is Fault.NAN and quantity is not Quantity.ENERGY_J:  # an integer has no NaN
                values[quantity] = math.nan
            values[quantity] = self._overrides.get((outlet, quantity), values[quantity])
        energy_mj = round(values.pop(Quantity.ENERGY_J) * 1000)
        return struct.unpack(_WORDS, _OUTLET.pack(*values.values(), energy_mj))
