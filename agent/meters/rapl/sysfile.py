"""Files of sysfs: one short line each."""

import errno
import io
import os
import stat
from pathlib import Path
from typing import Final

from agent.meters.rapl.errors import NotReadable
from hil.oserrors import reason

LONGEST: Final = 64
GROUP: Final = "wattloop-meters"


def open_line(path: Path, label: str) -> io.FileIO:
    """The file, opened so that ``number_in`` can read it again and again. Raises NotReadable, which names ``label``."""
    try:
        # A pipe in a file's place would block; sysfs has only regular files.
        file = io.FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise NotReadable(f"{label}: {path.name}: not a file")
    except OSError as error:
        raise refusal(error, path.name, label) from error
    return file


def number_in(file: io.FileIO, name: str, label: str) -> int:
    """The whole number ≥ 0 that the file holds now. Raises NotReadable."""
    try:
        line = os.pread(file.fileno(), LONGEST, 0)
    except OSError as error:
        raise refusal(error, name, label) from error
    digits = line.strip()
    if not digits.isdigit() or len(line) == LONGEST:
        raise NotReadable(f"{label}: {name} holds garbage")
    return int(digits)


def text_of(path: Path, label: str) -> str:
    """The line in the file. Raises NotReadable."""
    with open_line(path, label) as file:
        try:
            line = os.pread(file.fileno(), LONGEST, 0)
        except OSError as error:
            raise refusal(error, path.name, label) from error
    if not line.isascii() or len(line) == LONGEST:
        raise NotReadable(f"{label}: {path.name} holds garbage")
    return line.decode("ascii").strip()


def number_of(path: Path, label: str) -> int:
    """The whole number ≥ 0 in the file. Raises NotReadable."""
    with open_line(path, label) as file:
        return number_in(file, path.name, label)


def refusal(error: OSError, name: str, label: str) -> NotReadable:
    """What to say of a file that cannot be read."""
    if error.errno == errno.EACCES:
        return NotReadable(f"{name}: permission denied, needs group {GROUP} (see docs/how-to/rapl.md)")
    if error.errno in {errno.ENOENT, errno.ENODEV}:
        return NotReadable(f"{label}: {name} is gone")
    return NotReadable(f"{label}: {name}: {reason(error)}")
