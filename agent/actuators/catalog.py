"""The kinds of actuator there are, and how each is made from its configuration."""

from agent.actuators.emulated import EmulatedActuator, EmulatedActuatorConfig
from hil.devices import Actuator

AnyActuatorConfig = EmulatedActuatorConfig


def make_actuator(config: AnyActuatorConfig) -> Actuator:
    """The actuator that ``config`` describes."""
    return EmulatedActuator(config)
