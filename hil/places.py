"""Where the files that travel with the packages lie: scenarios, systemd units, pinned requirements.

In a source tree they lie beside the packages; an installed wheel has them in ``share/wattloop``.
"""

import sysconfig
from pathlib import Path


class NotInstalled(Exception):
    """A file that belongs to Wattloop is not where it should be; the text says where that is."""


def source_tree() -> Path | None:
    """The source tree that this code runs from, or None for an installed copy."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "systemd").is_dir() else None


def data_path(name: str) -> Path:
    """The directory of the shipped files of one kind: ``scenarios``, ``systemd`` or ``requirements``.

    Raises NotInstalled where there is none, as after copying the packages by hand.
    """
    tree = source_tree()
    if tree is not None:
        return tree / name
    schemes = [sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")]
    places = [Path(sysconfig.get_path("data", scheme), "share", "wattloop", name) for scheme in schemes]
    for place in places:
        if place.is_dir():
            return place
    raise NotInstalled(f"Wattloop's {name} are missing; looked in {' and '.join(map(str, places))}")
