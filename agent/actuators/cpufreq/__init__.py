"""Limits the frequency of this machine's processors (cpufreq): on Intel, AMD and ARM alike.

Configuration of an agent::

    actuators:
      - name: cores
        kind: cpufreq
        modes:                     # named profiles; what a mode leaves out stays as it was found
          eco: {max_mhz: 1200, epp: power, boost: false}
          full: {max_mhz: 9999, epp: performance}
        curve: [[800, 9.5], [1600, 14], [2400, 25]]    # MHz and the node's power in W under load: takes limits in W
        sysfs_root: /sys

``modes``, ``curve``, or both. A power limit becomes the highest frequency whose power on the curve is within it: as
good as the curve, which holds for the load that it was measured under. The meter shows whether it is kept.

========================================================  ============================================================
``devices/system/cpu/cpufreq/policy*/scaling_max_freq``   the highest frequency in kHz, between ``cpuinfo_min_freq``
                                                          and ``cpuinfo_max_freq`` beside it
``…/scaling_available_frequencies``                       the steps there are, on ARM and with acpi-cpufreq
``…/energy_performance_preference``                       EPP, with intel_pstate and amd-pstate: ``performance``,
                                                          ``balance_power``, ``power`` …
``devices/system/cpu/cpufreq/boost``                      1: above the nominal frequency, with AMD and acpi-cpufreq
``devices/system/cpu/intel_pstate/no_turbo``              the same turned round, with intel_pstate
========================================================  ============================================================

A knob that a mode names and this machine has not is told in the birth; the others of the mode still work. Needs write
access to these files: see docs/how-to/limit-a-node.md.

Sources: Linux Documentation/admin-guide/pm/cpufreq.rst, intel_pstate.rst and amd-pstate.rst.
"""

from agent.actuators.cpufreq.actuator import CpufreqActuator
from agent.actuators.cpufreq.config import CpufreqConfig

__all__ = ["CpufreqActuator", "CpufreqConfig"]
