"""Spell identifiers: quoted for SQLite, and folded to one case."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

# Dialects in which case never matters, for quoted names either: SQLite's names, and MySQL's columns (the case of its
# tables depends on the server's file system).
_ANY_CASE = {"sqlite", "mysql"}


def quoted(name: str) -> str:
    """Return the name as an identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def fold(identifier: Expr, dialect: str) -> str:
    """Return an identifier's spelling, in one case if case does not matter."""
    from sqlglot import Dialect

    if dialect in _ANY_CASE:
        return identifier.name.lower()
    return str(Dialect.get_or_raise(dialect).normalize_identifier(identifier.copy()).name)
