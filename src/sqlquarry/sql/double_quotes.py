"""Finds misspelled column names that SQLite silently reads as text because they are in double quotes.

In SQLite "abc" is a name if there is such a column, and text otherwise (https://sqlite.org/quirks.html#dblquote).
"""

from __future__ import annotations

import re

from sqlquarry.sql.parsing import parse, tokens

# A double-quoted word at the start of a clause, argument or condition. Most others follow "=" and are meant as text.
_SUSPECT = re.compile(r"(?:\b(?:SELECT|DISTINCT|ALL|BY|WHERE|AND|OR|NOT|ON|HAVING)\s+|[(,]\s*)\"", re.IGNORECASE)


def quoted_columns(sql: str) -> list[str]:
    """Return the double-quoted words of an SQLite query that must be columns because text would make no sense there.

    These are arguments of aggregates, columns of the result, keys of ORDER BY or GROUP BY, and words that are compared
    with a literal.
    """
    if not _SUSPECT.search(sql):
        return []
    from sqlglot import expressions as exp

    tree = parse(sql, "sqlite")
    found = []
    for column in tree.find_all(exp.Column) if tree is not None else ():
        if not column.this.args.get("quoted") or column.table:
            continue
        parent = column.parent
        while isinstance(parent, exp.Paren | exp.Alias | exp.Ordered | exp.Distinct):
            parent = parent.parent
        literal = isinstance(parent, exp.Predicate) and any(
            isinstance(side, exp.Literal) for side in (parent.this, parent.expression)
        )
        if literal or isinstance(parent, exp.AggFunc | exp.Select | exp.Order | exp.Group):
            found.append(column.name)
    return list(dict.fromkeys(found))


def with_brackets(sql: str, name: str) -> str:
    """Return the query with a word in brackets instead of double quotes. SQLite never reads brackets as text."""
    pieces, end = [], 0
    for token in tokens(sql, "sqlite") or ():
        if token.text == name and sql[token.start] == '"':
            pieces += [sql[end : token.start], f"[{name}]"]
            end = token.end
    return "".join((*pieces, sql[end:]))
