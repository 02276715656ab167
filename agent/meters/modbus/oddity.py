"""What cannot be true of one reading of an electrical meter.

- P = V·I·PF, summed over the phases (IEEE Std 1459-2010, 3.1 and 3.2);
- |P| ≤ S, the apparent power (ibid.);
- the phases' powers add up to the total;
- voltage, frequency and power factor are those of something that a meter can be connected to.

Power is compared with some slack: at low load the resolution of the current hides everything.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agent.meters.modbus.quantities import Quantity

TOLERANCE: Final = 0.1
SLACK_W: Final = 2.0

GROSS: Final = 20.0
"""Off by such a factor, and by GROSS_W, is no step of a load."""
GROSS_W: Final = 100.0

LEAST_V: Final = 1.0
LEAST_AC_V: Final = 50.0
"""Behind voltage transformers of 100 V between phases, 58 V is usual."""
MOST_V: Final = 1e5
FREQUENCIES_HZ: Final = (40.0, 70.0)

LEAST_FACTOR: Final = 0.1
MOST_FACTOR: Final = 1.05
"""Outside of these a power factor is a code, or means nothing for want of load."""

REACTIVE_SHARE: Final = 0.01
REACTIVE_VA: Final = 100.0
"""Without a power factor: less power than such a share of so much apparent power is not believed."""

PROOF: Final = 2.0
"""Under a load of so many times the slack, what a meter shows means something."""

NOTHING: Final = 1e-20
"""Nothing that is measured is so small and not 0; floating-point words in the wrong order are."""

PHASES: Final = (
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
    FREQUENCY = "frequency"
    FACTOR = "factor"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Oddity:
    """What is odd, and whether it is too far off to happen in the moment in which a load steps.

    ``expected_w`` is the power that the other values make probable; None where it is not the power that is odd.
    """

    what: str
    gross: bool
    expected_w: float | None = None


def find_oddity(values: Values, checks: frozenset[Check], slack_w: float, *, proven: bool) -> Oddity | None:
    """The first thing that cannot be true; None if all can. A meter that is ``proven`` may be without voltage."""
    return next(_oddities(values, checks, slack_w, proven=proven), None)


def is_checkable(values: Values) -> bool:
    """Whether there is anything to hold the power against."""
    return len(values) > 1 and Quantity.POWER_W in values


def is_near(one_w: float, other_w: float, slack_w: float) -> bool:
    """Whether two powers agree."""
    return abs(one_w - other_w) <= TOLERANCE * max(abs(one_w), abs(other_w)) + slack_w


def slack_of(values: Values, resolution_a: float) -> float:
    """How far powers in W may be apart whatever their size, for a current of such a resolution."""
    return SLACK_W + min(sum(map(abs, _voltages_v(values))), MOST_V) * resolution_a


def parts_of(values: Values) -> Iterator[float]:
    """What single phases make, in W."""
    factor = _power_factor(values) or 1.0
    for power, voltage, current in PHASES:
        if power in values:
            yield abs(values[power])
        elif voltage in values and current in values:
            yield abs(values[voltage] * values[current]) * factor


def _oddities(values: Values, checks: frozenset[Check], slack_w: float, *, proven: bool) -> Iterator[Oddity]:
    power_w = values[Quantity.POWER_W]
    yield from _too_small(values)
    if Check.VOLTAGE in checks:
        yield from _off_voltage(values, proven=proven)
    if Check.FREQUENCY in checks and not proven:
        yield from _off_frequency(values)
    if Check.FACTOR in checks and not proven and abs(power_w) >= PROOF * slack_w:
        yield from _off_factor(values)
    if Check.PHASES in checks:
        yield from _off_phases(power_w, values, slack_w)
    seen_va, factor = _apparent_va(values), _power_factor(values)
    if Check.PRODUCT in checks and seen_va is not None and factor is not None:
        yield from _off_product(power_w, seen_va * factor, slack_w)
    for most_va in (values.get(Quantity.APPARENT_VA), seen_va):
        if Check.APPARENT in checks and most_va is not None:
            yield from _off_apparent(power_w, abs(most_va), slack_w, reactive=factor is not None)


def _too_small(values: Values) -> Iterator[Oddity]:
    for quantity, value in values.items():
        if 0 < abs(value) < NOTHING:
            yield Oddity(f"{quantity} is {value:.3g}", gross=True)


def _off_voltage(values: Values, *, proven: bool) -> Iterator[Oddity]:
    alternating = Quantity.FREQUENCY_HZ in values or Quantity.POWER_FACTOR in values
    least_v = LEAST_AC_V if alternating and not proven else LEAST_V
    voltages_v = _voltages_v(values)
    if not voltages_v or any(least_v <= abs(volts) <= MOST_V for volts in voltages_v):
        return
    outage = not any(voltages_v)
    if not (outage and proven):
        yield Oddity(f"voltage is {', '.join(f'{volts:.4g} V' for volts in voltages_v)}", gross=not outage)


def _off_frequency(values: Values) -> Iterator[Oddity]:
    low_hz, high_hz = FREQUENCIES_HZ
    frequency_hz = values.get(Quantity.FREQUENCY_HZ)
    if frequency_hz is not None and not low_hz <= frequency_hz <= high_hz:
        yield Oddity(f"frequency is {frequency_hz:.4g} Hz", gross=False)


def _off_factor(values: Values) -> Iterator[Oddity]:
    factor = values.get(Quantity.POWER_FACTOR)
    if factor is not None and not 0 < abs(factor) <= MOST_FACTOR:
        yield Oddity(f"power factor is {factor:.4g}", gross=False)


def _off_phases(power_w: float, values: Values, slack_w: float) -> Iterator[Oddity]:
    parts_w = [values[power] for power, _, _ in PHASES if power in values]
    if len(parts_w) < len(PHASES):
        return
    sums_w = (sum(parts_w), sum(map(abs, parts_w)))  # where one phase feeds in, some meters add the amounts
    if not any(is_near(power_w, sum_w, slack_w) for sum_w in sums_w):
        yield _odd_power(power_w, sums_w[0], f"its phases make {sums_w[0]:.4g} W")


def _off_product(power_w: float, expected_w: float, slack_w: float) -> Iterator[Oddity]:
    if not is_near(abs(power_w), expected_w, slack_w):
        yield _odd_power(power_w, expected_w, f"voltage, current and power factor make {expected_w:.4g} W")


def _off_apparent(power_w: float, most_va: float, slack_w: float, *, reactive: bool) -> Iterator[Oddity]:
    """``reactive``: the power factor says how far below the apparent power the power may be."""
    over = abs(power_w) > most_va * (1 + TOLERANCE) + slack_w
    under = not reactive and most_va >= REACTIVE_VA and abs(power_w) < REACTIVE_SHARE * most_va
    if over or under:
        yield _odd_power(power_w, most_va, f"apparent power is {most_va:.4g} VA")


def _odd_power(power_w: float, expected_w: float, but: str) -> Oddity:
    low_w, high_w = sorted((abs(power_w), abs(expected_w)))
    gross = high_w - low_w >= GROSS_W and high_w >= GROSS * low_w
    return Oddity(f"power is {power_w:.4g} W, {but}", gross, expected_w)


def _voltages_v(values: Values) -> list[float]:
    return [values[voltage] for voltage in (Quantity.VOLTAGE_V, *(v for _, v, _ in PHASES)) if voltage in values]


def _power_factor(values: Values) -> float | None:
    """The power factor's amount, where it is one."""
    factor = abs(values.get(Quantity.POWER_FACTOR, 0.0))
    return factor if LEAST_FACTOR <= factor <= MOST_FACTOR else None


def _apparent_va(values: Values) -> float | None:
    """Volts times amperes, of the one phase or summed over three; None where they are not known."""
    phases = [(values.get(voltage), values.get(current)) for _, voltage, current in PHASES]
    known = [abs(volts * amperes) for volts, amperes in phases if volts is not None and amperes is not None]
    if len(known) == len(PHASES):
        return sum(known)
    volts, amperes = values.get(Quantity.VOLTAGE_V), values.get(Quantity.CURRENT_A)
    return abs(volts * amperes) if volts is not None and amperes is not None else None
