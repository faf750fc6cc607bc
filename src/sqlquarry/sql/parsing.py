"""Parses SQL text into syntax trees and tokens with sqlglot, which is imported only when it is needed."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_ONE_OPERATOR = {"!=": "<>", "==": "="}
_CACHED_CHARACTERS = 200_000  # a tree takes about 300 bytes per character of text


class _Parsed(NamedTuple):
    """The statements of a text, or the offset of its first error."""

    statements: tuple[Expr, ...] | None
    error: int | None


class _Cache:
    """A cache of the most recently parsed texts, up to a total of 200,000 characters."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Parsed] = OrderedDict()
        self._characters = 0
        self._lock = Lock()

    def parsed(self, sql: str, dialect: str) -> _Parsed:
        key = (sql, dialect)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = _parsed(sql, dialect)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = found
                self._characters += len(sql)
            while self._characters > _CACHED_CHARACTERS:
                (oldest, _), _ = self._kept.popitem(last=False)
                self._characters -= len(oldest)
        return found


_cache = _Cache()


def statements(sql: str, dialect: str) -> tuple[Expr, ...] | None:
    """Return the syntax trees of all statements, or None if one cannot be parsed. Do not modify the cached trees."""
    return _cache.parsed(sql, dialect).statements


def error_place(sql: str, dialect: str) -> int | None:
    """Return the offset at which sqlglot stops parsing, or None if the text is one statement that it can parse."""
    found = _cache.parsed(sql, dialect)
    if found.statements is not None and len(found.statements) != 1:
        return len(sql)
    return found.error


def _parsed(sql: str, dialect: str) -> _Parsed:
    import sqlglot
    from sqlglot.errors import ParseError, SqlglotError

    try:
        found = sqlglot.parse(sql, read=dialect)
    except ParseError as error:
        return _Parsed(None, _offset(sql, error.errors[0] if error.errors else {}))
    # An unknown dialect raises ValueError. A query that is nested too deeply for sqlglot raises RecursionError.
    except (SqlglotError, ValueError, RecursionError):
        return _Parsed(None, len(sql))
    return _Parsed(tuple(statement for statement in found if statement is not None), None)


def _offset(sql: str, error: dict[str, object]) -> int:
    """Convert sqlglot's line and column, which point to the last character of a token, to the offset of the token."""
    line, column = error.get("line"), error.get("col")
    if not isinstance(line, int) or not isinstance(column, int):
        return len(sql)
    start = 0
    for _ in range(line - 1):
        start = sql.find("\n", start) + 1
    return min(len(sql), max(0, start + column - len(str(error.get("highlight") or " "))))


def parse(sql: str, dialect: str) -> Expr | None:
    """Return the syntax tree of one statement, or None if sqlglot cannot parse it. Do not modify the cached tree."""
    found = statements(sql, dialect)
    return found[0] if found is not None and len(found) == 1 else None


class Token(NamedTuple):
    """One word, symbol or literal of a statement, without its quotation marks.

    Args:
        kind: "NUMBER", "STRING" or a similar kind for literals, and "word" for everything else.
        text: the text as written, except that `!=` becomes `<>` and `==` becomes `=`.
        any_case: whether letter case does not matter. True for keywords and functions, False for names.
        start: offset of the token, including its quotation mark.
        end: offset of the text after the token.
    """

    kind: str
    text: str
    any_case: bool
    start: int = 0
    end: int = 0

    def same_as(self, other: Token) -> bool:
        """Return whether both tokens are the same except for the case of keywords and the quoting of names."""
        if self.kind != other.kind:
            return False
        both_any_case = self.any_case and other.any_case
        return self.text == other.text or (both_any_case and self.text.upper() == other.text.upper())


def tokens(sql: str, dialect: str) -> list[Token] | None:
    """Return the tokens of a statement without comments and final semicolons, or None if a quote is not closed.

    For an unknown dialect, sqlglot's own dialect is used.
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
        for token, name, after in zip(found, types, (*types, "")[1:], strict=True)
    ]
