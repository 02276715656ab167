"""What every emulated Modbus unit has in common: how it can be made to fail, and to lie."""

import enum
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from hil.emulated.electrical import Quantity, phases_of, shown
from hil.emulated.node import EmulatedNode

ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
DEVICE_FAILURE: Final = 4


class Fault(enum.StrEnum):
    """What can be wrong with a unit; ``damaged`` answers have a wrong checksum, which only a serial line shows."""

    SILENT = "silent"
    EXCEPTION = "exception"
    NAN = "nan"
    GARBAGE = "garbage"
    DAMAGED = "damaged"


class Refusal(Exception):
    """A request that the unit answers with the exception ``code`` (Modbus Application Protocol V1.1b3, 7)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}")
        self.code = code


class EmulatedUnit(ABC):
    """A unit whose outlets feed nodes; nothing but ``fault``, ``delay_s`` and ``override`` makes it fail or lie."""

    def __init__(self, name: str, outlets: Mapping[int, EmulatedNode], quantities: Iterable[Quantity]) -> None:
        self.name = name
        self.fault: Fault | None = None
        self.delay_s = 0.0
        self.quantities = frozenset(quantities)
        self._phases = phases_of(self.quantities)
        self._outlets = dict(outlets)
        self._overrides: dict[tuple[int, Quantity], float] = {}
        self._garbage = random.Random(name)

    @property
    def outlet_count(self) -> int:
        """How many outlets the unit has; one that feeds no node draws nothing."""
        return max(self._outlets, default=0)

    @property
    @abstractmethod
    def spans(self) -> Sequence[range]:
        """The addresses that the unit has, whatever the function; in order, and apart from each other."""

    @abstractmethod
    def words(self, function: int, address: int, count: int) -> Sequence[int]:
        """What stands there now. Raises Refusal."""

    def override(self, outlet: int, quantity: Quantity, value: float | None) -> None:
        """Show ``value`` in an outlet's register whatever the node draws; None shows the node again."""
        if value is None:
            self._overrides.pop((outlet, quantity), None)
        else:
            self._overrides[outlet, quantity] = value

    def answer(self, function: int, address: int, count: int) -> Sequence[int]:
        """The words that answer a request, faults included. Raises Refusal."""
        if self.fault is Fault.EXCEPTION:
            raise Refusal(DEVICE_FAILURE)
        words = self.words(function, address, count)
        if self.fault is Fault.GARBAGE:
            return tuple(self._garbage.randrange(0x10000) for _ in words)
        return words

    def values(self, outlet: int) -> dict[Quantity, float]:
        """What an outlet shows now, in canonical units; NaN where it is to show none."""
        node = self._outlets.get(outlet)
        power_w, energy_j = (node.power_w, node.energy_j) if node else (0.0, 0.0)
        values = dict(shown(power_w, energy_j, self._phases))
        if self.fault is Fault.NAN:
            values = dict.fromkeys(values, math.nan)
        for quantity in self.quantities:
            values[quantity] = self._overrides.get((outlet, quantity), values[quantity])
        return values
