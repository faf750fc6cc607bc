"""Does the order of a gold query's rows matter, and which of them tie in it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlquarry.judging.parsing import parse, tokens


def is_ordered(sql: str, dialect: str = "sqlite") -> bool:
    """Whether a query has a top-level ORDER BY, so that the order of its rows is part of the answer."""
    if "order" not in sql.lower():  # most queries need no tokens
        return False
    depth = 0
    for token in tokens(sql, dialect) or ():
        if token.kind == "word":
            depth += (token.text == "(") - (token.text == ")")
            if depth == 0 and token.any_case and token.text.upper().startswith("ORDER "):
                return True
    return False


class KeyedQuery(NamedTuple):
    """A query that also returns its ORDER BY keys, as its last `keys` columns."""

    sql: str
    keys: int


def with_order_keys(sql: str, dialect: str = "sqlite") -> KeyedQuery | None:
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
    return KeyedQuery(tree.copy().select(*keys, copy=False).sql(dialect=dialect), len(keys))


def tied_places(rows: Sequence[Sequence[Any]], keys: int) -> list[int]:
    """The place of each row in the order of a keyed query: rows that tie share one.

    The sequence of keys is fixed even where that of tied rows is not.
    """
    places: list[int] = []
    previous: Sequence[Any] | None = None
    for row in rows:
        key = row[-keys:]
        places.append(places[-1] + (key != previous) if places else 0)
        previous = key
    return places
