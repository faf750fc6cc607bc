"""Tables, columns and keys, as a schema declares them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

Place = tuple[str, str]  # a column: the folded names of its table and itself
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
        name: as the schema writes it.
        declared: its type as the schema writes it; "" if the schema does not say.
        affinity: INTEGER, TEXT, BLOB, REAL or NUMERIC (https://sqlite.org/datatype3.html, section 3.1).
        not_null: whether the database refuses NULL.
        unique: whether no two rows can hold the same value, other than NULL.
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
        """Whether the column should never be NULL.

        By the SQL standard that includes the primary key; that SQLite allows NULL in it is a bug which SQLite keeps
        (https://sqlite.org/quirks.html).
        """
        return self.not_null or self.in_key

    @property
    def kind(self) -> ValueKind:
        """The values that the declared type is meant for."""
        return value_kind(self.declared)

    @property
    def length(self) -> int | None:
        """The most characters that VARCHAR(n) and the like allow; None if the type sets no limit."""
        return _length(self.declared)


class ForeignKey(NamedTuple):
    """Columns whose values occur in columns of another table, or are NULL; all names are folded.

    A target is "" if the foreign key names no columns and the other table has no primary key to match.
    """

    columns: tuple[str, ...]
    table: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    Args:
        name: as the schema writes it.
        columns: by folded name, in order.
        keys: the sets of columns that are together unique; rows with a NULL among them may repeat.
        foreign_keys: the references to other tables.
    """

    name: str
    columns: Mapping[str, Column]
    keys: tuple[frozenset[str], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()

    @property
    def stored(self) -> dict[str, Column]:
        """The columns that rows have a value of their own for: all but the generated ones."""
        return {name: column for name, column in self.columns.items() if not column.generated}


@dataclass(frozen=True, slots=True, eq=False)  # hashed by identity: the readers keep one object per text
class Schema:
    """The tables of one record.

    Args:
        tables: by folded name; empty if the text cannot be read.
        text: the DDL.
        complete: whether the database holds nothing else that a query could name, such as a view.
        ddl: the statements that SQLite has accepted; empty if SQLite was not asked or cannot read the text.
    """

    tables: Mapping[str, Table]
    text: str
    complete: bool = True
    ddl: tuple[str, ...] = ()

    def column(self, place: Place) -> Column:
        """Return one column."""
        return self.tables[place[0]].columns[place[1]]

    @property
    def views(self) -> tuple[str, ...]:
        """The statements of `ddl` that create views."""
        return tuple(statement for statement in self.ddl if re.match(r"CREATE\s+VIEW", statement, re.IGNORECASE))

    def mentions(self, word: str) -> bool:
        """Whether a word in capital letters, such as COLLATE, occurs anywhere in the text."""
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
    """Return the values that a declared type is meant for: SQLite's affinities, with dates and booleans told apart."""
    return next((kind for pattern, kind in _KINDS if re.search(pattern, declared, re.IGNORECASE)), "text")


@lru_cache(maxsize=1024)
def _length(declared: str) -> int | None:
    found = re.search(r"(?:CHAR|TEXT)\w*\s*\(\s*(\d+)", declared, re.IGNORECASE)
    return int(found[1]) if found else None


def parents_first(tables: Mapping[str, Table]) -> dict[str, Table]:
    """Return the tables, each after those that its foreign keys need where possible."""
    ordered: dict[str, Table] = {}
    waiting = dict(tables)
    while waiting:
        free = [
            name
            for name, table in waiting.items()
            if not any(key.table in waiting and key.table != name for key in table.foreign_keys)
        ]
        wanted = Counter(key.table for table in waiting.values() for key in table.foreign_keys)
        # A cycle is broken at the table that most others wait for.
        for name in free or [max(waiting, key=wanted.__getitem__)]:
            ordered[name] = waiting.pop(name)
    return ordered
