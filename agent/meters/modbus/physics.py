"""Whether a meter can be believed, from one reading to the next.

A wrong register table gives numbers that look like power. What gives it away is that they do not fit the other numbers
of the same device (``oddity.py``). A meter does not update all its registers in the same instant, so that a load that
steps makes one or two odd readings. Therefore a meter that was right under load before has to be odd several times in a
row, unless it is off by a large factor; one that never was right is not believed at all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.meters.modbus.oddity import (
    PROOF,
    Check,
    Oddity,
    Values,
    find_oddity,
    is_checkable,
    is_near,
    parts_of,
    slack_of,
)
from agent.meters.modbus.quantities import Quantity

SLACK_A: Final = 0.002
"""The resolution of a current, where it is not a multiple of something coarser."""

ODD_IN_A_ROW: Final = 3

FACTOR: Final = 1000.0


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
        if not is_checkable(values):
            return self._breach
        oddity = self._oddity(values) or (None if self._proven else self._mirrored(values, swapped()))
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
        if not self._breach and abs(values[Quantity.POWER_W]) >= PROOF * slack_of(values, self.slack_a):
            self._proven = True
        return self._breach

    def _oddity(self, values: Values) -> Oddity | None:
        return find_oddity(values, self.checks, slack_of(values, self.slack_a), proven=self._proven)

    def _mirrored(self, values: Values, swapped: Values) -> Oddity | None:
        """Whole numbers in the wrong word order may fit each other: all are too large by 65536."""
        power_w, other_w = values[Quantity.POWER_W], swapped.get(Quantity.POWER_W)
        if not other_w or abs(power_w) < FACTOR * abs(other_w) or self._oddity({**values, **swapped}) is not None:
            return None
        return Oddity(f"power is {power_w:.4g} W, or {other_w:.4g} W if words are swapped", gross=True)

    def _cause(self, values: Values, swapped: Values, oddity: Oddity) -> str:
        slack_w = slack_of(values, self.slack_a)
        power_w = abs(values[Quantity.POWER_W])
        if Quantity.POWER_W in swapped and self._fits(values, swapped):
            return "wrong word order?"
        if oddity.expected_w is None:  # it is not the power that is odd
            return "wrong register, type or scale?"
        expected_w = abs(oddity.expected_w)
        if any(is_near(power_w, part_w, slack_w) for part_w in parts_of(values)):
            return "one phase read as the total?"
        if is_near(power_w, FACTOR * expected_w, slack_w) or is_near(FACTOR * power_w, expected_w, slack_w):
            return "off by a factor of 1000: W or kW?"
        return "wrong register, type or scale?"

    def _fits(self, values: Values, swapped: Values) -> bool:
        """Whether the other word order makes sense, of the power alone or of all."""
        power_only = {**values, Quantity.POWER_W: swapped[Quantity.POWER_W]}
        return self._oddity(power_only) is None or self._oddity({**values, **swapped}) is None
