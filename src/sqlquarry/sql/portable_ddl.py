"""Creates the tables of any dialect's DDL in SQLite. Only statements that SQLite refuses are rewritten."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlquarry.errors import JudgingError
from sqlquarry.sql.identifiers import quoted
from sqlquarry.sql.schema import Schema, parents_first
from sqlquarry.sql.sqlite_ddl import GAP, declared_schema, empty_database, split_statements

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_CREATE_TABLE = re.compile(
    r"\s*CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?([^\s(]+|\"[^\"]+\")\s*\((.*)\)[^)]*$", re.IGNORECASE | re.DOTALL
)
_CONSTRAINT = re.compile(r"(PRIMARY|FOREIGN|UNIQUE|CHECK|CONSTRAINT|KEY|INDEX)\b(?=.*\()", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(r"\"((?:[^\"]|\"\")+)\"|`([^`]+)`|\[([^\]]+)\]")
_WORD = re.compile(r"\S+")
# Only these statements run. A schema text may also contain INSERT or ATTACH, which must not run here.
_DECLARES = re.compile(
    rf"{GAP}*CREATE{GAP}+(?:(?:OR{GAP}+REPLACE|GLOBAL|LOCAL|TEMP|TEMPORARY|UNLOGGED|EXTERNAL){GAP}+)*"
    rf"(TABLE|VIEW|(?:UNIQUE{GAP}+)?INDEX)\b",
    re.IGNORECASE,
)
# SQLite's internal tables, which occur in the dump of a schema with AUTOINCREMENT or ANALYZE.
_INTERNAL = re.compile(r"CREATE\s+TABLE\s+(IF\s+NOT\s+EXISTS\s+)?[\"'`\[]?sqlite_", re.IGNORECASE)
# In these dialects 'rome' = 'Rome' unless a column has another collation.
CASELESS_DIALECTS = ("mysql", "tsql", "doris", "starrocks")
_OTHER_DIALECTS = ("mysql", "postgres", "tsql")


@lru_cache(maxsize=256)
def schema_in_sqlite(text: str, dialect: str) -> Schema:
    """Return the schema as SQLite builds it, with each table after the tables that it refers to if possible.

    The tables contain only stored columns, not generated ones. SQLite itself reads the text, so the constraints are
    those that SQLite enforces. Temporary tables are built as ordinary ones.

    Raises:
        JudgingError: SQLite cannot build a statement, or the text declares no table.
    """
    with empty_database() as connection:
        ddl = [
            line
            for statement in map(_plain, split_statements(text))
            if statement and not _INTERNAL.match(statement)
            for line in _declare(connection, statement, dialect)
        ]
        built = declared_schema(connection, ";\n".join(ddl), tuple(ddl))
    if not built.tables:
        raise JudgingError(f"the schema declares no table, so add its CREATE TABLE statements: {text[:80]!r}")
    stored = {name: replace(table, columns=table.stored) for name, table in built.tables.items()}
    return replace(built, tables=parents_first(stored))


def _plain(statement: str) -> str:
    """Return a statement that declares something without comments and modifiers at its start, or "" for any other."""
    found = _DECLARES.match(statement)
    return f"CREATE {found[1]}{statement[found.end() :]}" if found else ""


def _declare(connection: sqlite3.Connection, statement: str, dialect: str) -> list[str]:
    """Run the first rewriting of a statement that SQLite accepts, and return the statements that ran.

    The result is empty for an index or view that SQLite refuses.
    """
    error: sqlite3.Error | None = None
    for text in _rewritings(statement, dialect):
        try:
            connection.execute(text)
        except sqlite3.Error as refused:
            if re.match(r"table .* already exists", str(refused)):
                return _more_columns(connection, text)
            error = error or refused
        else:
            return [text]
    if not re.match(r"CREATE\s+TABLE", statement, re.IGNORECASE):
        return []
    raise JudgingError(f"the schema cannot be built in SQLite ({error}): {statement[:80]!r}") from error


def _more_columns(connection: sqlite3.Connection, statement: str) -> list[str]:
    """Add the columns from another CREATE TABLE of the same table.

    sql-create-context declares a table twice if a query names it twice, each time with different columns.
    """
    with empty_database() as other:
        other.execute(statement)
        name = other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchone()[0]
        wanted = other.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
    present = {row[1].lower() for row in connection.execute(f"PRAGMA table_info({quoted(name)})")}
    lines = [
        f"ALTER TABLE {quoted(name)} ADD COLUMN {quoted(row[1])} {row[2]}"
        for row in wanted
        if row[1].lower() not in present
    ]
    for line in lines:
        connection.execute(line)
    return lines


def _rewritings(statement: str, dialect: str) -> Iterator[str]:
    """Yield the statement itself, then sqlglot's translations, then bare columns with every name quoted.

    The statement usually comes first because sqlglot turns BOOLEAN into INTEGER. If text columns need a collation, the
    translations come first.
    """
    if dialect not in CASELESS_DIALECTS:
        yield statement
    import sqlglot
    from sqlglot.errors import SqlglotError

    for read in dict.fromkeys((dialect, *_OTHER_DIALECTS)):
        with suppress(SqlglotError, ValueError, RecursionError):
            tree = sqlglot.parse_one(statement, read=read)
            if read in CASELESS_DIALECTS and read == dialect:
                _ignore_case(tree)
            yield tree.sql(dialect="sqlite")
    if dialect in CASELESS_DIALECTS:
        yield statement
    yield from _bare_tables(statement)


def _bare_tables(statement: str) -> Iterator[str]:
    """Yield a CREATE TABLE with names and types only, first with the lengths of types and then without them."""
    found = _CREATE_TABLE.match(statement)
    if found is None:
        return
    columns: dict[str, str] = {}
    for part in _split(found[2]):
        if not _CONSTRAINT.match(part) and (split := _name_and_rest(part)):
            declared = re.match(r"[\w ]*(\([\d, ]+\))?", split[1])
            columns.setdefault(split[0].lower(), f"{quoted(split[0])} {declared[0] if declared else ''}")
    name = _name_and_rest(found[1])
    for listed in (columns.values(), [re.sub(r"(\" \w*).*", r"\1", column) for column in columns.values()]):
        yield f"CREATE TABLE {quoted(name[0] if name else found[1])} ({', '.join(listed)})"


def _ignore_case(tree: Expr) -> None:
    """Make text columns compare as in a dialect that ignores case."""
    from sqlglot import expressions as exp

    for column in tree.find_all(exp.ColumnDef):
        if isinstance(column.kind, exp.DataType) and column.kind.this in exp.DataType.TEXT_TYPES:
            collation = exp.CollateColumnConstraint(this=exp.var("NOCASE"))
            column.append("constraints", exp.ColumnConstraint(kind=collation))


def _split(body: str) -> Iterator[str]:
    """Yield the parts between commas, ignoring commas in parentheses and quotes."""
    depth, start, quote = 0, 0, ""
    for i, sign in enumerate(body):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'`":
            quote = sign
        else:
            depth += (sign == "(") - (sign == ")")
            if sign == "," and depth == 0:
                yield body[start:i].strip()
                start = i + 1
    yield body[start:].strip()


def _name_and_rest(part: str) -> tuple[str, str] | None:
    if found := _QUOTED.match(part):
        return next(group for group in found.groups() if group), part[found.end() :].strip()
    found = _WORD.match(part)
    return (found[0], part[found.end() :].strip()) if found else None
