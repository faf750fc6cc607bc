"""DDL as SQLite understands it: the tables that a record's schema text declares, parents first.

SQLite itself reads the text, so its constraints are those that SQLite enforces; only what it refuses is rewritten.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, cast

from sqlquarry.errors import JudgingError

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

Kind = Literal["integer", "real", "text", "date", "time", "datetime", "boolean"]

_CREATE_TABLE = re.compile(
    r"\s*CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?([^\s(]+|\"[^\"]+\")\s*\((.*)\)[^)]*$", re.IGNORECASE | re.DOTALL
)
_CONSTRAINT = re.compile(r"(PRIMARY|FOREIGN|UNIQUE|CHECK|CONSTRAINT|KEY|INDEX)\b(?=.*\()", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(r"\"((?:[^\"]|\"\")+)\"|`([^`]+)`|\[([^\]]+)\]")
_WORD = re.compile(r"\S+")
# Only these are run: a schema text that also inserts or attaches must not do so here.
_DECLARES = re.compile(r"\s*CREATE\s+(TABLE|VIEW|(UNIQUE\s+)?INDEX)\b", re.IGNORECASE)
_KINDS = (
    ("BOOL|^BIT", "boolean"),
    ("DATETIME|TIMESTAMP", "datetime"),
    ("DATE", "date"),
    ("^TIME", "time"),
    ("INT|^YEAR|SERIAL", "integer"),
    ("CHAR|CLOB|TEXT", "text"),
    ("REAL|FLOA|DOUB|DEC|NUM|MONEY", "real"),
)
# The tables that SQLite keeps for itself, which a dump of a schema with AUTOINCREMENT or ANALYZE lists.
_INTERNAL = re.compile(r"\s*CREATE\s+TABLE\s+(IF\s+NOT\s+EXISTS\s+)?[\"'`\[]?sqlite_", re.IGNORECASE)
# Where 'rome' = 'Rome', unless a column says otherwise.
CASELESS_DIALECTS = ("mysql", "tsql", "doris", "starrocks")
_OTHER_DIALECTS = ("mysql", "postgres", "tsql")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: what its declared type promises, and whether NULL and repeated values are allowed."""

    name: str
    kind: Kind
    required: bool
    unique: bool
    length: int | None  # characters, of VARCHAR(n)
    in_key: bool = False  # part of the primary key


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Columns whose values must occur in `targets` of `table` (lower case), or be NULL."""

    columns: tuple[str, ...]
    table: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One table with its columns in order."""

    name: str
    columns: tuple[Column, ...]
    foreign_keys: tuple[ForeignKey, ...]

    def column(self, name: str) -> Column | None:
        """The column of that name in any case, or None."""
        return next((column for column in self.columns if column.name.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """`ddl` runs in SQLite; `tables` by lower-case name, each after those that its foreign keys need where possible."""

    ddl: tuple[str, ...]
    tables: Mapping[str, Table]

    @property
    def views(self) -> tuple[str, ...]:
        """The statements of `ddl` that create views."""
        return tuple(statement for statement in self.ddl if re.match(r"CREATE\s+VIEW", statement, re.IGNORECASE))

    @property
    def has_collations(self) -> bool:
        """Whether comparing text may depend on more than the column's type."""
        return any("collate" in statement.lower() for statement in self.ddl)


@lru_cache(maxsize=256)
def read_schema(text: str, dialect: str) -> Schema:
    """Build the schema in an empty in-memory SQLite database and read back what it declares.

    Raises:
        JudgingError: a statement cannot be built, or there is no table.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        ddl = [
            line
            for statement in _statements(text)
            if _DECLARES.match(statement) and not _INTERNAL.match(statement)
            for line in _declare(connection, statement, dialect)
        ]
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = {name.lower(): _table(connection, name) for name in names if not name.startswith("sqlite_")}
    if not tables:
        raise JudgingError(f"the schema declares no table: {text[:80]!r}")
    return Schema(tuple(ddl), parents_first(tables))


def _statements(text: str) -> Iterator[str]:
    statement = ""
    for part in text.split(";"):
        statement += part
        if statement.strip() and sqlite3.complete_statement(statement + ";"):
            yield statement.strip()
            statement = ""
        elif statement.strip():  # the semicolon stood in a string or comment
            statement += ";"
    if statement.strip(" ;\n"):
        yield statement.strip()


def _declare(connection: sqlite3.Connection, statement: str, dialect: str) -> list[str]:
    """Run the statement, or the first rewriting of it that SQLite accepts; nothing for an index or view it refuses."""
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
    """sql-create-context declares a table twice where a query names it twice, each time with other columns."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as other:
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
    """The text itself, then what sqlglot makes of it, then bare columns with every name quoted.

    The text comes first since sqlglot makes INTEGER of BOOLEAN; last, if text columns need a collation.
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
    if found := _CREATE_TABLE.match(statement):
        columns: dict[str, str] = {}
        for part in _split(found[2]):
            if not _CONSTRAINT.match(part) and (split := _name_and_rest(part)):
                declared = re.match(r"[\w ]*(\([\d, ]+\))?", split[1])
                columns.setdefault(split[0].lower(), f"{quoted(split[0])} {declared[0] if declared else ''}")
        name = _name_and_rest(found[1])
        for listed in (columns.values(), [re.sub(r"(\" \w*).*", r"\1", column) for column in columns.values()]):
            yield f"CREATE TABLE {quoted(name[0] if name else found[1])} ({', '.join(listed)})"


def _ignore_case(tree: Expr) -> None:
    """Let text columns compare as in a dialect that ignores case."""
    from sqlglot import expressions as exp

    for column in tree.find_all(exp.ColumnDef):
        if isinstance(column.kind, exp.DataType) and column.kind.this in exp.DataType.TEXT_TYPES:
            collation = exp.CollateColumnConstraint(this=exp.var("NOCASE"))
            column.append("constraints", exp.ColumnConstraint(kind=collation))


def _split(body: str) -> Iterator[str]:
    """The parts between commas that stand outside brackets and quotes."""
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


def quoted(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _table(connection: sqlite3.Connection, name: str) -> Table:
    info = connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
    keys = [column for _, column, _, _, _, place in info if place]
    unique = {keys[0]} if len(keys) == 1 else set()
    for _, index, is_unique, _, partial in connection.execute(f"PRAGMA index_list({quoted(name)})").fetchall():
        indexed = [row[2] for row in connection.execute(f"PRAGMA index_info({quoted(index)})")]
        if is_unique and not partial and len(indexed) == 1:
            unique.add(indexed[0])
    # A primary key is never NULL in SQL; that SQLite lets it be is a bug it keeps (https://sqlite.org/quirks.html).
    columns = tuple(
        Column(column, kind_of(declared), bool(required or place), column in unique, _length(declared), bool(place))
        for _, column, declared, required, _, place in info
    )
    links: dict[int, list[tuple[str, str, str | None]]] = {}
    for number, _, parent, child, target, *_ in connection.execute(f"PRAGMA foreign_key_list({quoted(name)})"):
        links.setdefault(number, []).append((parent.lower(), child, target))
    return Table(name, columns, tuple(_foreign_key(connection, pairs) for pairs in links.values()))


def _foreign_key(connection: sqlite3.Connection, pairs: list[tuple[str, str, str | None]]) -> ForeignKey:
    parent = pairs[0][0]
    keys = [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(parent)})") if row[5]]
    # Without named targets, a foreign key means the parent's primary key.
    targets = tuple(target or (keys[i] if i < len(keys) else "") for i, (_, _, target) in enumerate(pairs))
    return ForeignKey(tuple(child for _, child, _ in pairs), parent, targets)


def kind_of(declared: str) -> Kind:
    """What values a declared type stands for; SQLite's affinity rules, with dates and booleans told apart."""
    kind = next((kind for pattern, kind in _KINDS if re.search(pattern, declared, re.IGNORECASE)), "text")
    return cast("Kind", kind)


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
