"""The kinds of actuator there are, and how each is made from its configuration."""

from agent.actuators.cpufreq import CpufreqActuator, CpufreqConfig
from agent.actuators.emulated import EmulatedActuator, EmulatedActuatorConfig
from agent.actuators.rapl import RaplActuator, RaplActuatorConfig
from agent.actuators.workload import WorkloadActuator, WorkloadConfig
from hil.clock import Clock
from hil.devices import Actuator

AnyActuatorConfig = CpufreqConfig | EmulatedActuatorConfig | RaplActuatorConfig | WorkloadConfig


def make_actuator(config: AnyActuatorConfig, clock: Clock) -> Actuator:
    """The actuator that ``config`` describes."""
    match config:
        case CpufreqConfig():
            return CpufreqActuator(config)
        case EmulatedActuatorConfig():
            return EmulatedActuator(config)
        case RaplActuatorConfig():
            return RaplActuator(config)
        case WorkloadConfig():
            return WorkloadActuator(config, clock)
