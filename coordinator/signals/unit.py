"""Units that a scenario may write, and what they are in the project's own.

=================================================  =====================  ============================
written                                            quantity               kept as
=================================================  =====================  ============================
``W``, ``mW``, ``kW``, ``MW``                      power                  W
``g/kWh``, ``kg/MWh``, ``g/MWh``, ``lb/MWh``       carbon                 g/kWh
``EUR/MWh``, ``USD/kWh``, any three capitals       price                  currency unit per MWh
``1``, ``%``                                       number                 1
=================================================  =====================  ============================
"""

import re
from dataclasses import dataclass
from typing import Final

from hil.units import GRAMS_PER_POUND, WATTS_PER_KILOWATT, WATTS_PER_MILLIWATT

POWER: Final = "power"
CARBON: Final = "carbon intensity"
PRICE: Final = "price"
NUMBER: Final = "number"

KWH_PER_MWH: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as written, the quantity it measures, and the factor into the project's own unit."""

    text: str
    quantity: str
    factor: float


_KNOWN: Final = {
    "W": Unit("W", POWER, 1.0),
    "mW": Unit("mW", POWER, WATTS_PER_MILLIWATT),
    "kW": Unit("kW", POWER, WATTS_PER_KILOWATT),
    "MW": Unit("MW", POWER, WATTS_PER_KILOWATT * 1000.0),
    "g/kWh": Unit("g/kWh", CARBON, 1.0),
    "kg/MWh": Unit("kg/MWh", CARBON, 1.0),
    "g/MWh": Unit("g/MWh", CARBON, 1.0 / KWH_PER_MWH),
    "lb/MWh": Unit("lb/MWh", CARBON, GRAMS_PER_POUND / KWH_PER_MWH),
    "1": Unit("1", NUMBER, 1.0),
    "%": Unit("%", NUMBER, 0.01),
}
_PRICE: Final = re.compile(r"[A-Z]{3}/([kM])Wh")


def unit_of(text: str) -> Unit:
    """The unit written as ``text``. Raises ValueError with the ones there are."""
    if text in _KNOWN:
        return _KNOWN[text]
    price = _PRICE.fullmatch(text)
    if price:
        return Unit(text, PRICE, KWH_PER_MWH if price[1] == "k" else 1.0)
    raise ValueError(f"expected one of {', '.join(_KNOWN)}, or a price as EUR/MWh or USD/kWh")
