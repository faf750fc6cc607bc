"""Checks whether the database would accept a query, and whether sqlglot parses it as the database does."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlquarry.judging.equivalence.grouping import aggregates_elsewhere, grouping_refusal, unnamed_derived
from sqlquarry.judging.equivalence.postgresql_refusals import typed_refusal
from sqlquarry.sql.identifiers import quoted
from sqlquarry.sql.memory_database import memory_database
from sqlquarry.sql.parsing import parse, tokens
from sqlquarry.sql.schema import Schema

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

# Queries in WITH that refer to each other and unions in joins grow exponentially when a database expands them.
_MOST_EXPANDED = 2_000
_EXPANDING = re.compile(r"\b(?:with|union|intersect|except)\b", re.IGNORECASE)
_DOUBLE_EQUALS = {"sqlite", "duckdb", "spark", "databricks", "hive"}
_SURE = ("no such column", "no such table", "ambiguous column name")
# Words that sqlglot adds, drops or respells in every dialect without a change of meaning.
_HARMLESS = {"AS", "ASC", "INNER", "OUTER", "NULLS", "FIRST", "LAST", "(", ")", ";", "<>", "!=", "ALL"}
_HARMLESS_IN = {
    # Types with the same affinity, and functions that have two names in SQLite.
    "sqlite": {
        *("INT", "INTEGER", "BIGINT", "SMALLINT", "TINYINT", "REAL", "FLOAT", "DOUBLE", "TEXT", "VARCHAR", "CHAR"),
        *("NUMERIC", "DECIMAL", "SUBSTR", "SUBSTRING", "IFNULL", "COALESCE", "==", "=", "ISNULL", "IS", "NULL"),
        *(",", "OFFSET"),  # LIMIT 1, 2
    },
    "postgres": {"INT", "INTEGER", "INT4", "::", "CAST", "SUBSTR", "SUBSTRING", "FOR", ",", "FROM"},
    "duckdb": {"INT", "INTEGER", "::", "CAST", "TEXT", "VARCHAR", "STRING"},
    "mysql": {"INT", "INTEGER", "SIGNED", "UNSIGNED", "DUAL", "FROM", "SUBSTR", "SUBSTRING", "IFNULL", "COALESCE", ","},
}  # fmt: skip
# Function calls and words before a parenthesis that sqlglot parses as every database does.
_PLAIN = re.compile(
    r"(?:count|sum|avg|min|max|abs|lower|upper|length|round|in|exists|and|or|not|on|where|from|select|as|by|union|all|"
    r"except|intersect|join|having|distinct|when|then|else|case|between|using|like|is|limit|offset|over)",
    re.IGNORECASE,
)
_CALL = re.compile(r"(\w+)\s*\(")
_OTHER_READING = re.compile(r"->|'\s+'|::")


@lru_cache(maxsize=4096)
def refusal(sql: str, schema: Schema, dialect: str, invented: tuple[str, ...] = ()) -> str | None:  # noqa: PLR0911 - by dialect
    """Explain why the database may not accept a query, or None if the check finds nothing.

    Args:
        sql: one query.
        schema: the tables.
        dialect: the SQL dialect, by sqlglot's name.
        invented: CREATE TABLE statements that SQLite uses if the schema has no tables.
    """
    tree = parse(sql, dialect)
    if tree is None:
        return "it cannot be parsed as one statement"
    if _EXPANDING.search(sql) and _expanded(tree) > _MOST_EXPANDED:
        return f"its WITH clauses and set operations expand to more than {_MOST_EXPANDED:,} queries"
    if dialect == "sqlite":
        if "limit" in sql.lower() and not _has_whole_limits(tree):
            return "LIMIT or OFFSET is not a whole number, so the query fails when it runs"
        database = memory_database(schema.ddl or _statements(schema) or invented)
        return database.refusal(sql)
    if dialect == "duckdb":
        from sqlquarry.judging.equivalence.duckdb_refusals import duckdb_refusal

        return duckdb_refusal(sql, tree, schema)
    if dialect == "postgres":
        return typed_refusal(tree, schema)
    return _refused_elsewhere(tree, dialect) if dialect else None


def is_certain(refused: str, schema: Schema) -> bool:
    """Return whether every version of SQLite refuses the query for this reason."""
    return bool(schema.ddl) and refused.startswith(_SURE)


@lru_cache(maxsize=4096)
def misread(sql: str, dialect: str) -> str | None:  # noqa: PLR0911 - one per reason
    """Describe a part of the query that sqlglot may parse differently from the database, or return None."""
    if not dialect:
        return None
    plain = all(_PLAIN.fullmatch(name) for name in _CALL.findall(sql)) and not _OTHER_READING.search(sql)
    if dialect == "sqlite" and plain:  # SQLite itself has checked the rest of the grammar
        return None
    if "==" in sql and dialect not in _DOUBLE_EQUALS:
        return f"==, which {dialect} may not support"
    tree = parse(sql, dialect)
    if tree is None:
        return "text that cannot be parsed as one statement"
    mine, theirs = _words(sql, dialect), _words(tree.sql(dialect=dialect, comments=False), dialect)
    harmless = _HARMLESS | _HARMLESS_IN.get(dialect, set())
    replaced = sorted(word for word in ((mine - theirs) | (theirs - mine)) if word not in harmless)
    if replaced:
        return f"words that sqlglot replaces for {dialect}: {', '.join(replaced)}"
    if dialect != "sqlite" and (unknown := _anonymous(tree)):
        return f"an unknown function: {unknown}"
    return None


def invented_tables(*queries: str) -> tuple[str, ...]:
    """Return CREATE TABLE statements for the tables in SQLite queries, each with all columns that the queries name."""
    from sqlglot import expressions as exp

    trees = [tree for tree in (parse(sql, "sqlite") for sql in queries) if tree is not None]
    tables = {table.name.lower(): table.name for tree in trees for table in tree.find_all(exp.Table) if table.name}
    columns = {column.name.lower(): column.name for tree in trees for column in tree.find_all(exp.Column)}
    columns.pop("*", None)
    columns.pop("", None)
    names = ", ".join(map(quoted, columns.values())) or "_"
    return tuple(
        f"CREATE TABLE {quoted(table)} ({names})" for key, table in tables.items() if not key.startswith("sqlite_")
    )


def _statements(schema: Schema) -> tuple[str, ...]:
    """Return CREATE TABLE statements for a schema whose text SQLite could not run."""
    statements = []
    for name, table in schema.tables.items():
        if table.columns:
            columns = ", ".join(f"{quoted(key)} {column.affinity}" for key, column in table.columns.items())
            statements.append(f"CREATE TABLE {quoted(name)} ({columns})")
    return tuple(statements)


def _words(sql: str, dialect: str) -> Counter[str]:
    found = tokens(sql, dialect) or []
    return Counter(token.text.upper() for token in found if token.kind == "word" and token.text)


def _has_whole_limits(tree: Expr) -> bool:
    from sqlglot import expressions as exp

    values = [part.expression for part in tree.find_all(exp.Limit, exp.Offset)]
    return all((value.this if isinstance(value, exp.Neg) else value).is_int for value in values)


def _refused_elsewhere(tree: Expr, dialect: str) -> str | None:
    """Explain why the database of a dialect without a check of its own may refuse a query."""
    from sqlglot import expressions as exp

    if dialect == "mysql" and any(join.args.get("side") == "FULL" for join in tree.find_all(exp.Join)):
        return "FULL JOIN"
    if dialect == "mysql" and (reason := unnamed_derived(tree)):
        return reason
    left_out = (grouping_refusal(select, aliases=True) for select in tree.find_all(exp.Select))
    return aggregates_elsewhere(tree) or next(filter(None, left_out), None)


def _anonymous(tree: Expr) -> str | None:
    from sqlglot import expressions as exp

    found = tree.find(exp.Anonymous, exp.AnonymousAggFunc)
    return None if found is None else found.name


def _expanded(tree: Expr) -> int:
    """Estimate the number of SELECTs after each WITH name is replaced by its query. Joined queries multiply."""
    from sqlglot import expressions as exp

    sizes: dict[str, int] = {}

    def size(query: Expr) -> int:
        total, joined = 1, 1
        nested: list[Expr] = [query]
        while nested:
            node = nested.pop()
            for child in node.iter_expressions():
                if isinstance(child, exp.Query) and not isinstance(child, exp.Subquery):
                    inner = size(child)
                    # A database may multiply out the queries in FROM. Other queries count once.
                    if isinstance(child.parent, exp.Subquery) and isinstance(child.parent.parent, exp.From | exp.Join):
                        joined = min(joined * (1 + inner), 10 * _MOST_EXPANDED)
                    else:
                        total += inner
                elif isinstance(child, exp.Table):
                    joined = min(joined * (1 + sizes.get(child.name.lower(), 0)), 10 * _MOST_EXPANDED)
                elif not isinstance(child, exp.With):
                    nested.append(child)
        return min(total + joined, 10 * _MOST_EXPANDED)

    for cte in tree.find_all(exp.CTE, bfs=False):
        sizes[cte.alias.lower()] = size(cte.this)
    return size(tree)
