"""Named signals: where a value comes from, and how a controller looks at all of them at one instant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from coordinator.controllers.api import Forecast
from coordinator.signals.forecast import ForecastTrace
from coordinator.signals.series import Series
from coordinator.signals.unit import Unit
from hil.wire import Message, WireError, decode


class Signal(Protocol):
    """A value over simulated time, in the project's own unit; instants are µs since 1970."""

    def at(self, t_us: int) -> float | None:
        """The value that holds at an instant; None where it is unknown."""

    def mean(self, start_us: int, end_us: int) -> float | None:
        """The time-mean over an interval; None where any part of it is unknown."""

    def forecast(self, t_us: int) -> Forecast | None:
        """The newest forecast issued by an instant; None where there is none."""


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value for ever; a source of power as well as a signal."""

    constant: float

    def at(self, t_us: int) -> float:
        """The value."""
        del t_us
        return self.constant

    def mean(self, start_us: int, end_us: int) -> float:
        """The value."""
        del start_us, end_us
        return self.constant

    def forecast(self, t_us: int) -> None:
        """None: nobody forecasts a constant."""
        del t_us


@dataclass(frozen=True, slots=True)
class Traced:
    """A recorded or modelled value, with a forecast of it where the scenario names one."""

    series: Series
    forecasts: ForecastTrace | None = None

    def at(self, t_us: int) -> float | None:
        """The value that holds at an instant."""
        return self.series.at(t_us)

    def mean(self, start_us: int, end_us: int) -> float | None:
        """The time-mean over an interval."""
        return self.series.mean(start_us, end_us)

    def forecast(self, t_us: int) -> Forecast | None:
        """The newest forecast issued by an instant."""
        return None if self.forecasts is None else self.forecasts.newest(t_us)


@dataclass(frozen=True, slots=True)
class Forecasted:
    """A forecast without the truth: its value is what the newest forecast says of the present."""

    forecasts: ForecastTrace

    def at(self, t_us: int) -> float | None:
        """What the newest forecast says of an instant."""
        return self.forecasts.at(t_us)

    def mean(self, start_us: int, end_us: int) -> float | None:
        """What the newest forecast says of the interval's start."""
        del end_us
        return self.forecasts.at(start_us)

    def forecast(self, t_us: int) -> Forecast | None:
        """The newest forecast issued by an instant."""
        return self.forecasts.newest(t_us)


class SignalMessage(Message, frozen=True, kw_only=True):
    """What another system publishes on ``…/signal/<name>``: ``{"value": 412.5}``, in the unit the scenario states.

    null says that the value is unknown from now on.
    """

    value: float | None


class External:
    """A value that another system sends; unknown before the first message and once it is too old.

    Age is real time since the arrival by our own monotonic clock, whatever the speed of the run. A step sees the value
    that was taken up for it (``take_up``), from its start to its end; a replay takes up what was recorded.
    """

    def __init__(self, unit: Unit, max_age_s: float, monotonic: Callable[[], float]) -> None:
        self._unit = unit
        self._max_age_s = max_age_s
        self._monotonic = monotonic
        self._value: float | None = None
        self._arrived: float | None = None
        self._taken_up: float | None = None

    def receive(self, payload: bytes, arrived: float) -> None:
        """Take a message that arrived at ``arrived`` (monotonic s). Raises WireError, and keeps what it has."""
        message = decode(payload, SignalMessage)
        if message.value is not None and abs(message.value) > 1e12:
            raise WireError("malformed", f"value is {message.value}, expected one within ±1e12")
        self._value = None if message.value is None else message.value * self._unit.factor
        self._arrived = arrived

    @property
    def age_s(self) -> float | None:
        """Seconds since the newest message; None before the first."""
        return None if self._arrived is None else self._monotonic() - self._arrived

    @property
    def newest(self) -> float | None:
        """The newest value, while it is young enough."""
        age_s = self.age_s
        return self._value if age_s is not None and age_s <= self._max_age_s else None

    def take_up(self, value: float | None) -> None:
        """Let ``value`` hold for the step to come."""
        self._taken_up = value

    def at(self, t_us: int) -> float | None:
        """The value of the present step; it knows no other time."""
        del t_us
        return self._taken_up

    def mean(self, start_us: int, end_us: int) -> float | None:
        """The value of the present step."""
        del start_us, end_us
        return self._taken_up

    def forecast(self, t_us: int) -> None:
        """None: only values arrive."""
        del t_us


@dataclass(frozen=True, slots=True)
class SignalsAt:
    """All signals as they stand at one instant; what a controller gets."""

    signals: Mapping[str, Signal]
    t_us: int

    def value(self, name: str) -> float | None:
        """The signal's value, in the project's own unit; None where it is unknown. Raises LookupError."""
        return self._find(name).at(self.t_us)

    def forecast(self, name: str) -> Forecast | None:
        """The newest forecast issued by now; None where there is none. Raises LookupError."""
        return self._find(name).forecast(self.t_us)

    def _find(self, name: str) -> Signal:
        try:
            return self.signals[name]
        except KeyError:
            known = ", ".join(self.signals) or "none"
            raise LookupError(f"the scenario has no signal {name}; it has {known}") from None
