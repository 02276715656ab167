"""From the words of a round to a reading, and whether it can be believed."""

import logging
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from agent.meters.modbus.blocks import RegisterImage
from agent.meters.modbus.counter import Counter
from agent.meters.modbus.oddity import Check
from agent.meters.modbus.physics import SLACK_A, Physics
from agent.meters.modbus.quantities import Quantity
from agent.meters.modbus.registers import Register, RegisterError
from hil.devices import Quality, Reading

_log = logging.getLogger(__name__)

_FLOATS: Final = {"f32", "f64"}

LEAST_W: Final = 0.1
"""Words in the wrong order seldom make a number of a power's size; where they do, it was the wrong order before."""


class Judge:
    """Reads one meter's registers, out of which ``checks`` tell whether its power and its counter can be true."""

    def __init__(self, name: str, registers: Iterable[Register], checks: frozenset[Check]) -> None:
        self._name = name
        own = {register.quantity: register for register in registers}
        self._power = own[Quantity.POWER_W]
        self._energy = own.get(Quantity.ENERGY_J)
        # A value out of its range is no reading, but tells what may be wrong with the table.
        self._shown: dict[Quantity, Register] = {
            quantity: replace(register, low=-math.inf, high=math.inf)
            for quantity, register in own.items()
            if quantity is not Quantity.ENERGY_J
        }
        self._swapped: dict[Quantity, Register] = {
            quantity: replace(register, little=not register.little)
            for quantity, register in self._shown.items()
            if register.count > 1
        }
        self._physics = Physics(checks, resolution_a(own.values()))
        self._counter = Counter(_step(self._energy)) if self._energy and Check.COUNTER in checks else None
        self._counter_lost = False
        self._doubted = 0

    def reading(self, image: RegisterImage, now: float) -> Reading:
        """The reading in an image of ``now``, monotonic s. Raises RegisterError if there is no believable power."""
        power_w = self._power_w(image)
        doubts = [self._physics.judge(_values(self._shown, image), lambda: _values(self._swapped, image))]
        if self._counter is not None:
            self._counter.take_power(power_w, now)
        energy_j = self._energy_j(image)
        if self._counter is not None and energy_j is not None:
            counted = self._counter.take(energy_j, now)
            energy_j = counted.energy_j
            doubts.append(counted.doubt)
        doubt = "; ".join(filter(None, doubts))
        self._tell(doubt)
        return Reading(power_w, energy_j, Quality.SUSPECT if doubt else Quality.GOOD, doubt)

    def gap(self) -> None:
        """Note a round without a reading."""
        if self._counter is not None:
            self._counter.gap()

    def _power_w(self, image: RegisterImage) -> float:
        try:
            return self._power.value(image)
        except LookupError as error:  # one of several that it adds up from was refused
            raise RegisterError(f"power_w: {error}") from error
        except RegisterError as error:
            other_w = _values(self._swapped, image).get(Quantity.POWER_W, 0.0)
            if LEAST_W <= abs(other_w) <= self._power.high:
                raise RegisterError(f"{error}: wrong word order?") from error
            raise

    def _energy_j(self, image: RegisterImage) -> float | None:
        """The device's counter; None where it shows none, which takes nothing from the power beside it."""
        try:
            energy_j = self._energy.value(image) if self._energy is not None else None
        except LookupError:  # not in this round, or not in this device
            return None
        except RegisterError as error:
            if not self._counter_lost:
                _log.warning("meter %s: %s; no energy meanwhile", self._name, error)
            self._counter_lost = True
            return None
        if self._counter_lost:
            _log.info("meter %s: its energy counter is back", self._name)
            self._counter_lost = False
        return energy_j

    def _tell(self, doubt: str) -> None:
        if doubt and not self._doubted:
            _log.warning("meter %s: suspect: %s", self._name, doubt)
        elif self._doubted and not doubt:
            _log.info("meter %s: believed again, after %d suspect readings", self._name, self._doubted)
        self._doubted = self._doubted + 1 if doubt else 0


def _values(registers: dict[Quantity, Register], image: RegisterImage) -> dict[Quantity, float]:
    values = {}
    for quantity, register in registers.items():
        try:
            values[quantity] = register.value(image)
        except (LookupError, RegisterError):
            continue
    return values


def resolution_a(registers: Iterable[Register]) -> float:
    """The coarsest step of a current that the table can show, in A."""
    return max([SLACK_A, *(_step(register) or 0.0 for register in registers if register.quantity.endswith("_a"))])


def _step(register: Register) -> float | None:
    """The smallest difference that a register can show, in the canonical unit; None where the words do not tell."""
    return abs(register.factor) if register.type not in _FLOATS and register.scale is None else None
