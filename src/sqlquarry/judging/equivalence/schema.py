"""What CREATE TABLE text says of columns: names, SQLite affinity, and whether they can be NULL."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlquarry.judging.parsing import statements

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_CREATING = {
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_INSERT,  # into sqlite_master, whose change is part of CREATE TABLE
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_REINDEX,
}
# Quoted names too: SQLite always, MySQL for columns (its tables' case depends on the server's file system).
_WHOLE = {"INT", "BIGINT", "SMALLINT", "TINYINT", "MEDIUMINT"}
_ANY_CASE = {"sqlite", "mysql"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        affinity: INTEGER, TEXT, BLOB, REAL or NUMERIC (https://sqlite.org/datatype3.html, section 3.1).
        not_null: whether no row can hold NULL.
    """

    affinity: str
    not_null: bool


@dataclass(frozen=True, slots=True, eq=False)  # hashed by identity: `read_schema` keeps one object per text
class Schema:
    """The tables of one record by folded name, each with its columns by folded name.

    Args:
        tables: empty where the text cannot be read.
        text: the CREATE TABLE statements.
    """

    tables: Mapping[str, Mapping[str, Column]]
    text: str

    def says(self, word: str) -> bool:
        """Whether a word such as COLLATE stands anywhere in the text."""
        return word in self.text.upper()


@lru_cache(maxsize=512)
def read_schema(text: str, dialect: str) -> Schema:
    """The schema that CREATE TABLE text defines; without tables where it cannot be read.

    SQLite's own parser reads it where it can, because its types and keys have rules of their own.
    """
    tables = _by_sqlite(text) if dialect == "sqlite" else None
    return Schema(_by_sqlglot(text, dialect) if tables is None else tables, text)


def _by_sqlite(text: str) -> dict[str, dict[str, Column]] | None:
    def allow(action: int, *_: str | None) -> int:
        return sqlite3.SQLITE_OK if action in _CREATING else sqlite3.SQLITE_DENY

    with closing(sqlite3.connect(":memory:")) as connection:
        connection.set_authorizer(allow)
        try:
            for statement in text.split(";\n") if ";\n" in text else text.split(";"):
                connection.execute(statement)
            connection.set_authorizer(None)
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name.lower(): _sqlite_columns(connection, name) for name in names if not name.startswith("sqlite_")}
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return None


def _sqlite_columns(connection: sqlite3.Connection, table: str) -> dict[str, Column]:
    rows = connection.execute('SELECT name, type, "notnull", pk FROM pragma_table_info(?)', [table]).fetchall()
    single_key = sum(row[3] > 0 for row in rows) == 1
    return {
        # Only INTEGER PRIMARY KEY, the row's own number, is never NULL: https://sqlite.org/lang_createtable.html#primkeyconst
        name.lower(): Column(affinity(kind), bool(required) or (single_key and key > 0 and kind.upper() == "INTEGER"))
        for name, kind, required, key in rows
    }


def _by_sqlglot(text: str, dialect: str) -> dict[str, dict[str, Column]]:
    from sqlglot import expressions as exp

    tables: dict[str, dict[str, Column]] = {}
    for statement in statements(text, dialect) or ():
        if not isinstance(statement, exp.Create) or not isinstance(statement.this, exp.Schema):
            continue
        columns = tables.setdefault(fold(statement.this.this.this, dialect), {})
        for column in statement.this.expressions:
            if isinstance(column, exp.ColumnDef):
                kind = column.args.get("kind")
                required = any(
                    isinstance(rule.kind, exp.NotNullColumnConstraint) and not rule.kind.args.get("allow_null")
                    for rule in column.args.get("constraints") or ()
                )
                name = kind.this.name if isinstance(kind, exp.DataType) and hasattr(kind.this, "name") else str(kind)
                whole = dialect == "sqlite" or name in _WHOLE or "INT" not in name  # not INTERVAL or POINT
                columns[fold(column.this, dialect)] = Column(affinity(name) if whole else "BLOB", required)
    return tables


def fold(identifier: Expr, dialect: str) -> str:
    """An identifier's spelling, in one case where case means nothing."""
    from sqlglot import Dialect

    if dialect in _ANY_CASE:
        return identifier.name.lower()
    return str(Dialect.get_or_raise(dialect).normalize_identifier(identifier.copy()).name)


def affinity(declared: str) -> str:
    """The affinity of a declared type, by the rules of https://sqlite.org/datatype3.html, section 3.1."""
    declared = declared.upper()
    if "INT" in declared:
        return "INTEGER"
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in declared or not declared:
        return "BLOB"
    return "REAL" if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"
