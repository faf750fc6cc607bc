"""Checks whether DuckDB accepts a query, by preparing it on an empty database in memory."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from sqlquarry.sql.schema import Schema

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from sqlglot.expressions import Expr

# Only these functions may be prepared: DuckDB computes constants such as repeat('x', 1000000000) while it prepares a
# query, and cannot be interrupted then.
_BOUNDED = {
    "abs", "avg", "case", "cast", "coalesce", "count", "if", "exists", "length", "lower", "max", "min", "nullif",
    "round", "substring", "sum", "trim", "upper", "and", "or", "xor", "extract", "currentdate", "tsordstodate",
}  # fmt: skip
_lock = Lock()


def duckdb_refusal(sql: str, tree: Expr, schema: Schema) -> str | None:
    """Explain why DuckDB may not accept the query.

    Return None if DuckDB accepts it, is not installed, or cannot build the schema.
    """
    from sqlglot import expressions as exp

    if other := [function.sql_name() for function in tree.find_all(exp.Func) if function.key not in _BOUNDED]:
        return f"the function {other[0]} may take too long and is not tried"
    if any(not isinstance(part.expression, exp.Literal) for part in tree.find_all(exp.Limit, exp.Offset)):
        return "LIMIT or OFFSET is not a number"
    connection = _connection(schema) if schema.tables else None
    if connection is None:
        return None
    import duckdb

    try:
        with _lock:
            found = connection.extract_statements(sql)
            if len(found) != 1 or found[0].type != duckdb.StatementType.SELECT:
                return "it is not a single SELECT statement"
            connection.execute(f"PREPARE query AS {sql}")
    except (duckdb.Error, ValueError, TypeError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


@lru_cache(maxsize=16)
def _connection(schema: Schema) -> DuckDBPyConnection | None:
    try:
        import duckdb
    except ImportError:
        return None
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "memory_limit": "200MB",
            "enable_external_access": False,
            "temp_directory": "",
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,  # a table name must not resolve to a Python variable
        },
    )
    try:
        for statement in connection.extract_statements(schema.text):
            if statement.type == duckdb.StatementType.CREATE:
                connection.execute(statement)
        connection.execute("SET lock_configuration = true")
    except duckdb.Error:
        return None
    return connection
