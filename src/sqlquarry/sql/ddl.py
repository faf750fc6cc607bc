"""Reads the schema that CREATE TABLE text declares, by the rules of its own dialect."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sqlquarry.sql.identifiers import fold
from sqlquarry.sql.parsing import statements
from sqlquarry.sql.schema import Column, Schema, Table, affinity
from sqlquarry.sql.sqlite_ddl import read_by_sqlite

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_WHOLE = {"INT", "BIGINT", "SMALLINT", "TINYINT", "MEDIUMINT"}
_ENFORCED_KEYS = {"mysql", "postgres", "duckdb"}  # a primary key's columns are unique and never NULL


@lru_cache(maxsize=512)
def read_schema(text: str, dialect: str) -> Schema:
    """Read the schema that CREATE TABLE text declares. It has no tables if the text cannot be read.

    For SQLite text, SQLite's own parser is tried first, because SQLite has special rules for types and keys.
    """
    found = read_by_sqlite(text) if dialect == "sqlite" else None
    return found or _read_by_sqlglot(text, dialect)


def _read_by_sqlglot(text: str, dialect: str) -> Schema:
    from sqlglot import expressions as exp

    tables: dict[str, Table] = {}
    complete = True
    for statement in statements(text, dialect) or ():
        if isinstance(statement, exp.Create) and isinstance(statement.this, exp.Schema):
            name = fold(statement.this.this.this, dialect)
            tables[name] = _table(name, statement.this, dialect, tables.get(name))
        else:
            is_index = isinstance(statement, exp.Create) and statement.args.get("kind") == "INDEX"
            complete = complete and (is_index or isinstance(statement, exp.Insert))
    return Schema(tables, text, complete=complete)


def _table(name: str, statement: Expr, dialect: str, earlier: Table | None) -> Table:
    """Return the table that a CREATE TABLE declares, added to an earlier declaration of the same table."""
    from sqlglot import expressions as exp

    key = {fold(part, dialect) for part in _primary_key(statement)} if dialect in _ENFORCED_KEYS else set()
    columns = dict(earlier.columns) if earlier else {}
    for part in statement.expressions:
        if isinstance(part, exp.ColumnDef):
            folded = fold(part.this, dialect)
            columns[folded] = _column(folded, part, dialect, key)
    keys = (frozenset(key),) if key and key <= set(columns) else earlier.keys if earlier else ()
    return Table(name, columns, keys)


def _primary_key(statement: Expr) -> list[Expr]:
    """Return the identifiers of the primary key's columns."""
    from sqlglot import expressions as exp

    found: list[Expr] = []
    for part in statement.expressions:
        rules = part.args.get("constraints") or () if isinstance(part, exp.ColumnDef) else ()
        found += [part.this for rule in rules if isinstance(rule.kind, exp.PrimaryKeyColumnConstraint)]
        key = part if isinstance(part, exp.PrimaryKey) else part.find(exp.PrimaryKey)
        if key is not None:
            found += [name for name in (_identifier(item) for item in key.expressions) if name is not None]
    return found


def _identifier(item: Expr) -> Expr | None:
    from sqlglot import expressions as exp

    return item if isinstance(item, exp.Identifier) else item.find(exp.Identifier)


def _column(name: str, definition: Expr, dialect: str, key: set[str]) -> Column:
    from sqlglot import expressions as exp

    kind = definition.args.get("kind")
    rules = [rule.kind for rule in definition.args.get("constraints") or ()]
    required = any(isinstance(rule, exp.NotNullColumnConstraint) and not rule.args.get("allow_null") for rule in rules)
    generated = any(
        isinstance(rule, exp.ComputedColumnConstraint | exp.GeneratedAsRowColumnConstraint)
        or (isinstance(rule, exp.GeneratedAsIdentityColumnConstraint) and rule.args.get("expression"))
        for rule in rules
    )
    word = kind.this.name if isinstance(kind, exp.DataType) and hasattr(kind.this, "name") else str(kind)
    is_whole = dialect == "sqlite" or word in _WHOLE or "INT" not in word  # not INTERVAL or POINT
    return Column(
        name,
        kind.sql(dialect=dialect) if isinstance(kind, exp.DataType) else "",
        affinity(word) if is_whole else "BLOB",
        not_null=required or name in key,
        unique=key == {name},
        in_key=name in key,
        generated=generated,
    )
