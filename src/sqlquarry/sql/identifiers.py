"""Quotes identifiers for SQLite and folds them to a canonical case."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

# In these dialects case does not matter even in quoted names. In MySQL this holds for columns, while the case of table
# names depends on the server's file system.
_ANY_CASE = {"sqlite", "mysql"}


def quoted(name: str) -> str:
    """Return the name as an identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def fold(identifier: Expr, dialect: str) -> str:
    """Return the canonical spelling of an identifier, in one case if the dialect ignores case."""
    from sqlglot import Dialect

    if dialect in _ANY_CASE:
        return identifier.name.lower()
    return str(Dialect.get_or_raise(dialect).normalize_identifier(identifier.copy()).name)
