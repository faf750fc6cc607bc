"""Reads DDL by running it in an empty SQLite database and querying the tables that it declares."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlquarry.sql.schema import Column, ForeignKey, Schema, Table, affinity

_CREATING = {
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_INSERT,  # CREATE TABLE inserts into sqlite_master
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_REINDEX,
}
_CHECK_STEPS = 100_000  # maximum number of SQLite instructions for one statement of the schema
# White space or a comment, which MySQL also starts with "#". Each text matches in one way only, so matching is fast.
GAP = r"(?:\s|(?:--|#)[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)"
_GAPS = re.compile(f"{GAP}*")
# Statements in a dump that do not change the columns of any table.
_SKIPPED = ("PRAGMA", "INSERT", "BEGIN", "COMMIT", "DROP", "ANALYZE", "SET", "USE")


@contextmanager
def empty_database() -> Iterator[sqlite3.Connection]:
    """Open an empty database in memory, which cannot attach files and interrupts long statements, and yield it."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_progress_handler(lambda: True, _CHECK_STEPS)  # CREATE TABLE … AS SELECT runs its query
        yield connection


def split_statements(text: str) -> Iterator[str]:
    """Yield the statements of a text without their semicolons, split where SQLite finds the end of each one."""
    statement = ""
    for part in text.split(";"):
        statement += part
        if statement.strip() and sqlite3.complete_statement(statement + ";"):
            yield statement.strip()
            statement = ""
        elif statement.strip():  # the semicolon is in a string or comment
            statement += ";"
    if statement.strip("; \t\r\n"):
        yield statement.strip()  # an unclosed quote or comment


def read_by_sqlite(text: str) -> Schema | None:
    """Return the schema that SQLite builds from the unchanged text, or None if it refuses any statement."""

    def allow(action: int, *_: str | None) -> int:
        return sqlite3.SQLITE_OK if action in _CREATING else sqlite3.SQLITE_DENY

    ddl = tuple(statement for statement in split_statements(text) if not _is_skipped(statement))
    with empty_database() as connection:
        connection.set_authorizer(allow)
        try:
            for statement in ddl:
                connection.execute(statement)
            connection.set_authorizer(None)
            return declared_schema(connection, text, ddl)
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return None


def _is_skipped(statement: str) -> bool:
    upper = _GAPS.sub("", statement, count=1).upper()
    # A dump may contain sqlite_sequence, although AUTOINCREMENT creates it automatically.
    return upper.startswith((*_SKIPPED, "CREATE TABLE SQLITE_", 'CREATE TABLE "SQLITE_'))


def declared_schema(connection: sqlite3.Connection, text: str, ddl: tuple[str, ...]) -> Schema:
    """Return the schema of a database in which the statements of `ddl` have run.

    Args:
        connection: the database.
        text: the text of the schema.
        ddl: the statements.
    """
    query = "SELECT name, type FROM sqlite_master WHERE name NOT LIKE 'sqlite^_%' ESCAPE '^'"
    kinds: dict[str, str] = dict(connection.execute(query).fetchall())
    upper = text.upper()  # A schema without these words has no keys, which avoids most of the work.
    has_keys, has_references = "PRIMARY" in upper or "UNIQUE" in upper, "REFERENCES" in upper
    tables = {
        name.lower(): _table(
            connection,
            name,
            _keys(connection, name) if has_keys else (),
            _foreign_keys(connection, name) if has_references else (),
        )
        for name, kind in kinds.items()
        if kind == "table"
    }
    return Schema(tables, text, complete="view" not in kinds.values(), ddl=ddl)


def _table(
    connection: sqlite3.Connection,
    name: str,
    keys: tuple[frozenset[str], ...],
    foreign_keys: tuple[ForeignKey, ...],
) -> Table:
    query = 'SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo(?)'
    rows: list[tuple[str, str, int, int, int]] = connection.execute(query, [name]).fetchall()
    single_key = sum(key > 0 for *_, key, _ in rows) == 1
    # INTEGER PRIMARY KEY is an alias of the row number and never NULL. INTEGER PRIMARY KEY DESC has an index instead:
    # https://sqlite.org/lang_createtable.html#rowids_and_the_integer_primary_key
    numbered = single_key and not any(origin == "pk" for *_, origin in _indexes(connection, name))
    columns = {
        column.lower(): Column(
            column,
            declared,
            affinity(declared),
            not_null=bool(required) or (numbered and key > 0 and declared.upper() == "INTEGER"),
            unique=frozenset([column.lower()]) in keys,
            in_key=key > 0,
            generated=hidden > 1,
        )
        for column, declared, required, key, hidden in rows
    }
    return Table(name, columns, keys, foreign_keys)


def _indexes(connection: sqlite3.Connection, table: str) -> list[tuple[str, int, int, str]]:
    query = 'SELECT name, "unique", partial, origin FROM pragma_index_list(?)'
    return connection.execute(query, [table]).fetchall()


def _keys(connection: sqlite3.Connection, table: str) -> tuple[frozenset[str], ...]:
    found = set()
    for index, unique, partial, _ in _indexes(connection, table):
        names = [name for (name,) in connection.execute("SELECT name FROM pragma_index_info(?)", [index])]
        if unique and not partial and None not in names:  # an expression has no name
            found.add(frozenset(name.lower() for name in names))
    if key := _primary_key(connection, table):
        found.add(frozenset(key))
    return tuple(sorted(found, key=sorted))


def _primary_key(connection: sqlite3.Connection, table: str) -> list[str]:
    query = "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk"
    return [name.lower() for (name,) in connection.execute(query, [table])]


def _foreign_keys(connection: sqlite3.Connection, table: str) -> tuple[ForeignKey, ...]:
    query = 'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id, seq'
    found: dict[int, list[tuple[str, str, str | None]]] = {}
    for number, parent, column, target in connection.execute(query, [table]):
        found.setdefault(number, []).append((parent, column, target))
    return tuple(_foreign_key(connection, pairs) for pairs in found.values())


def _foreign_key(connection: sqlite3.Connection, pairs: list[tuple[str, str, str | None]]) -> ForeignKey:
    parent = pairs[0][0]
    targets = [target.lower() for *_, target in pairs if target is not None]
    if not targets:  # REFERENCES without columns means the primary key
        targets = _primary_key(connection, parent)
    if len(targets) != len(pairs):
        targets = [""] * len(pairs)
    return ForeignKey(tuple(column.lower() for _, column, _ in pairs), parent.lower(), tuple(targets))
