"""SQL text through sqlglot: the only module of this phase that imports it, and only on use."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_ONE_OPERATOR = {"!=": "<>", "==": "="}


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


class Token(NamedTuple):
    """One word, sign or literal of a statement, without its quote marks.

    Args:
        kind: "NUMBER", "STRING" and the like, or "word" for everything else.
        text: as written; `!=` is `<>` and `==` is `=`.
        any_case: upper and lower case mean the same by SQL's grammar: keywords and functions, but not names.
    """

    kind: str
    text: str
    any_case: bool

    def same_as(self, other: Token) -> bool:
        """Whether both are the same but for the case of keywords and the quoting of names."""
        if self.kind != other.kind:
            return False
        both_any_case = self.any_case and other.any_case
        return self.text == other.text or (both_any_case and self.text.upper() == other.text.upper())


def tokens(sql: str, dialect: str) -> list[Token] | None:
    """The statement's tokens without comments and closing semicolons; None where a quote is not closed.

    An unknown dialect is read as sqlglot's own.
    """
    import sqlglot
    from sqlglot.errors import SqlglotError

    known = sqlglot.Dialect.get(dialect) is not None
    try:
        found = sqlglot.tokenize(sql, read=dialect if known else None)
    except SqlglotError:
        return None
    while found and found[-1].token_type.name == "SEMICOLON":
        found.pop()
    types = [token.token_type.name for token in found]
    return [
        Token(
            kind=name if name == "NUMBER" or name.endswith("STRING") else "word",
            text=_ONE_OPERATOR.get(token.text, token.text),
            any_case=after == "L_PAREN" if name == "VAR" else name != "IDENTIFIER" and not name.endswith("STRING"),
        )
        for token, name, after in zip(found, types, [*types[1:], ""], strict=True)
    ]


def is_ordered(sql: str) -> bool:
    """Whether an SQLite query has a top-level ORDER BY, so that the order of its rows is part of the answer."""
    depth = 0
    for token in tokens(sql, "sqlite") or ():
        if token.kind == "word":
            depth += (token.text == "(") - (token.text == ")")
            if depth == 0 and token.any_case and token.text.upper().startswith("ORDER "):
                return True
    return False


class KeyedQuery(NamedTuple):
    """A query that also returns its ORDER BY keys, as its last `keys` columns."""

    sql: str
    keys: int


def with_order_keys(sql: str) -> KeyedQuery | None:
    """Append the ORDER BY keys of a plain SQLite SELECT to its columns, so that ties can be seen.

    None where that is not simple: set operations, and DISTINCT with LIMIT (more columns could make more rows).
    """
    from sqlglot import expressions as exp

    tree = parse(sql, "sqlite")
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
    return KeyedQuery(tree.copy().select(*keys).sql(dialect="sqlite"), len(keys))
