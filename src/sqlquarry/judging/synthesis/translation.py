"""Queries of other dialects as SQLite says them."""

from __future__ import annotations

from sqlquarry.errors import JudgingError


def in_sqlite(sql: str, dialect: str) -> str:
    """The query in SQLite's dialect; as it is where it is no SQL of its own dialect, which SQLite will refuse too.

    Raises:
        JudgingError: sqlglot does not know the dialect, or knows that SQLite has no such thing.
    """
    if dialect == "sqlite":
        return sql
    import sqlglot
    from sqlglot.errors import ErrorLevel, SqlglotError, UnsupportedError

    try:
        return ";\n".join(sqlglot.transpile(sql, read=dialect, write="sqlite", unsupported_level=ErrorLevel.RAISE))
    # ValueError is an unknown dialect, RecursionError a query nested deeper than sqlglot can follow.
    except (UnsupportedError, ValueError, RecursionError) as error:
        raise cannot_be_said(sql, dialect, str(error).partition("\n")[0] or type(error).__name__) from error
    except SqlglotError:
        return sql


def cannot_be_said(sql: str, dialect: str, reason: str) -> JudgingError:
    """The error for a query that may well be right where it comes from."""
    return JudgingError(f"the {dialect} query cannot be said in SQLite ({reason}): {sql[:80]!r}")
