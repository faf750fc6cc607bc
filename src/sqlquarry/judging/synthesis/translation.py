"""Translates queries of other dialects to SQLite if the translation means the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from sqlquarry.errors import JudgingError
from sqlquarry.judging.synthesis.portability import foreign_construct
from sqlquarry.sql.parsing import parse
from sqlquarry.sql.portable_ddl import CASELESS_DIALECTS
from sqlquarry.sql.resolver import ColumnResolver
from sqlquarry.sql.schema import Schema
from sqlquarry.sql.syntax import literal_value

if TYPE_CHECKING:
    from sqlglot.dialects import SQLite
    from sqlglot.expressions import Expr

_ROUNDING_DIALECTS = ("postgres", "mysql", "duckdb")  # CAST(2.5 AS INTEGER) is 3 there, and 2 in SQLite
_CONCAT_SKIPS_NULL = ("postgres", "duckdb", "tsql")
_PARTS = {"YEAR": "%Y", "MONTH": "%m", "DAY": "%d", "HOUR": "%H", "MINUTE": "%M"}


def in_sqlite(sql: str, dialect: str, schema: Schema, golds: Sequence[str]) -> str:
    """Translate a gold or a prediction to SQLite. It is returned unchanged if it cannot be parsed in its own dialect.

    Quoted names are written in backticks, because SQLite reads "abc" as text if there is no such column.

    Raises:
        JudgingError: sqlglot does not support the dialect, or the query uses something that the dialect refuses or that
            SQLite does not support or interprets differently. The message describes it.
    """
    if dialect == "sqlite":
        return sql
    import sqlglot
    from sqlglot.errors import ErrorLevel, UnsupportedError

    if sqlglot.Dialect.get(dialect) is None:
        raise JudgingError(
            f"sqlglot does not support the dialect {dialect!r}, so no databases can be generated. Use another dialect."
        )
    parsed = parse(sql, dialect)
    if parsed is None:
        return sql
    if construct := foreign_construct(sql, parsed, dialect, schema, golds):
        raise untranslatable(sql, dialect, construct)
    tree = _rewritten(parsed.copy(), dialect, ColumnResolver(schema))
    try:
        return tree.sql(dialect=_with_backticks(), unsupported_level=ErrorLevel.RAISE)
    except (UnsupportedError, RecursionError) as error:
        raise untranslatable(sql, dialect, str(error).partition("\n")[0] or type(error).__name__) from error


def untranslatable(sql: str, dialect: str, reason: str) -> JudgingError:
    """Return the error for a query that may be right in its own dialect but cannot be judged in SQLite."""
    return JudgingError(
        f"the {dialect} query {sql[:80]!r} cannot be judged on synthesized databases, which run SQLite: {reason}"
    )


@cache
def _with_backticks() -> SQLite:
    """Return a dialect of SQLite that writes quoted names in backticks."""
    from sqlglot.dialects import SQLite

    dialect = SQLite()
    dialect.IDENTIFIER_START = dialect.IDENTIFIER_END = "`"
    return dialect


def _rewritten(tree: Expr, dialect: str, resolver: ColumnResolver) -> Expr:
    """Rewrite the nodes that sqlglot does not translate to SQLite."""
    for node in list(tree.walk(bfs=False))[::-1]:  # inner ones first
        new = _other_node(node, dialect, resolver)
        if new is not None:
            if node is tree:
                return new
            node.replace(new)
    return tree


def _other_node(  # noqa: PLR0911 - one per kind
    node: Expr, dialect: str, resolver: ColumnResolver
) -> Expr | None:
    """Return the replacement of a node, or None to keep the node."""
    from sqlglot import expressions as exp

    if isinstance(node, exp.Like):
        return _as_glob(node) if dialect not in CASELESS_DIALECTS else None
    if isinstance(node, exp.Cast):
        is_rounded = dialect in _ROUNDING_DIALECTS and node.to.this in exp.DataType.INTEGER_TYPES
        changes = is_rounded and not _is_whole(node.this, resolver)
        return exp.cast(exp.Round(this=node.this.copy()), "INT") if changes else None
    if isinstance(node, exp.Left):
        return exp.Substring(this=node.this.copy(), start=exp.Literal.number(1), length=node.expression.copy())
    if isinstance(node, exp.Right):
        return exp.Substring(this=node.this.copy(), start=exp.Neg(this=node.expression.copy()))
    if isinstance(node, exp.Concat):
        skips_null = dialect in _CONCAT_SKIPS_NULL
        return exp.Paren(this=_joined([_or_empty(part) for part in node.expressions])) if skips_null else None
    if isinstance(node, exp.Extract | exp.Year | exp.Month | exp.Day | exp.DayOfMonth):
        return _part_of_date(node)
    return None


def _part_of_date(node: Expr) -> Expr:
    from sqlglot import expressions as exp

    part = node.this.name.upper() if isinstance(node, exp.Extract) else type(node).__name__.upper()
    day = node.expression if isinstance(node, exp.Extract) else node.this
    shown = exp.func("STRFTIME", exp.Literal.string(_PARTS[part.removesuffix("OFMONTH")]), day.copy())
    return exp.cast(shown, "INT")


def _as_glob(node: Expr) -> Expr:
    """Return a case-sensitive LIKE as GLOB, which is case-sensitive in SQLite."""
    from sqlglot import expressions as exp

    signs = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    pattern = "".join(signs.get(sign, sign) for sign in str(literal_value(node.expression)))
    glob = exp.Glob(this=node.this.copy(), expression=exp.Literal.string(pattern))
    return exp.Not(this=glob) if node.args.get("negate") else glob


def _is_whole(node: Expr, resolver: ColumnResolver) -> bool:
    from sqlglot import expressions as exp

    if isinstance(node, exp.Column) and (place := resolver.place(node)):
        return resolver.schema.column(place).kind == "integer"
    return isinstance(node, exp.Count) or isinstance(literal_value(node), int)


def _or_empty(node: Expr) -> Expr:
    from sqlglot import expressions as exp

    return exp.Coalesce(this=node.copy(), expressions=[exp.Literal.string("")])


def _joined(parts: list[Expr]) -> Expr:
    from sqlglot import expressions as exp

    whole = parts[0]
    for part in parts[1:]:
        whole = exp.DPipe(this=whole, expression=part, safe=True)
    return whole
