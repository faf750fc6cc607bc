"""Read the tables of an SQLite file from its own catalog.

SQLAlchemy's inspector is not used, because it replaces the types that it does not know
(https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#type-reflection), and because it would open the file in
this process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlquarry.data.database.reader import Reader
from sqlquarry.data.database.rendering import literal
from sqlquarry.data.database.tables import Catalog, DatabaseColumn, DatabaseForeignKey, DatabaseTable
from sqlquarry.execution.sandbox import Failure
from sqlquarry.sql.identifiers import quoted

# Tables of SQLite itself begin with sqlite_. Virtual tables such as full-text indexes store data in shadow tables.
_TABLES = (
    "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
)
_SHADOWS = "SELECT name FROM pragma_table_list WHERE type = 'shadow'"  # since SQLite 3.37
_COLUMNS = 'SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo({}) ORDER BY cid'
_KEYS = 'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list({}) ORDER BY id DESC, seq'
# Counting would read the whole table. The largest row number is found in an index, but it also counts deleted rows.
_ROWS = "SELECT max({}) FROM {}"
_ROW_NUMBERS = ("rowid", "_rowid_", "oid")  # https://sqlite.org/lang_createtable.html#rowid
_HIDDEN = 1  # a column of a virtual table that is an argument, not data


def read_sqlite(reader: Reader) -> Catalog | Failure:
    """Return tables and views in the order of their creation, or the reason why the file cannot be read."""
    found = reader.rows(_TABLES)
    if isinstance(found, Failure):
        return found
    shadows = reader.rows(_SHADOWS)
    skipped = set() if isinstance(shadows, Failure) else {name for (name,) in shadows}
    tables: dict[str, DatabaseTable] = {}
    notes: list[str] = []
    for name, kind in found:
        if name in skipped:
            continue
        table = _table(reader, name, is_view=kind == "view")
        if isinstance(table, Failure):
            notes.append(f"{name} cannot be read: {table.message}")
        else:
            tables[name] = table
    return Catalog({name: _with_targets(table, tables) for name, table in tables.items()}, tuple(notes))


def row_number(columns: Collection[str]) -> str:
    """Return the name of the row's number that no column of the table has."""
    taken = {name.lower() for name in columns}
    return next((name for name in _ROW_NUMBERS if name not in taken), _ROW_NUMBERS[0])


def _table(reader: Reader, name: str, *, is_view: bool) -> DatabaseTable | Failure:
    columns = reader.rows(_COLUMNS.format(literal(name)))
    if isinstance(columns, Failure):
        return columns
    keys = reader.rows(_KEYS.format(literal(name)))
    rows = None if is_view else reader.rows(_ROWS.format(row_number([column for column, *_ in columns]), quoted(name)))
    count = rows[0][0] if rows is not None and not isinstance(rows, Failure) else None
    return DatabaseTable(
        name,
        tuple(
            DatabaseColumn(column, type_, nullable=not required and not key, generated=hidden > _HIDDEN)
            for column, type_, required, key, hidden in columns
            if hidden != _HIDDEN
        ),
        primary_key=tuple(_in_key_order(columns)),
        foreign_keys=() if isinstance(keys, Failure) else tuple(_foreign_keys(keys)),
        rows=(count if isinstance(count, int) else 0) if rows is not None and not isinstance(rows, Failure) else None,
        is_view=is_view,
    )


def _in_key_order(columns: Sequence[tuple[Any, ...]]) -> Iterable[str]:
    places = sorted((key, name) for name, _, _, key, _ in columns if key)
    return (name for _, name in places)


def _foreign_keys(rows: Sequence[tuple[Any, ...]]) -> Iterable[DatabaseForeignKey]:
    found: dict[object, list[tuple[str, str, str | None]]] = {}
    for number, table, column, target in rows:
        found.setdefault(number, []).append((table, column, target))
    for pairs in found.values():
        targets = tuple(target for *_, target in pairs if target is not None)
        yield DatabaseForeignKey(tuple(column for _, column, _ in pairs), pairs[0][0], targets)


def _with_targets(table: DatabaseTable, tables: dict[str, DatabaseTable]) -> DatabaseTable:
    """Return the table with the names of other tables and of their columns as these declare them.

    SQLite stores them as they were written, in any case. Without target columns the primary key is meant.
    """
    spellings = {name.lower(): name for name in tables}
    keys = []
    for key in table.foreign_keys:
        other = tables.get(spellings.get(key.table.lower(), ""))
        if other is None:  # SQLite accepts references to tables that do not exist
            continue
        names = {column.name.lower(): column.name for column in other.columns}
        targets = key.targets or other.primary_key
        own = {column.name.lower(): column.name for column in table.columns}
        if len(targets) == len(key.columns):
            keys.append(
                DatabaseForeignKey(
                    tuple(own.get(column.lower(), column) for column in key.columns),
                    other.name,
                    tuple(names.get(target.lower(), target) for target in targets),
                )
            )
    return replace(table, foreign_keys=tuple(keys))
