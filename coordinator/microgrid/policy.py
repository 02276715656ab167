"""The dispatch policy: what the battery is asked for.

A deficit is met by discharging down to the minimum soc, then by the grid; what remains is unserved. A surplus charges
the battery until it is full, then goes to the grid; what remains is curtailed.

With a charge power set, the battery charges at that power, no more and no less, from the grid where the sun does not
reach. The set-point yields before a load goes unserved: behind an import limit, or on an island, it gets what the
actors leave, and what they still lack is discharged.
"""

from typing import Protocol


class Policy(Protocol):
    """A function that decides on the battery's power."""

    def __call__(
        self,
        p_delta_w: float,
        lowest_w: float,
        highest_w: float,
        import_limit_w: float,
        charge_power_w: float | None,
    ) -> float:
        """Battery power in W within ``lowest_w``..``highest_w``, discharge +, charge −, for what the actors leave."""


def default_order(
    p_delta_w: float,
    lowest_w: float,
    highest_w: float,
    import_limit_w: float,
    charge_power_w: float | None,
) -> float:
    """Battery power in W, discharge +, charge −: see the module's text for the order."""
    if charge_power_w is None:
        wanted_w = -p_delta_w
    else:
        available_w = p_delta_w + import_limit_w
        wanted_w = -min(charge_power_w, available_w)
    return min(max(wanted_w, lowest_w), highest_w) + 0.0  # + 0.0: an idle battery is 0.0, never −0.0
