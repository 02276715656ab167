"""Cumulative energy of a meter: the device's own counter where it has one, else integrated here."""

from agent.sample import EnergyState
from hil.devices import Reading


class EnergyMeter:
    """Energy of one meter in J, over restarts of the agent.

    A device's counter is passed on as it is; when it falls, or another device or another way of counting takes over,
    a new epoch begins. Without a counter, power is integrated by the trapezoidal rule from one reading to the next; a
    gap adds nothing and is counted, so that energy nobody measured is never made up.
    """

    def __init__(self, state: EnergyState | None = None, first_epoch: int = 0) -> None:
        self._state = state
        self._first_epoch = first_epoch
        self._device: bool | None = None
        self._counter_epoch: int | None = None
        self._previous: tuple[float, float] | None = None
        self.gaps = 0

    @property
    def epoch(self) -> int:
        """How often counting started anew."""
        return self._state.epoch if self._state else self._first_epoch

    def take(self, reading: Reading, now: float) -> EnergyState | None:
        """Energy in J after ``reading`` at ``now`` (monotonic s); None where the reading tells nothing of it."""
        if reading.power_w is None:
            self.miss()
            return None
        if reading.energy_j is not None:
            self._state = self._counted(reading.energy_j, reading.counter_epoch)
        elif self._device:
            return None  # a device with a counter that did not show it this time
        else:
            self._state = self._integrated(reading.power_w, now)
        return self._state

    def miss(self) -> None:
        """Note a tick without a reading: what passed since the last one is not counted."""
        if self._previous is not None:
            self.gaps += 1
            self._previous = None

    def _counted(self, energy_j: float, counter_epoch: int | None) -> EnergyState:
        self._device = True
        before, same_counter = self._state, self._counter_epoch == counter_epoch
        self._counter_epoch = counter_epoch
        if before is None:
            return EnergyState(energy_j, self._first_epoch, device=True)
        anew = not (before.device and same_counter) or energy_j < before.energy_j
        return EnergyState(energy_j, before.epoch + anew, device=True)

    def _integrated(self, power_w: float, now: float) -> EnergyState:
        self._device = False
        before = self._state
        if before is None:
            before = EnergyState(0.0, self._first_epoch, device=False)
        elif before.device:
            before = EnergyState(0.0, before.epoch + 1, device=False)
        earlier, self._previous = self._previous, (now, power_w)
        if earlier is None:
            return before
        then, power_then_w = earlier
        added_j = (power_then_w + power_w) / 2 * (now - then)
        return EnergyState(before.energy_j + added_j, before.epoch, device=False)
