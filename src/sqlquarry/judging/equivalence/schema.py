"""What CREATE TABLE text says: columns, their SQLite affinity, whether they can be NULL, keys and foreign keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.judging.parsing import statements

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_CREATING = {
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_INSERT,  # into sqlite_master, whose change is part of CREATE TABLE
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_REINDEX,
}
_CHECK_STEPS = 100_000  # SQLite instructions that one statement of the schema may take
# Statements of a dump that change no table's columns.
_SKIPPED = ("PRAGMA", "INSERT", "BEGIN", "COMMIT", "DROP", "ANALYZE", "SET", "USE")
# Quoted names too: SQLite always, MySQL for columns (its tables' case depends on the server's file system).
_WHOLE = {"INT", "BIGINT", "SMALLINT", "TINYINT", "MEDIUMINT"}
_ANY_CASE = {"sqlite", "mysql"}
_ENFORCED_KEYS = {"mysql", "postgres", "duckdb"}  # a primary key's columns are unique and never NULL


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        affinity: INTEGER, TEXT, BLOB, REAL or NUMERIC (https://sqlite.org/datatype3.html, section 3.1).
        not_null: whether no row can hold NULL.
        declared: its type as the schema writes it; "" if the schema does not say.
        generated: whether it is computed from other columns.
    """

    affinity: str
    not_null: bool
    declared: str = ""
    generated: bool = False


class ForeignKey(NamedTuple):
    """Columns whose values occur in columns of another table, folded names."""

    columns: tuple[str, ...]
    table: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)  # hashed by identity: `read_schema` keeps one object per text
class Schema:
    """The tables of one record by folded name, each with its columns by folded name.

    Args:
        tables: empty if the text cannot be read.
        text: the CREATE TABLE statements.
        complete: whether the database holds nothing else that a query could name, such as a view.
        ddl: the statements that SQLite has read; empty if it cannot read the text.
        keys: of each table, the sets of columns that are together unique; rows with a NULL among them may repeat.
        foreign_keys: of each table.
    """

    tables: Mapping[str, Mapping[str, Column]]
    text: str
    complete: bool = True
    ddl: tuple[str, ...] = ()
    keys: Mapping[str, Sequence[frozenset[str]]] = field(default_factory=dict)
    foreign_keys: Mapping[str, Sequence[ForeignKey]] = field(default_factory=dict)

    def says(self, word: str) -> bool:
        """Whether a word such as COLLATE occurs anywhere in the text."""
        return word in self.text.upper()


@lru_cache(maxsize=512)
def read_schema(text: str, dialect: str) -> Schema:
    """Read the schema that CREATE TABLE text defines; it has no tables if the text cannot be read.

    SQLite's own parser reads it where it can, because its types and keys have rules of their own.
    """
    found = _by_sqlite(text) if dialect == "sqlite" else None
    return found or _by_sqlglot(text, dialect)


def _by_sqlite(text: str) -> Schema | None:
    def allow(action: int, *_: str | None) -> int:
        return sqlite3.SQLITE_OK if action in _CREATING else sqlite3.SQLITE_DENY

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.set_authorizer(allow)
        connection.set_progress_handler(lambda: True, _CHECK_STEPS)  # CREATE TABLE … AS SELECT runs its query
        try:
            ddl = tuple(_creating(text))
            for statement in ddl:
                connection.execute(statement)
            connection.set_authorizer(None)
            kinds = connection.execute(
                "SELECT name, type FROM sqlite_master WHERE name NOT LIKE 'sqlite^_%' ESCAPE '^'"
            )
            names = dict(kinds.fetchall())
            tables = {
                name.lower(): _sqlite_columns(connection, name) for name, kind in names.items() if kind == "table"
            }
            return Schema(
                tables,
                text,
                complete="view" not in names.values(),
                ddl=ddl,
                keys={name: _sqlite_keys(connection, name) for name in tables},
                foreign_keys={name: _sqlite_foreign_keys(connection, name) for name in tables},
            )
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            return None


def _creating(text: str) -> Iterator[str]:
    """The statements that define something; SQLite says where each one ends."""
    statement = ""
    for piece in text.split(";"):
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip("; \t\r\n") and not _is_skipped(statement):
                yield statement
            statement = ""
    if statement.strip("; \t\r\n"):
        yield statement  # an unclosed quote or comment


def _is_skipped(statement: str) -> bool:
    start = statement.lstrip()
    while start.startswith("--"):
        start = start.partition("\n")[2].lstrip()
    upper = start.upper()
    # AUTOINCREMENT makes sqlite_sequence by itself; a dump may name it all the same.
    return upper.startswith((*_SKIPPED, "CREATE TABLE SQLITE_", 'CREATE TABLE "SQLITE_'))


def _sqlite_columns(connection: sqlite3.Connection, table: str) -> dict[str, Column]:
    rows = connection.execute('SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo(?)', [table]).fetchall()
    single_key = sum(row[3] > 0 for row in rows) == 1
    # INTEGER PRIMARY KEY is the row's own number and never NULL; INTEGER PRIMARY KEY DESC is not, and has an index:
    # https://sqlite.org/lang_createtable.html#rowids_and_the_integer_primary_key
    numbered = single_key and not any(origin == "pk" for *_, origin in _indexes(connection, table))
    return {
        name.lower(): Column(
            affinity(kind), bool(required) or (numbered and key > 0 and kind.upper() == "INTEGER"), kind, hidden > 1
        )
        for name, kind, required, key, hidden in rows
    }


def _indexes(connection: sqlite3.Connection, table: str) -> list[tuple[str, int, int, str]]:
    query = 'SELECT name, "unique", partial, origin FROM pragma_index_list(?)'
    return connection.execute(query, [table]).fetchall()


def _sqlite_keys(connection: sqlite3.Connection, table: str) -> tuple[frozenset[str], ...]:
    found = set()
    for index, unique, partial, _ in _indexes(connection, table):
        names = [name for (name,) in connection.execute("SELECT name FROM pragma_index_info(?)", [index])]
        if unique and not partial and None not in names:  # an expression has no name
            found.add(frozenset(name.lower() for name in names))
    key = [name for name, place in connection.execute("SELECT name, pk FROM pragma_table_info(?)", [table]) if place]
    if key:
        found.add(frozenset(name.lower() for name in key))
    return tuple(sorted(found, key=sorted))


def _sqlite_foreign_keys(connection: sqlite3.Connection, table: str) -> tuple[ForeignKey, ...]:
    query = 'SELECT id, "table", "from", "to" FROM pragma_foreign_key_list(?) ORDER BY id, seq'
    found: dict[int, list[tuple[str, str, str | None]]] = {}
    for number, parent, column, target in connection.execute(query, [table]):
        found.setdefault(number, []).append((parent, column, target))
    keys = []
    for parts in found.values():
        parent = parts[0][0]
        targets = [target for *_, target in parts if target is not None]
        if not targets:  # REFERENCES without columns means the primary key
            query = "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk"
            targets = [name for (name,) in connection.execute(query, [parent])]
        columns = tuple(column.lower() for _, column, _ in parts)
        if len(targets) == len(columns):
            keys.append(ForeignKey(columns, parent.lower(), tuple(target.lower() for target in targets)))
    return tuple(keys)


def _by_sqlglot(text: str, dialect: str) -> Schema:
    from sqlglot import expressions as exp

    tables: dict[str, dict[str, Column]] = {}
    keys: dict[str, list[frozenset[str]]] = {}
    complete = True
    for statement in statements(text, dialect) or ():
        if not isinstance(statement, exp.Create) or not isinstance(statement.this, exp.Schema):
            harmless = isinstance(statement, exp.Insert) or (
                isinstance(statement, exp.Create) and statement.args.get("kind") == "INDEX"
            )
            complete = complete and harmless
            continue
        name = fold(statement.this.this.this, dialect)
        columns = tables.setdefault(name, {})
        key = [fold(part, dialect) for part in _primary_key(statement.this)] if dialect in _ENFORCED_KEYS else []
        for column in statement.this.expressions:
            if isinstance(column, exp.ColumnDef):
                folded = fold(column.this, dialect)
                columns[folded] = _column(column, dialect, is_key=folded in key)
        if key and set(key) <= set(columns):
            keys[name] = [frozenset(key)]
    return Schema(tables, text, complete=complete, keys=keys)


def _primary_key(schema: Expr) -> list[Expr]:
    from sqlglot import expressions as exp

    found: list[Expr] = []
    for part in schema.expressions:
        rules = part.args.get("constraints") or () if isinstance(part, exp.ColumnDef) else ()
        found += [part.this for rule in rules if isinstance(rule.kind, exp.PrimaryKeyColumnConstraint)]
        key = part if isinstance(part, exp.PrimaryKey) else part.find(exp.PrimaryKey)
        if key is not None:
            found += [name for name in (_identifier(item) for item in key.expressions) if name is not None]
    return found


def _identifier(item: Expr) -> Expr | None:
    from sqlglot import expressions as exp

    return item if isinstance(item, exp.Identifier) else item.find(exp.Identifier)


def _column(column: Expr, dialect: str, *, is_key: bool) -> Column:
    from sqlglot import expressions as exp

    kind = column.args.get("kind")
    rules = [rule.kind for rule in column.args.get("constraints") or ()]
    required = any(isinstance(rule, exp.NotNullColumnConstraint) and not rule.args.get("allow_null") for rule in rules)
    generated = any(
        isinstance(rule, exp.ComputedColumnConstraint | exp.GeneratedAsRowColumnConstraint)
        or (isinstance(rule, exp.GeneratedAsIdentityColumnConstraint) and rule.args.get("expression"))
        for rule in rules
    )
    name = kind.this.name if isinstance(kind, exp.DataType) and hasattr(kind.this, "name") else str(kind)
    whole = dialect == "sqlite" or name in _WHOLE or "INT" not in name  # not INTERVAL or POINT
    declared = kind.sql(dialect=dialect) if isinstance(kind, exp.DataType) else ""
    return Column(affinity(name) if whole else "BLOB", required or is_key, declared, generated)


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
