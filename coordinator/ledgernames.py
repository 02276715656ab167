"""Numbers for names: in the ledger a name is written once, and meant by its number from then on."""

import sqlite3
from typing import Final

NameKey = tuple[int | str, ...]


class Names:
    """The names of one table. New ones go to disk with the batch that first used them, again if that is tried again."""

    def __init__(self, connection: sqlite3.Connection, select: str, insert: str) -> None:
        self._numbers: dict[NameKey, int] = {tuple(name): number for number, *name in connection.execute(select)}
        self._next = max(self._numbers.values(), default=0) + 1
        self._insert = insert
        self._unwritten: list[NameKey] = []

    def number(self, *name: int | str) -> int:
        """The number of a name, old or new."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = self._next
            self._next += 1
            self._unwritten.append(name)
        return number

    def write(self, connection: sqlite3.Connection) -> None:
        """Put the new names into the open transaction."""
        if self._unwritten:
            connection.executemany(self._insert, [(self._numbers[name], *name) for name in self._unwritten])

    def written(self) -> None:
        """The transaction is on disk."""
        self._unwritten.clear()


class NameBook:
    """All names of a ledger."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._nodes: Final = Names(connection, "SELECT id, name FROM node", "INSERT INTO node VALUES (?, ?)")
        self._meters: Final = Names(
            connection, "SELECT id, node, name FROM meter", "INSERT INTO meter VALUES (?, ?, ?)"
        )
        self._streams: Final = Names(
            connection, "SELECT id, node, name FROM stream", "INSERT INTO stream (id, node, name) VALUES (?, ?, ?)"
        )
        self._microgrids: Final = Names(
            connection, "SELECT id, name FROM microgrid", "INSERT INTO microgrid VALUES (?, ?)"
        )
        self._actors: Final = Names(
            connection, "SELECT id, microgrid, name FROM actor", "INSERT INTO actor VALUES (?, ?, ?)"
        )
        self._all: Final = (self._nodes, self._meters, self._streams, self._microgrids, self._actors)

    def node(self, node: str) -> int:
        """The number of an agent or node."""
        return self._nodes.number(node)

    def meter(self, node: str, meter: str) -> int:
        """The number of an agent's meter."""
        return self._meters.number(self._nodes.number(node), meter)

    def stream(self, node: str, stream: str) -> int:
        """The number of an agent's stream."""
        return self._streams.number(self._nodes.number(node), stream)

    def microgrid(self, microgrid: str) -> int:
        """The number of a microgrid."""
        return self._microgrids.number(microgrid)

    def actor(self, microgrid: str, actor: str) -> int:
        """The number of a microgrid's actor."""
        return self._actors.number(self._microgrids.number(microgrid), actor)

    def write(self, connection: sqlite3.Connection) -> None:
        """Put the new names into the open transaction."""
        for names in self._all:
            names.write(connection)

    def written(self) -> None:
        """The transaction is on disk."""
        for names in self._all:
            names.written()
