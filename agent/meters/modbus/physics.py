"""Whether what a meter shows can be true: power against voltage, current, power factor and its own phases.

A wrong register table gives numbers that look like power. What gives it away is that they do not fit the other numbers
of the same device:

- P = V·I·PF, summed over the phases (IEEE Std 1459-2010, 3.1 and 3.2);
- |P| ≤ S, the apparent power (ibid.);
- the phases' powers add up to the total;
- a voltage that no meter is connected to shows that the whole table is off.

A meter does not update all its registers in the same instant, so that a load that steps makes one or two odd readings.
Therefore a meter that was right under load before has to be odd several times in a row, unless it is off by a large
factor; one that never was right is not believed at all. At low load the resolution of the current hides everything:
there is slack.
"""

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agent.meters.modbus.quantities import Quantity

TOLERANCE: Final = 0.1
SLACK_W: Final = 2.0
SLACK_A: Final = 0.002
"""The resolution of a current, where it is not a multiple of something coarser."""

ODD_IN_A_ROW: Final = 3
GROSS: Final = 20.0
"""Off by such a factor, and by GROSS_W, is no step of a load."""
GROSS_W: Final = 100.0

PROOF: Final = 2.0
"""A sound reading proves something from so many times the slack on."""

LEAST_V: Final = 1.0
MOST_V: Final = 1e5

LEAST_FACTOR: Final = 0.1
MOST_FACTOR: Final = 1.05
"""Outside of these a power factor is a code, or means nothing for want of load."""

REACTIVE_SHARE: Final = 0.01
REACTIVE_VA: Final = 100.0
"""Without a power factor: less power than such a share of so much apparent power is not believed."""

_PHASES: Final = (
    (Quantity.POWER_L1_W, Quantity.VOLTAGE_L1_V, Quantity.CURRENT_L1_A),
    (Quantity.POWER_L2_W, Quantity.VOLTAGE_L2_V, Quantity.CURRENT_L2_A),
    (Quantity.POWER_L3_W, Quantity.VOLTAGE_L3_V, Quantity.CURRENT_L3_A),
)

Values = Mapping[Quantity, float]
"""What a device shows, in canonical units."""


class Check(enum.StrEnum):
    """What a reading is held against; a profile may except a device from one that it cannot pass."""

    PRODUCT = "product"
    APPARENT = "apparent"
    PHASES = "phases"
    VOLTAGE = "voltage"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Oddity:
    """A reading that contradicts itself: the power that the other values make probable, and what that is."""

    power_w: float
    expected_w: float
    what: str

    @property
    def gross(self) -> bool:
        """Whether it is too far off for a load that steps between two registers."""
        low, high = sorted((abs(self.power_w), abs(self.expected_w)))
        return high - low >= GROSS_W and high >= GROSS * low


@dataclass(slots=True)
class Physics:
    """Judges one meter's readings in their order. ``slack_a`` is the resolution of its current."""

    checks: frozenset[Check] = frozenset(Check)
    slack_a: float = SLACK_A
    _proven: bool = False
    _odd: int = 0
    _sound: int = 0
    _breach: str = ""

    def judge(self, values: Values, swapped: Callable[[], Values]) -> str:
        """What is wrong with a reading and likely why; empty while it may be believed.

        ``values`` are as read, believable or not; ``swapped`` gives the same words, read in the other order.
        """
        if not _checkable(values):
            return self._breach
        oddity = self._oddity(values)
        if oddity is None:
            return self._note_sound(values)
        self._sound = 0
        self._odd += 1
        if self._breach or not self._proven or oddity.gross or self._odd >= ODD_IN_A_ROW:
            self._breach = f"{oddity.what}: {self._cause(values, swapped(), oddity)}"
        return self._breach

    def _note_sound(self, values: Values) -> str:
        self._odd = 0
        self._sound += 1
        if self._sound >= ODD_IN_A_ROW:
            self._breach = ""
        if not self._breach and abs(values[Quantity.POWER_W]) >= PROOF * self._slack_w(values):
            self._proven = True
        return self._breach

    def _oddity(self, values: Values) -> Oddity | None:
        return next((oddity for oddity in self._oddities(values) if oddity is not None), None)

    def _oddities(self, values: Values) -> Iterator[Oddity | None]:
        power_w = values[Quantity.POWER_W]
        slack_w = self._slack_w(values)
        seen_va, factor = _apparent_va(values), _power_factor(values)
        if Check.VOLTAGE in self.checks:
            yield _off_voltage(power_w, values, outage=self._proven)
        if Check.PHASES in self.checks:
            yield _off_phases(power_w, values, slack_w)
        if Check.PRODUCT in self.checks and seen_va is not None and factor is not None:
            yield _off_product(power_w, seen_va * factor, slack_w)
        for most_va in (values.get(Quantity.APPARENT_VA), seen_va):
            if Check.APPARENT in self.checks and most_va is not None:
                yield _off_apparent(power_w, abs(most_va), slack_w, reactive=factor is not None)

    def _slack_w(self, values: Values) -> float:
        return SLACK_W + min(sum(map(abs, _voltages_v(values))), MOST_V) * self.slack_a

    def _cause(self, values: Values, swapped: Values, oddity: Oddity) -> str:
        slack_w = self._slack_w(values)
        expected_w, power_w = abs(oddity.expected_w), abs(oddity.power_w)
        if Quantity.POWER_W in swapped and self._fits(values, swapped):
            return "wrong word order?"
        if any(_near(power_w, part_w, slack_w) for part_w in _parts_w(values)):
            return "one phase read as the total?"
        if _near(power_w, 1000 * expected_w, slack_w) or _near(1000 * power_w, expected_w, slack_w):
            return "off by a factor of 1000: W or kW?"
        return "wrong register, type or scale?"

    def _fits(self, values: Values, swapped: Values) -> bool:
        """Whether the other word order makes sense, of the power alone or of all."""
        power_only = {**values, Quantity.POWER_W: swapped[Quantity.POWER_W]}
        return self._oddity(power_only) is None or self._oddity({**values, **swapped}) is None


def _checkable(values: Values) -> bool:
    """Whether there is anything to hold the power against."""
    return (
        bool(_voltages_v(values)) or Quantity.APPARENT_VA in values or all(power in values for power, _, _ in _PHASES)
    )


def _off_voltage(power_w: float, values: Values, *, outage: bool) -> Oddity | None:
    """``outage``: no voltage at all is what may happen to a meter known to be right."""
    for volts in _voltages_v(values):
        if LEAST_V <= abs(volts) <= MOST_V or (volts == 0 and outage):
            return None
    shown = ", ".join(f"{volts:.4g} V" for volts in _voltages_v(values))
    return Oddity(power_w, power_w, f"voltage is {shown}") if shown else None


def _off_phases(power_w: float, values: Values, slack_w: float) -> Oddity | None:
    parts_w = [values[power] for power, _, _ in _PHASES if power in values]
    if len(parts_w) < len(_PHASES):
        return None
    # Where one phase feeds in, some meters add the amounts.
    sums_w = (sum(parts_w), sum(map(abs, parts_w)))
    if any(_near(power_w, sum_w, slack_w) for sum_w in sums_w):
        return None
    return Oddity(power_w, sums_w[0], f"power is {power_w:.4g} W, its phases make {sums_w[0]:.4g} W")


def _off_product(power_w: float, expected_w: float, slack_w: float) -> Oddity | None:
    if _near(abs(power_w), expected_w, slack_w):
        return None
    made = f"voltage, current and power factor make {expected_w:.4g} W"
    return Oddity(power_w, expected_w, f"power is {power_w:.4g} W, {made}")


def _off_apparent(power_w: float, most_va: float, slack_w: float, *, reactive: bool) -> Oddity | None:
    """``reactive``: the power factor says how far below the apparent power the power may be."""
    over = abs(power_w) > most_va * (1 + TOLERANCE) + slack_w
    under = not reactive and most_va >= REACTIVE_VA and abs(power_w) < REACTIVE_SHARE * most_va
    if not over and not under:
        return None
    return Oddity(power_w, most_va, f"power is {power_w:.4g} W, apparent power {most_va:.4g} VA")


def _voltages_v(values: Values) -> list[float]:
    return [values[voltage] for voltage in (Quantity.VOLTAGE_V, *(v for _, v, _ in _PHASES)) if voltage in values]


def _power_factor(values: Values) -> float | None:
    """The power factor's amount, where it is one."""
    factor = abs(values.get(Quantity.POWER_FACTOR, 0.0))
    return factor if LEAST_FACTOR <= factor <= MOST_FACTOR else None


def _apparent_va(values: Values) -> float | None:
    """Volts times amperes, of the one phase or summed over three; None where they are not known."""
    phases = [(values.get(voltage), values.get(current)) for _, voltage, current in _PHASES]
    known = [abs(volts * amperes) for volts, amperes in phases if volts is not None and amperes is not None]
    if len(known) == len(_PHASES):
        return sum(known)
    volts, amperes = values.get(Quantity.VOLTAGE_V), values.get(Quantity.CURRENT_A)
    return abs(volts * amperes) if volts is not None and amperes is not None else None


def _parts_w(values: Values) -> Iterator[float]:
    """What single phases make, in W."""
    factor = _power_factor(values) or 1.0
    for power, voltage, current in _PHASES:
        if power in values:
            yield abs(values[power])
        elif voltage in values and current in values:
            yield abs(values[voltage] * values[current]) * factor


def _near(one_w: float, other_w: float, slack_w: float) -> bool:
    return abs(one_w - other_w) <= TOLERANCE * max(abs(one_w), abs(other_w)) + slack_w
