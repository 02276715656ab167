"""Caps the power of this machine's processors (RAPL), through Linux' powercap.

Configuration of an agent::

    actuators:
      - name: cpu
        kind: rapl
        min_w: 20          # of all packages together; the kernel has no lower bound, and a machine can stall
        max_w: 65          # left out: what the processors say
        burst: 1.25        # the short-term limit, as a multiple of the long-term one
        sysfs_root: /sys

A limit counts for the packages together, without their dram, and each gets an equal share of it. A package has these
files, once below ``/sys/class/powercap/intel-rapl:N`` and, on many portable machines, once more below
``intel-rapl-mmio:0``: two sets of registers, each with limits of its own, of which the lower is in force. Both are set.

====================================  ================================================================================
``constraint_N_name``                 ``long_term`` (PL1, over seconds) or ``short_term`` (PL2, over milliseconds)
``constraint_N_power_limit_uw``       the limit in µW, in steps of mostly 1/8 W; a write that fails gives ENODATA
``constraint_N_max_power_uw``         the most that makes sense; 0 where the processor does not say
``enabled``                           read only here: to write it would also clear the clamping bit
====================================  ================================================================================

The long-term limit is never above the short-term one, also between the writes: the long-term one is lowered first and
raised last. The short-term limit never rises above what was found. Registers that the firmware has locked are found
when the actuator opens, by writing to each what it holds; a locked limit still counts for what is in force. Processors
of AMD show their energy here and take no limit.

Needs write access to the two limits of each package: see docs/how-to/limit-a-node.md.

Sources: Linux Documentation/power/powercap/powercap.rst, drivers/powercap/powercap_sys.c and intel_rapl_common.c; Intel
64 and IA-32 Architectures Software Developer's Manual, volume 3, "Package RAPL Domain".
"""

from agent.actuators.rapl.actuator import RaplActuator
from agent.actuators.rapl.config import RaplActuatorConfig

__all__ = ["RaplActuator", "RaplActuatorConfig"]
