"""Opening the spool whatever state it is in: a damaged one is moved aside, and what it still holds is saved."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.spool.accounts import Account, AccountFile, StreamAccount
from agent.spool.carve import carve
from agent.spool.database import SpoolBounds, SpoolDatabase
from agent.spool.row import Row, place
from hil.clock import utc

log = logging.getLogger(__name__)

DATABASE: Final = "spool.db"
ACCOUNT: Final = "spool.account"
COMPANIONS: Final = ("", "-wal", "-shm")
KEPT_ASIDE: Final = 3

# What a full, read-only or failing disk says of a spool that may be sound; all else is damage.
_DISK: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
    }
)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the database itself is at fault, not the disk it lies on."""
    return (getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF) not in _DISK


@dataclass(frozen=True, slots=True)
class Opened:
    """An open spool.

    ``numbered`` is the next number of its stream as far as the account knows. ``salvaged``: what an earlier life
    counted cannot be trusted.
    """

    database: SpoolDatabase
    numbered: int
    salvaged: bool


def open_spool(folder: Path, bounds: SpoolBounds, now_us: int) -> Opened:
    """The spool in ``folder``, created or salvaged as need be. Raises sqlite3.Error or OSError of the disk only."""
    account = AccountFile(folder / ACCOUNT).read()
    path = folder / DATABASE
    if account is not None and (not path.exists() or path.stat().st_size == 0):
        return _salvage(folder, bounds, account, now_us, "the database is gone")
    file = SpoolDatabase(path, bounds)
    try:
        file.open()
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        return _salvage(folder, bounds, account, now_us, str(error))
    if account is None:
        return Opened(file, numbered=0, salvaged=False)
    newest = account.streams[-1]
    if newest.name not in [stream.name for stream in file.account().streams]:
        file.close()
        return _salvage(folder, bounds, account, now_us, "it is not the one that was written last")
    return Opened(file, numbered=newest.next_seq if newest.name == file.stream else 0, salvaged=False)


def _salvage(folder: Path, bounds: SpoolBounds, account: Account | None, now_us: int, why: str) -> Opened:
    aside = _move_aside(folder, now_us)
    if account is None:
        account = _account_within(aside)
    newest = account.streams[-1].generation if account.streams else 0
    fresh = SpoolDatabase(folder / DATABASE, bounds, newest + 1)
    fresh.open()
    try:
        books = fresh.inherit(account.streams, _rows_of(aside, account), account)
    except BaseException:
        fresh.close()
        raise
    log.error(
        "spool: damaged (%s), moved to %s: %d samples saved, %d lost in all so far",
        why,
        aside,
        books.spooled,
        books.lost,
    )
    return Opened(fresh, numbered=0, salvaged=True)


def _move_aside(folder: Path, now_us: int) -> Path:
    older = sorted(path for path in folder.glob("spool.corrupt-*") if not path.name.endswith(COMPANIONS[1:]))
    for path in older[: 1 - KEPT_ASIDE]:
        for companion in COMPANIONS:
            path.with_name(path.name + companion).unlink(missing_ok=True)
    aside = folder / f"spool.corrupt-{utc(now_us):%Y%m%dT%H%M%S}-{now_us % 1_000_000:06d}"
    for companion in COMPANIONS:
        with suppress(FileNotFoundError):
            (folder / (DATABASE + companion)).replace(aside.with_name(aside.name + companion))
    return aside


def _account_within(damaged: Path) -> Account:
    """The account as far as the damaged database itself can still tell it; nothing in it is changed."""
    try:
        with closing(sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            streams = db.execute("SELECT generation, name, next_seq FROM stream ORDER BY generation").fetchall()
            generated, acked, lost = db.execute("SELECT generated, acked, lost FROM books").fetchone()
            accounts = [StreamAccount(int(generation), str(name), int(end), 1) for generation, name, end in streams]
            return Account(accounts, int(generated), int(acked), int(lost))
    except (sqlite3.Error, TypeError, ValueError):
        return Account([], 0, 0, 0)


def _rows_of(aside: Path, account: Account) -> Iterator[Row]:
    streams = {stream.generation: stream for stream in account.streams}
    for row in carve(aside):
        generation, seq = place(row[0])
        stream = streams.get(generation)
        if stream is not None and stream.floor <= seq < stream.next_seq:
            yield row
