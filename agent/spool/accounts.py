"""The spool's accounts: how many samples there were, and what became of them."""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class Books:
    """Samples since the state directory was made: every one of them is acknowledged, spooled or declared lost."""

    generated: int = 0
    acked: int = 0
    spooled: int = 0
    lost: int = 0

    @property
    def balanced(self) -> bool:
        """Whether ``generated = acked + spooled + lost``."""
        return self.generated == self.acked + self.spooled + self.lost

    def __str__(self) -> str:
        return f"{self.generated} samples: {self.acked} acknowledged, {self.spooled} spooled, {self.lost} lost"

    def __add__(self, other: "Books") -> "Books":
        return Books(
            self.generated + other.generated,
            self.acked + other.acked,
            self.spooled + other.spooled,
            self.lost + other.lost,
        )


class StreamAccount(msgspec.Struct, frozen=True, array_like=True):
    """One stream: its generation and name, its next number, and its lowest one that is not acknowledged."""

    generation: Annotated[int, msgspec.Meta(ge=1)]
    name: str
    next_seq: Annotated[int, msgspec.Meta(ge=1)]
    floor: Annotated[int, msgspec.Meta(ge=1)]


class Account(msgspec.Struct, frozen=True):
    """What must be known to tell exactly how much a damaged spool has lost; the newest stream stands last."""

    streams: list[StreamAccount]
    generated: Count
    acked: Count
    lost: Count


class AccountFile:
    """The account beside the database, rewritten in place after each commit.

    It is read only when the database cannot be. It is not synced to disk: a process that is killed leaves it whole,
    and after a power cut a checksum tells whether it is.
    """

    BYTES: Final = 4096

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def read(self) -> Account | None:
        """The account as last written; None where there is none that can be trusted."""
        try:
            head, _, body = self._path.read_bytes().rstrip(b" \n").partition(b" ")
            if int(head, 16) != zlib.crc32(body):
                return None
            account = msgspec.json.decode(body, type=Account)
        except (OSError, ValueError):  # msgspec's errors are ValueErrors
            return None
        return account if account.streams else None

    def write(self, account: Account) -> None:
        """Replace the account. Raises OSError."""
        body = msgspec.json.encode(account)
        line = b"%08x %s" % (zlib.crc32(body), body)
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Padding keeps the length constant, so that no rest of an older, longer line can stand behind this one.
        os.pwrite(self._descriptor, line.ljust(self.BYTES - 1) + b"\n", 0)

    def close(self) -> None:
        """Let go of the file; harmless when repeated."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
