"""The energy counters of this machine's processors (RAPL), as Linux shows them below ``/sys/class/powercap``.

Configuration of an agent::

    meters:
      - name: cpu
        kind: rapl
        zones: [package, dram]  # or psys, or names such as package-0; left out: packages, and dram where there is any
        backend: auto           # powercap, which auto takes, or pyrapl
        sysfs_root: /sys
        max_w: 400              # no counted zone draws more; left out: 1000 W
        measures: jetson-1      # the node; left out: the agent's own

A zone ``intel-rapl:N`` or ``intel-rapl:N:M`` (numbers in hexadecimal) is a folder with these files; AMD's processors
have the same under the same names, without the constraints:

==============================  ======================================================================================
``name``                        ``package-N``, ``package-N-die-M``, ``psys`` (the whole platform, packages included),
                                and below a package ``core`` and ``uncore`` (parts of it) and ``dram`` (beside it)
``energy_uj``                   cumulative energy in µJ; comes round; 0400 since CVE-2020-8694
``max_energy_range_uj``         where it comes round: every 11 minutes at 400 W on Intel, every 3 on AMD
``constraint_N_power_limit_uw`` limits, in µW; only looked for here, to tell whether there are any
==============================  ======================================================================================

``intel-rapl-mmio:0`` shows a package once more, through other registers with limits of their own: the same energy,
which is never added. A reading is the mean power since the last one. A counter that falls has come round, unless the
power this would mean is out of the question: then it was reset, and counting starts anew in a new epoch. What passed
in a suspension, at a reset, or in so long a silence that the counter may have come round unseen is not counted.

Sources: Linux Documentation/power/powercap/powercap.rst and drivers/powercap/intel_rapl_common.c; Intel 64 and IA-32
Architectures Software Developer's Manual, volume 3, "Platform Specific Power Management Support"; pyRAPL 0.2.3
(https://github.com/powerapi-ng/pyRAPL).
"""

from agent.meters.rapl.config import RaplMeterConfig
from agent.meters.rapl.meter import RaplMeter

__all__ = ["RaplMeter", "RaplMeterConfig"]
