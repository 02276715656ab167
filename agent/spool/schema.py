"""The tables of the spool's database, and how a connection to it behaves."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

SCHEMA_VERSION: Final = 1
PAGE_BYTES: Final = 4096
SETTINGS: Final = (
    f"page_size={PAGE_BYTES}",
    "journal_mode=WAL",
    "journal_size_limit=4194304",
    "cache_size=-1024",
    "synchronous=FULL",
)
TABLES: Final = """
CREATE TABLE stream (generation INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, next_seq INTEGER NOT NULL);
CREATE TABLE sample (position INTEGER PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE tombstone (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, why TEXT NOT NULL);
CREATE TABLE energy (meter TEXT PRIMARY KEY, energy_j REAL NOT NULL, epoch INTEGER NOT NULL, device INTEGER NOT NULL);
CREATE TABLE books (generated INTEGER NOT NULL, acked INTEGER NOT NULL, lost INTEGER NOT NULL);
CREATE TABLE life (boot_id TEXT NOT NULL, safe INTEGER NOT NULL);
INSERT INTO books VALUES (0, 0, 0);
INSERT INTO life VALUES ('', 1)
"""

NAMES: Final = frozenset({"stream", "sample", "tombstone", "energy", "books", "life"})


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection in autocommit mode, for use by one thread at a time; without a path to a database in memory."""
    return sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)


def prepare(db: sqlite3.Connection) -> bool:
    """Set the connection up and look for damage; whether the database is new, so that it needs tables.

    Raises sqlite3.DatabaseError for a database that is not a spool of this version, or not sound.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if tables and version != SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"schema version {version}, expected {SCHEMA_VERSION}")
    if tables and not tables >= NAMES:
        raise sqlite3.DatabaseError("tables are missing")
    for setting in SETTINGS:
        db.execute(f"PRAGMA {setting}")
    if tables:
        (problem,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
    return not tables


def create(db: sqlite3.Connection, generation: int, stream: str) -> None:
    """Make the tables of an empty spool with its first stream."""
    with transaction(db):
        for statement in TABLES.split(";"):
            db.execute(statement)
        db.execute("INSERT INTO stream VALUES (?, ?, 1)", (generation, stream))
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; at the end on disk, as far as the connection's ``synchronous`` says."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # after some errors SQLite has rolled back by itself
            db.execute("ROLLBACK")
        raise
