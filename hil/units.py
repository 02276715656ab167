"""The glossary of quantities and the only conversion constants.

======================  ==========  ===============================================================
name                    unit        meaning and sign
======================  ==========  ===============================================================
``power_w``             W           instrument value, in the device's own direction (a load's draw,
                                    a panel's output); wire, meters and traces use only these
``p_*_w``               W           site value: production +, consumption −, battery discharge +,
                                    charge −, grid export +, import −
``import_w`` …          W           ``import``, ``export``, ``charge``, ``discharge``: direction
                                    names for people, all ≥ 0
``energy_wh``           Wh          energy in results and configuration
``energy_j``            J           cumulative counters, as devices keep them
``capacity_wh``         Wh          usable energy of a full storage
``soc``                 1           state of charge, 0..1 (percent only on a page)
``interval_s``          s           length of a step or of a sampling period
``carbon_g_per_kwh``    g/kWh       carbon intensity of the grid
``emissions_g``         g           carbon dioxide of imported energy
``price_per_mwh``       1/MWh       price in the scenario's currency
``t_us``                µs          an instant, UTC, microseconds since 1970
======================  ==========  ===============================================================

Conversions happen at the edge that meets the vendor's or the user's unit, with the constants below.
"""

from typing import Final

SECONDS_PER_HOUR: Final = 3600.0
JOULES_PER_WH: Final = 3600.0
WATTS_PER_KILOWATT: Final = 1000.0
WATTS_PER_MILLIWATT: Final = 0.001
MICROWATTS_PER_WATT: Final = 1_000_000
KILOHERTZ_PER_MEGAHERTZ: Final = 1000
WH_PER_KWH: Final = 1000.0
MICROSECONDS_PER_SECOND: Final = 1_000_000
GRAMS_PER_POUND: Final = 453.59237


def energy_wh(power_w: float, interval_s: float) -> float:
    """Energy in Wh of a mean power in W over an interval in s; the sign is the power's."""
    return power_w * interval_s / SECONDS_PER_HOUR
