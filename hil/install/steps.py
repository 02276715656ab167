"""What an installation consists of: steps that can be told, done, and done again."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hil.commandline import Failure


class InstallFailed(Failure):
    """A step could not be done; the text says why and what helps."""


class Step(Protocol):
    """One change to the machine."""

    def tell(self) -> str:
        """What ``do`` would do, for people."""

    def do(self) -> str:
        """Do it and say what was done. Raises InstallFailed or OSError; harmless when repeated."""


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """A directory that root owns."""

    path: Path
    mode: int = 0o755

    def tell(self) -> str:
        """Path and mode."""
        return f"directory  {self.path} ({self.mode:04o})"

    def do(self) -> str:
        """Create it; one that exists keeps its mode."""
        if self.path.is_dir():
            return f"unchanged  {self.path}"
        self.path.mkdir(parents=True)
        self.path.chmod(self.mode)
        return f"made       {self.path}"


@dataclass(frozen=True, slots=True)
class WriteFile:
    """A file with this text; with ``keep``, one that exists already is the user's and stays."""

    path: Path
    text: str
    keep: bool = False

    def tell(self) -> str:
        """Path, mode, and whether it would replace anything."""
        if self.keep and self.path.exists():
            return f"keep       {self.path}"
        return f"file       {self.path} (0644, {len(self.text.encode())} bytes)"

    def do(self) -> str:
        """Write it, whole or not at all."""
        if self.path.exists():
            if self.keep:
                return f"kept       {self.path}"
            if self.path.read_text(encoding="utf-8") == self.text:
                return f"unchanged  {self.path}"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text(self.text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(self.path)
        return f"written    {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """No such file any more."""

    path: Path

    def tell(self) -> str:
        """The path."""
        return f"remove     {self.path}"

    def do(self) -> str:
        """Remove it if it is there."""
        if not self.path.exists():
            return f"not there  {self.path}"
        self.path.unlink()
        return f"removed    {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveTree:
    """No such directory any more. ``marker`` is the file in it that proves it to be ours."""

    path: Path
    marker: str

    def tell(self) -> str:
        """The path."""
        return f"remove     {self.path} and all in it"

    def do(self) -> str:
        """Remove it if it is there and carries the marker."""
        if not self.path.exists():
            return f"not there  {self.path}"
        if not (self.path / self.marker).is_file():
            return f"kept       {self.path} (this program did not make it)"
        shutil.rmtree(self.path)
        return f"removed    {self.path}"


@dataclass(frozen=True, slots=True)
class Run:
    """A command; its output is shown only when it fails. With ``may_fail``, that is told and no reason to stop."""

    argv: Sequence[str | Path]
    may_fail: bool = False

    def tell(self) -> str:
        """The command as one would type it."""
        return f"run        {self._line()}"

    def do(self) -> str:
        """Run it to its end. Raises InstallFailed with its last words."""
        # Our own environment may point Python elsewhere; the one that is being made must not follow.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
        try:
            result = subprocess.run(
                list(self.argv), env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            if self.may_fail:
                return f"not there  {self.argv[0]}"
            raise InstallFailed(f"{self.argv[0]} is not on this machine") from error
        if result.returncode and not self.may_fail:
            words = "\n".join((result.stdout + result.stderr).strip().splitlines()[-8:])
            raise InstallFailed(f"`{self._line()}` failed with status {result.returncode}\n{words}")
        return f"{'failed' if result.returncode else 'ran':<11}{self._line()}"

    def _line(self) -> str:
        return shlex.join(str(word) for word in self.argv)
