"""The tables, columns and keys that a schema declares."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

Place = tuple[str, str]  # a column, by the folded names of the table and the column
ValueKind = Literal["integer", "real", "text", "date", "time", "datetime", "boolean"]

_KINDS: tuple[tuple[str, ValueKind], ...] = (
    ("BOOL|^BIT", "boolean"),
    ("DATETIME|TIMESTAMP", "datetime"),
    ("DATE", "date"),
    ("^TIME", "time"),
    ("INT|^YEAR|SERIAL", "integer"),
    ("CHAR|CLOB|TEXT", "text"),
    ("REAL|FLOA|DOUB|DEC|NUM|MONEY", "real"),
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        name: the name as written in the schema.
        declared: the type as written in the schema, or "" if it has none.
        affinity: INTEGER, TEXT, BLOB, REAL or NUMERIC (https://sqlite.org/datatype3.html, section 3.1).
        not_null: whether the database refuses NULL.
        unique: whether no two rows can have the same value, except NULL.
        in_key: whether it is part of the primary key.
        generated: whether it is computed from other columns.
    """

    name: str
    declared: str
    affinity: str
    not_null: bool
    unique: bool = False
    in_key: bool = False
    generated: bool = False

    @property
    def required(self) -> bool:
        """True if the column should never be NULL.

        In the SQL standard this includes the primary key. SQLite allows NULL in primary keys, which is a bug that it
        keeps for compatibility (https://sqlite.org/quirks.html).
        """
        return self.not_null or self.in_key

    @property
    def kind(self) -> ValueKind:
        """Kind of values that the declared type is for."""
        return value_kind(self.declared)

    @property
    def length(self) -> int | None:
        """Maximum number of characters of a type such as VARCHAR(n), or None if the type has no limit."""
        return _length(self.declared)


class ForeignKey(NamedTuple):
    """Columns whose values must be NULL or occur in the target columns of another table. All names are folded.

    A target is "" if the foreign key lists no target columns and the other table has no matching primary key.
    """

    columns: tuple[str, ...]
    table: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    Args:
        name: the name as written in the schema.
        columns: the columns by folded name, in order.
        keys: the sets of columns that are unique in combination. Rows with a NULL in such a set may repeat.
        foreign_keys: the references to other tables.
    """

    name: str
    columns: Mapping[str, Column]
    keys: tuple[frozenset[str], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()

    @property
    def stored(self) -> dict[str, Column]:
        """Columns whose values are stored, without generated columns."""
        return {name: column for name, column in self.columns.items() if not column.generated}


@dataclass(frozen=True, slots=True, eq=False)  # hashed by identity, since the readers cache one object per text
class Schema:
    """The tables of one record.

    Args:
        tables: the tables by folded name. Empty if the text cannot be read.
        text: the DDL.
        complete: whether queries can use nothing else in the database, such as a view.
        ddl: the statements that SQLite accepted. Empty if SQLite did not run the text or refused it.
    """

    tables: Mapping[str, Table]
    text: str
    complete: bool = True
    ddl: tuple[str, ...] = ()

    def column(self, place: Place) -> Column:
        """Return the column at `place`."""
        return self.tables[place[0]].columns[place[1]]

    @property
    def views(self) -> tuple[str, ...]:
        """CREATE VIEW statements in `ddl`."""
        return tuple(statement for statement in self.ddl if re.match(r"CREATE\s+VIEW", statement, re.IGNORECASE))

    def mentions(self, word: str) -> bool:
        """Return whether an uppercase word, such as COLLATE, occurs anywhere in the text in any case."""
        return word in self.text.upper()


def affinity(declared: str) -> str:
    """Return the affinity of a declared type, by the rules of https://sqlite.org/datatype3.html, section 3.1."""
    declared = declared.upper()
    if "INT" in declared:
        return "INTEGER"
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in declared or not declared:
        return "BLOB"
    return "REAL" if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


@lru_cache(maxsize=1024)
def value_kind(declared: str) -> ValueKind:
    """Return the kind of values that a declared type is for, such as dates or booleans."""
    return next((kind for pattern, kind in _KINDS if re.search(pattern, declared, re.IGNORECASE)), "text")


@lru_cache(maxsize=1024)
def _length(declared: str) -> int | None:
    found = re.search(r"(?:CHAR|TEXT)\w*\s*\(\s*(\d+)", declared, re.IGNORECASE)
    return int(found[1]) if found else None


def parents_first(tables: Mapping[str, Table]) -> dict[str, Table]:
    """Return the tables with each one after the tables that it refers to, if possible."""
    ordered: dict[str, Table] = {}
    waiting = dict(tables)
    while waiting:
        free = [
            name
            for name, table in waiting.items()
            if not any(key.table in waiting and key.table != name for key in table.foreign_keys)
        ]
        wanted = Counter(key.table for table in waiting.values() for key in table.foreign_keys)
        # A cycle is broken at the table to which most foreign keys refer.
        for name in free or [max(waiting, key=wanted.__getitem__)]:
            ordered[name] = waiting.pop(name)
    return ordered
