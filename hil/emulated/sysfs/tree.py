"""A folder that stands for ``/sys``: files that are written once, and files whose one number changes."""

import os
import shutil
from pathlib import Path
from typing import Final

from hil.oserrors import reason

MARK: Final = ".emulated-sysfs"


class TreeError(Exception):
    """The tree cannot be kept; says where and why."""


class Tree:
    """A tree below ``root``. It takes over an empty folder or an earlier tree, never anything else."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: list[NumberFile] = []

    def begin(self) -> None:
        """Make an empty tree. Raises TreeError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if any(self.root.iterdir()) and not (self.root / MARK).is_file():
                raise TreeError(f"{self.root}: not empty, and not made by an emulation")
            self._clear()
            (self.root / MARK).touch()
        except OSError as error:
            raise self._refusal(error) from error

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Make a file of one line. Raises TreeError."""
        file = self.root / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n", encoding="ascii")
            file.chmod(mode)
        except OSError as error:
            raise self._refusal(error) from error

    def link(self, path: str, target: str) -> None:
        """Make a relative symbolic link to another path of the tree. Raises TreeError."""
        place = self.root / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.path.relpath(self.root / target, place.parent))
        except OSError as error:
            raise self._refusal(error) from error

    def number(self, path: str, digits: int, mode: int) -> "NumberFile":
        """Make a file whose number changes; it stays open until ``end``. Raises TreeError."""
        try:
            file = NumberFile(self.root / path, digits, mode)
        except OSError as error:
            raise self._refusal(error) from error
        self._files.append(file)
        return file

    def end(self) -> None:
        """Remove the tree; harmless when repeated, and where somebody else has removed it."""
        for file in self._files:
            file.close()
        self._files.clear()
        if (self.root / MARK).is_file():
            self._clear()

    def _clear(self) -> None:
        for entry in self.root.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _refusal(self, error: OSError) -> TreeError:
        return TreeError(f"{error.filename or self.root}: {reason(error)}")


class NumberFile:
    """A file that holds one number. Every write has the same length, so that no reader sees half of it.

    The line is filled up with newlines, which shells and number parsers strip. The file is kept open: writing to it is
    writing to memory.
    """

    def __init__(self, path: Path, digits: int, mode: int) -> None:
        self._length = digits + 1
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        self.write(0)

    def write(self, number: int) -> None:
        """Show another number, of at most as many digits as were announced."""
        os.pwrite(self._fd, str(number).encode().ljust(self._length, b"\n"), 0)

    def close(self) -> None:
        """Leave the file as it is."""
        os.close(self._fd)
