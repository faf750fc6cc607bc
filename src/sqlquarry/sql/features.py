"""Describes a gold query and its schema by the features that a report uses as slices."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sqlquarry.records import Record
from sqlquarry.sql.ddl import read_schema
from sqlquarry.sql.hardness import hardness
from sqlquarry.sql.parsing import parse

if TYPE_CHECKING:
    from sqlglot.expressions import Expr


def features(record: Record) -> dict[str, str]:
    """Return the bucket of each slice for a record, by slice name.

    The result is {} if the record has no gold SQL or the gold SQL cannot be parsed.
    """
    found = None if record.sql is None else query_features(record.sql, record.dialect)
    if found is None:
        return {}
    return {**found, "schema size": _schema_size(record.schema, record.dialect)}


@lru_cache(maxsize=32_768)
def query_features(sql: str, dialect: str) -> dict[str, str] | None:
    """Return the slices that depend only on the query, or None if it cannot be parsed as a query."""
    from sqlglot import expressions as exp

    tree = parse(sql, dialect)
    if not isinstance(tree, exp.Query):
        return None
    tables: set[str] = set()
    ctes: set[str] = set()
    operations: set[str] = set()
    joins = aggregates = groups = havings = levels = 0
    for node in tree.walk():  # only once, because walking takes as long as parsing
        if isinstance(node, exp.Column | exp.Identifier | exp.Literal):
            continue
        if isinstance(node, exp.Table):
            tables.add(node.name.lower())
        elif isinstance(node, exp.CTE):
            ctes.add(node.alias.lower())
        elif isinstance(node, exp.SetOperation):
            operations.add(node.key)
        elif isinstance(node, exp.Select):
            levels = max(levels, _nesting(node))
        joins += isinstance(node, exp.Join)
        aggregates += isinstance(node, exp.AggFunc)
        groups += isinstance(node, exp.Group)
        havings += isinstance(node, exp.Having)
    return {
        "tables": _up_to(len(tables - ctes), 4),
        "joins": _up_to(joins, 3),
        "aggregates": "yes" if aggregates else "none",
        "grouping": ("HAVING" if havings else "yes") if groups else "none",
        "nesting": {0: "none", 1: "1 level"}.get(levels, "2+ levels"),
        "set operations": ", ".join(sorted(operations)) or "none",
        "hardness": hardness(tree),
    }


def _up_to(count: int, most: int) -> str:
    return str(count) if count < most else f"{most}+"


def _nesting(select: Expr) -> int:
    """Return the nesting depth of a query. The sides of a set operation are on the same level."""
    from sqlglot import expressions as exp

    levels, node = 0, select.parent
    while node is not None:
        levels += isinstance(node, exp.Subquery | exp.CTE | exp.Exists)
        node = node.parent
    return levels


@lru_cache(maxsize=512)
def _schema_size(schema: str, dialect: str) -> str:
    tables = len(read_schema(schema, dialect).tables)
    for most, name in ((0, "unknown"), (1, "1 table"), (3, "2-3 tables"), (6, "4-6 tables"), (10, "7-10 tables")):
        if tables <= most:
            return name
    return "11+ tables"
