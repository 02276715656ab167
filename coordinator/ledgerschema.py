"""The ledger's file: its tables, the codes in them, and how it is opened.

One SQLite file in the run's folder, in WAL mode. Samples and steps are only ever appended, in order of time; names are
written once and meant by number afterwards. ``step`` and ``step_input`` hold what must replay byte for byte,
``step_time`` what cannot. The views (``samples``, ``steps``, ``inputs``) put the names back, for people with
``sqlite3 ledger.db``.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from coordinator.records import InputSource, StepKind
from hil.devices import Quality

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x57_4C_45_44  # "WLED"
BUSY_S: Final = 5.0

# Codes are part of the file: append new ones, never change one.
QUALITY_CODES: Final = {
    Quality.GOOD: 0,
    Quality.STALE: 1,
    Quality.ESTIMATED: 2,
    Quality.SUSPECT: 3,
    Quality.MISSING: 4,
}
SOURCE_CODES: Final = {
    InputSource.MEASURED: 0,
    InputSource.HELD: 1,
    InputSource.ESTIMATED: 2,
    InputSource.NAMEPLATE: 3,
    InputSource.MODEL: 4,
}
KIND_CODES: Final = {StepKind.NORMAL: 0, StepKind.CATCH_UP: 1, StepKind.GAP: 2}

_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE quality (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE kind (id INTEGER PRIMARY KEY, name TEXT NOT NULL);

CREATE TABLE node (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE meter (id INTEGER PRIMARY KEY, node INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (node, name));
CREATE TABLE microgrid (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE actor (id INTEGER PRIMARY KEY, microgrid INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (microgrid, name));

-- What was received of each stream: settled is a set of ranges in the coding of hil.intervals.
CREATE TABLE stream (
  id INTEGER PRIMARY KEY, node INTEGER NOT NULL, name TEXT NOT NULL, settled BLOB NOT NULL DEFAULT X'',
  committed INTEGER NOT NULL DEFAULT 0, duplicates INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0,
  UNIQUE (node, name));
CREATE TABLE sample (
  id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, seq INTEGER NOT NULL, meter INTEGER NOT NULL, t_us INTEGER NOT NULL,
  power_w REAL, energy_j REAL, energy_epoch INTEGER NOT NULL, quality INTEGER NOT NULL, hist INTEGER NOT NULL,
  arrived_us INTEGER NOT NULL);
CREATE TABLE tombstone (
  id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, why TEXT NOT NULL);
-- What each agent says of itself, newest.
CREATE TABLE node_books (
  node INTEGER PRIMARY KEY, state TEXT NOT NULL, session INTEGER NOT NULL, lease TEXT NOT NULL, stream TEXT NOT NULL,
  generated INTEGER NOT NULL, acked INTEGER NOT NULL, spooled INTEGER NOT NULL, lost INTEGER NOT NULL);

CREATE TABLE step (
  k INTEGER NOT NULL, microgrid INTEGER NOT NULL, kind INTEGER NOT NULL, t_us INTEGER NOT NULL, dt_s REAL,
  p_delta_w REAL, p_battery_w REAL, p_grid_w REAL, p_unserved_w REAL,
  p_curtailed_w REAL, soc REAL, min_soc REAL, charge_power_w REAL, islanded INTEGER NOT NULL,
  carbon_g_per_kwh REAL, price_per_mwh REAL, emissions_g REAL, residual_w REAL,
  PRIMARY KEY (k, microgrid)) WITHOUT ROWID;
-- power_w is the instrument value that went in, p_w the site value that came out; place is the order in the scenario.
CREATE TABLE step_input (
  k INTEGER NOT NULL, microgrid INTEGER NOT NULL, place INTEGER NOT NULL, actor INTEGER NOT NULL, p_w REAL,
  power_w REAL, quality INTEGER NOT NULL, source INTEGER NOT NULL, age_s REAL, stream INTEGER, meter INTEGER,
  seq_first INTEGER, seq_last INTEGER, sample_count INTEGER,
  PRIMARY KEY (k, microgrid, place)) WITHOUT ROWID;
-- sample_id: every sample up to this one was in before the step.
CREATE TABLE step_time (
  k INTEGER PRIMARY KEY, real_t_us INTEGER NOT NULL, lateness_s REAL, compute_s REAL,
  sample_id INTEGER NOT NULL);
-- What other systems' signals were in each step; a null value was unknown.
CREATE TABLE signal (k INTEGER NOT NULL, name TEXT NOT NULL, value REAL, PRIMARY KEY (k, name)) WITHOUT ROWID;
CREATE TABLE snapshot (only INTEGER PRIMARY KEY CHECK (only = 1), k INTEGER NOT NULL, state BLOB NOT NULL);

CREATE TABLE event (
  id INTEGER PRIMARY KEY, t_us INTEGER NOT NULL, real_t_us INTEGER NOT NULL, k INTEGER, microgrid INTEGER,
  kind TEXT NOT NULL, detail TEXT NOT NULL);
-- message is the command as it went over the wire; the columns before it are for people.
CREATE TABLE command (
  id INTEGER PRIMARY KEY, command_id TEXT NOT NULL UNIQUE, node INTEGER NOT NULL, actuator TEXT NOT NULL,
  action TEXT NOT NULL, limit_w REAL, profile TEXT, renews TEXT, microgrid INTEGER, k INTEGER, t_us INTEGER NOT NULL,
  real_t_us INTEGER NOT NULL, message BLOB NOT NULL);
CREATE TABLE ack (
  id INTEGER PRIMARY KEY, command_id TEXT NOT NULL, node INTEGER NOT NULL, state TEXT NOT NULL, code TEXT NOT NULL,
  real_t_us INTEGER NOT NULL, latency_ms REAL, message BLOB NOT NULL);
CREATE INDEX ack_of_command ON ack (command_id);
CREATE TABLE effect (
  id INTEGER PRIMARY KEY, command_id TEXT NOT NULL, effect TEXT NOT NULL, measured_w REAL, real_t_us INTEGER NOT NULL);
CREATE INDEX effect_of_command ON effect (command_id);

CREATE VIEW samples AS
  SELECT sample.id, node.name AS node, stream.name AS stream, seq, meter.name AS meter, t_us,
    strftime('%Y-%m-%dT%H:%M:%fZ', t_us / 1e6, 'unixepoch') AS time, power_w, energy_j, energy_epoch,
    quality.name AS quality, hist, arrived_us
  FROM sample JOIN stream ON stream.id = sample.stream JOIN node ON node.id = stream.node
    JOIN meter ON meter.id = sample.meter JOIN quality ON quality.id = sample.quality;
CREATE VIEW steps AS
  SELECT k, microgrid.name AS microgrid, kind.name AS kind, t_us,
    strftime('%Y-%m-%dT%H:%M:%fZ', t_us / 1e6, 'unixepoch') AS time, dt_s, p_delta_w, p_battery_w, p_grid_w,
    p_unserved_w, p_curtailed_w, soc, min_soc, charge_power_w, islanded, carbon_g_per_kwh, price_per_mwh, emissions_g,
    residual_w
  FROM step JOIN microgrid ON microgrid.id = step.microgrid JOIN kind ON kind.id = step.kind;
CREATE VIEW inputs AS
  SELECT k, microgrid.name AS microgrid, actor.name AS actor, p_w, power_w, quality.name AS quality,
    source.name AS source, age_s, node.name AS node, meter.name AS meter, stream.name AS stream, seq_first, seq_last,
    sample_count
  FROM step_input JOIN microgrid ON microgrid.id = step_input.microgrid JOIN actor ON actor.id = step_input.actor
    JOIN quality ON quality.id = step_input.quality JOIN source ON source.id = step_input.source
    LEFT JOIN meter ON meter.id = step_input.meter LEFT JOIN node ON node.id = meter.node
    LEFT JOIN stream ON stream.id = step_input.stream;
"""


class LedgerError(Exception):
    """The ledger cannot be used; the text is one plain line that names the file."""


def ledger_file(run_dir: Path) -> Path:
    """The ledger of a run."""
    return run_dir / "ledger.db"


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The one connection that writes; makes the file where there is none. Raises LedgerError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"{path}: cannot make its folder: {error.strerror}") from error
    try:
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write and never holds up the one that does. Raises LedgerError."""
    try:
        path.stat()
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    try:
        return _open_to_read(path, "mode=ro")
    except sqlite3.OperationalError as error:
        if path.with_name(f"{path.name}-wal").exists():
            raise LedgerError(f"{path}: {error}") from error
    # Closed properly, and in a folder where we may not write: nobody else can be writing either.
    try:
        return _open_to_read(path, "immutable=1")
    except sqlite3.OperationalError as error:
        raise LedgerError(f"{path}: {error}") from error


def _open_to_read(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    try:
        if _is_empty(connection, path):
            _create(connection)
        _check(connection, path)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.OperationalError as error:
        raise LedgerError(f"{path}: {error}") from error
    if mode != "wal":
        raise LedgerError(f"{path}: this file system cannot hold a write-ahead log; choose a local one")


def _is_empty(connection: sqlite3.Connection, path: Path) -> bool:
    try:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    except sqlite3.DatabaseError as error:
        raise LedgerError(_unreadable(path, error)) from error
    return bool(tables == 0 and application_id == 0)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise LedgerError(_unreadable(path, error)) from error
    if application_id != APPLICATION_ID:
        raise LedgerError(f"{path}: a database of another program, not a ledger")
    if version != SCHEMA_VERSION:
        raise LedgerError(f"{path}: a ledger of schema {version}; this version reads and writes {SCHEMA_VERSION}")


def _unreadable(path: Path, error: sqlite3.DatabaseError) -> str:
    return f"{path}: not a ledger, or a damaged one: {error}"


def _create(connection: sqlite3.Connection) -> None:
    # In one transaction, identity included: a crash leaves a ledger or an empty file, nothing between.
    connection.executescript(f"BEGIN IMMEDIATE;\n{_TABLES}")
    connection.executemany("INSERT INTO quality VALUES (?, ?)", _code_rows(QUALITY_CODES))
    connection.executemany("INSERT INTO source VALUES (?, ?)", _code_rows(SOURCE_CODES))
    connection.executemany("INSERT INTO kind VALUES (?, ?)", _code_rows(KIND_CODES))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _code_rows(codes: Mapping[Any, int]) -> list[tuple[int, str]]:
    return [(code, str(name)) for name, code in codes.items()]
