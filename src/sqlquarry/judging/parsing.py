"""SQL text through sqlglot: the only module of this phase that imports it, and only on use."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_ONE_OPERATOR = {"!=": "<>", "==": "="}


@lru_cache(maxsize=1024)
def statements(sql: str, dialect: str) -> tuple[Expr, ...] | None:
    """Every statement as a syntax tree, or None where sqlglot cannot read one; cached: don't change the trees."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        found = sqlglot.parse(sql, read=dialect)
    # ValueError is an unknown dialect, RecursionError a query nested deeper than sqlglot can follow.
    except (SqlglotError, ValueError, RecursionError):
        return None
    return tuple(statement for statement in found if statement is not None)


def parse(sql: str, dialect: str) -> Expr | None:
    """One statement as a syntax tree, or None where sqlglot cannot read it; don't change the tree, it is cached."""
    found = statements(sql, dialect)
    return found[0] if found is not None and len(found) == 1 else None


def conditions(clause: Expr | None) -> list[Expr]:
    """The conditions that AND and OR combine, without parentheses."""
    if clause is None:
        return []
    if clause.key in ("where", "having", "paren"):
        return conditions(clause.this)
    return conditions(clause.this) + conditions(clause.expression) if clause.key in ("and", "or") else [clause]


class Token(NamedTuple):
    """One word, sign or literal of a statement, without its quote marks.

    Args:
        kind: "NUMBER", "STRING" and the like, or "word" for everything else.
        text: as written; `!=` is `<>` and `==` is `=`.
        any_case: upper and lower case mean the same by SQL's grammar: keywords and functions, but not names.
        start: where it begins in the text, its quote mark included.
        end: where the text after it begins.
    """

    kind: str
    text: str
    any_case: bool
    start: int = 0
    end: int = 0

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
            start=token.start,
            end=token.end + 1,
        )
        for token, name, after in zip(found, types, [*types[1:], ""], strict=True)
    ]
