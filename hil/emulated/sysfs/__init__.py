"""Trees of files that stand for ``/sys`` and show an emulated node as a kernel would."""

from hil.emulated.sysfs.config import RaplConfig
from hil.emulated.sysfs.powercap import EmulatedPowercap
from hil.emulated.sysfs.tree import Tree, TreeError

__all__ = ["EmulatedPowercap", "RaplConfig", "Tree", "TreeError"]
