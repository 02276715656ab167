"""Samples out of a damaged spool: every page of the file that still reads as a page of rows gives what it holds.

SQLite itself stops where the tree is broken. The rows need no tree: each carries a checksum over its place and its
content, so a cell is either exactly what was written or not taken. The layout is that of table b-tree leaf pages,
https://www.sqlite.org/fileformat2.html#b_tree_pages; a row is small enough never to overflow its page.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.spool.row import Row, intact
from agent.spool.schema import PAGE_BYTES

LEAF: Final = 0x0D
DATABASE_HEADER: Final = 100
WAL_HEADER: Final = 32
FRAME_HEADER: Final = 24
INTEGER_BYTES: Final = (0, 1, 2, 3, 4, 6, 8)
FIRST_BLOB: Final = 12


def carve(database: Path) -> Iterator[Row]:
    """Every intact row in the database and its write-ahead log, some of them more than once."""
    log = database.with_name(database.name + "-wal")
    for path, offset, frame in ((database, 0, 0), (log, WAL_HEADER, FRAME_HEADER)):
        if path.exists():
            yield from _rows_of_file(path, offset, frame)


def _rows_of_file(path: Path, offset: int, frame: int) -> Iterator[Row]:
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(frame + PAGE_BYTES):
            page = block[frame:]
            start = DATABASE_HEADER if page.startswith(b"SQLite format 3\0") else 0
            yield from _rows_of_page(page, start)


def _rows_of_page(page: bytes, start: int) -> Iterator[Row]:
    if page[start : start + 1] != bytes([LEAF]):
        return
    cells = int.from_bytes(page[start + 3 : start + 5], "big")
    for index in range(cells):
        pointer = start + 8 + 2 * index
        at = int.from_bytes(page[pointer : pointer + 2], "big")
        try:
            row = _row(page, at)
        except IndexError:  # it points beyond the page
            continue
        if row is not None:
            yield row


def _row(page: bytes, at: int) -> Row | None:
    _, at = _varint(page, at)
    where, at = _varint(page, at)
    header_bytes, kinds = _varint(page, at)
    value = at + header_bytes
    alias, kinds = _varint(page, kinds)
    crc_kind, kinds = _varint(page, kinds)
    body_kind, kinds = _varint(page, kinds)
    if alias != 0 or crc_kind > 6 or body_kind < FIRST_BLOB or body_kind % 2 or kinds != value:
        return None
    body_at = value + INTEGER_BYTES[crc_kind]
    crc = int.from_bytes(page[value:body_at], "big", signed=True)
    body = page[body_at : body_at + (body_kind - FIRST_BLOB) // 2]
    return (where, crc, body) if intact(where, crc, body) is not None else None


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = page[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | page[at + 8], at + 9
