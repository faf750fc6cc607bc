"""SQL text through sqlglot: the only module of this phase that imports it, and only on use."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_LITERAL = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_PARENTHESES = re.compile(r"\([^()]*\)")


@lru_cache(maxsize=1024)
def parse(sql: str, dialect: str) -> Expr | None:
    """One statement as a syntax tree, or None where sqlglot cannot read it; don't change the tree, it is cached."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        statements = sqlglot.parse(sql, read=dialect)
    # ValueError is an unknown dialect, RecursionError a query nested deeper than sqlglot can follow.
    except (SqlglotError, ValueError, RecursionError):
        return None
    found = [statement for statement in statements if statement is not None]
    return found[0] if len(found) == 1 else None


def canonical(sql: str, dialect: str) -> str | None:
    """The statement as sqlglot writes it: keyword case, white space and quoting made uniform; literals stay."""
    tree = parse(sql, dialect)
    if tree is None:
        return None
    try:
        return tree.sql(dialect=dialect, identify=True, comments=False)
    except (ValueError, RecursionError):
        return None


def collapsed(sql: str) -> str:
    """White space and case made uniform outside quotes: what is left to do where a statement does not parse."""
    pieces, end = [], 0
    text = sql.strip().rstrip("; \t\r\n")
    for quoted in _LITERAL.finditer(text):
        pieces += [re.sub(r"\s+", " ", text[end : quoted.start()]).upper(), quoted.group()]
        end = quoted.end()
    return "".join([*pieces, re.sub(r"\s+", " ", text[end:]).upper()])


def is_ordered(sql: str, dialect: str) -> bool:
    """Whether the query has a top-level ORDER BY, so that the order of its rows is part of the answer."""
    tree = parse(sql, dialect)
    if tree is not None:
        return bool(tree.args.get("order"))
    flat = _COMMENT.sub(" ", _LITERAL.sub("''", sql))
    while (inner := _PARENTHESES.sub(" ", flat)) != flat:
        flat = inner
    return re.search(r"\border\s+by\b", flat, re.IGNORECASE) is not None


class KeyedQuery(NamedTuple):
    """A query that also returns its ORDER BY keys, as its last `keys` columns."""

    sql: str
    keys: int


def with_order_keys(sql: str, dialect: str) -> KeyedQuery | None:
    """Append the ORDER BY keys of a plain SELECT to its columns, so that ties can be seen.

    None where that is not simple: set operations, and DISTINCT with LIMIT (more columns could make more rows).
    """
    from sqlglot import expressions as exp

    tree = parse(sql, dialect)
    if not isinstance(tree, exp.Select) or not tree.args.get("order"):
        return None
    if tree.args.get("distinct") and tree.args.get("limit"):
        return None
    columns = tree.selects
    by_alias = {column.alias.lower(): column.this for column in columns if isinstance(column, exp.Alias)}
    keys = []
    for term in tree.args["order"].expressions:
        key = term.this if isinstance(term, exp.Ordered) else term
        if isinstance(key, exp.Literal) and not key.is_string and key.name.isdigit():  # ORDER BY 2
            place = int(key.name)
            if any(column.is_star for column in columns[:place]) or not 1 <= place <= len(columns):
                return None
            key = columns[place - 1].unalias()
        elif isinstance(key, exp.Column) and not key.table and key.name.lower() in by_alias:
            key = by_alias[key.name.lower()]
        keys.append(key.copy())
    return KeyedQuery(tree.copy().select(*keys).sql(dialect=dialect), len(keys))
