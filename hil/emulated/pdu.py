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

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from hil.emulated.electrical import Quantity
from hil.emulated.modbusunit import ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, EmulatedUnit, Refusal
from hil.emulated.node import EmulatedNode

READ_INPUT_REGISTERS: Final = 4

IDENTITY: Final = 0
IDENTITY_WORDS: Final = 12
OUTLETS: Final = 1000
STRIDE: Final = 20
MAX_OUTLETS: Final = 48

_FLOATS: Final = (
    Quantity.POWER_W,
    Quantity.VOLTAGE_V,
    Quantity.CURRENT_A,
    Quantity.FREQUENCY_HZ,
    Quantity.POWER_FACTOR,
    Quantity.APPARENT_VA,
)
_OUTLET = struct.Struct(">ffffffQ8x")
_WORDS: Final = f">{STRIDE}H"


class EmulatedPdu(EmulatedUnit):
    """The unit that has the registers above."""

    def __init__(self, name: str, outlets: Mapping[int, EmulatedNode]) -> None:
        super().__init__(name, outlets, (*_FLOATS, Quantity.ENERGY_J))

    @property
    def spans(self) -> Sequence[range]:
        """The addresses of the map."""
        return (range(IDENTITY, IDENTITY + IDENTITY_WORDS), range(OUTLETS, OUTLETS + STRIDE * self.outlet_count))

    def words(self, function: int, address: int, count: int) -> Sequence[int]:
        """What stands there now. Raises Refusal."""
        if function != READ_INPUT_REGISTERS:
            raise Refusal(ILLEGAL_FUNCTION)
        if not any(address in span and address + count <= span.stop for span in self.spans):
            raise Refusal(ILLEGAL_ADDRESS)
        if address < OUTLETS:
            return self.identity_words()[address - IDENTITY : address - IDENTITY + count]
        first, last = _outlet_at(address), _outlet_at(address + count - 1)
        words = [word for outlet in range(first, last + 1) for word in self.outlet_words(outlet)]
        start = address - OUTLETS - STRIDE * (first - 1)
        return words[start : start + count]

    def identity_words(self) -> tuple[int, ...]:
        """The registers from address 0."""
        content = struct.pack(">HHHH16s", 0x574C, 1, self.outlet_count, 0, b"wattloop-pdu")
        return struct.unpack(f">{IDENTITY_WORDS}H", content)

    def outlet_words(self, outlet: int) -> tuple[int, ...]:
        """The registers of one outlet, now."""
        values = self.values(outlet)
        energy_j = values[Quantity.ENERGY_J]
        energy_mj = 0 if math.isnan(energy_j) else round(energy_j * 1000)  # an integer has no NaN
        return struct.unpack(_WORDS, _OUTLET.pack(*(values[quantity] for quantity in _FLOATS), energy_mj))


def _outlet_at(address: int) -> int:
    return (address - OUTLETS) // STRIDE + 1
