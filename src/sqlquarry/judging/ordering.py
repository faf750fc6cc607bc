"""Does the order of a gold query's rows matter, and which of them tie in it?

The keys of ORDER BY are read as they are written, never through sqlglot's own text of them: CAST(x AS DATE) and DATE(x)
are not the same. The database itself says which rows tie: DENSE_RANK() OVER (ORDER BY <the keys>) as one more column.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from sqlquarry.judging.parsing import Token, parse, tokens

_SET_OPERATIONS = {"UNION", "INTERSECT", "EXCEPT"}
_AFTER_KEYS = {"LIMIT", "OFFSET", "FETCH", "FOR"}
_AFTER_COLUMNS = {"FROM", "WHERE", "GROUP BY", "HAVING", "WINDOW", "ORDER BY"}
_DIRECTIONS = {"ASC", "DESC", "NULLS", "FIRST", "LAST"}


def is_ordered(sql: str, dialect: str = "sqlite") -> bool:
    """Whether a query has a top-level ORDER BY, so that the order of its rows is part of the answer."""
    if "order" not in sql.lower():  # most queries need no tokens
        return False
    return any(_word(token) == "ORDER BY" for token in _top_level(tokens(sql, dialect) or ()))


class KeyedQuery(NamedTuple):
    """A query that also returns its rows' place in its ORDER BY, as its last `keys` columns."""

    sql: str
    keys: int


class Limited(NamedTuple):
    """A top-level LIMIT: the query without it, and which of the query's rows it keeps."""

    sql: str
    offset: int
    limit: int


def with_order_keys(sql: str, dialect: str = "sqlite") -> KeyedQuery | None:
    """Append the rank of each row in ORDER BY to the columns of a plain SELECT, so that ties can be seen.

    None for set operations, for DISTINCT if not all keys are among the columns (a rank would make more rows), and for
    keys that name a column behind a star by its number.
    """
    clauses = _clauses(sql, dialect)
    if clauses is None or clauses.columns is None or not clauses.terms:
        return None
    terms = []
    for term in clauses.terms:
        place = _column_of(term, clauses.columns)
        if term.key.isdigit() and (place is None or any(column.name == "*" for column in clauses.columns[: place + 1])):
            return None
        in_columns = place is not None or term.key in [column.text for column in clauses.columns]
        if clauses.distinct and not in_columns:
            return None
        key = term.key if place is None else f"({clauses.columns[place].text})"
        terms.append(f"{key} {term.direction}".rstrip())
    rank = f", DENSE_RANK() OVER (ORDER BY {', '.join(terms)})"
    return KeyedQuery(sql[: clauses.columns_end] + rank + sql[clauses.columns_end :], 1)


def key_columns(sql: str, names: Sequence[str], dialect: str = "sqlite") -> list[int] | None:
    """The places of the ORDER BY keys among the columns of the result; None if one is not there or in doubt.

    Args:
        sql: the query.
        names: of the result's columns.
        dialect: of the query.
    """
    clauses = _clauses(sql, dialect)
    if clauses is None or not clauses.terms:
        return None
    places = []
    folded = [name.casefold() for name in names]
    for term in clauses.terms:
        if term.key.isdigit() and 1 <= int(term.key) <= len(names):
            places.append(int(term.key) - 1)
        elif folded.count(term.name) == 1:
            places.append(folded.index(term.name))
        else:
            return None
    return places


def limit_of(sql: str, dialect: str = "sqlite") -> Limited | None:
    """The top-level LIMIT of an ordered query; None if it has none, or not one of plain numbers."""
    clauses = _clauses(sql, dialect)
    if clauses is None or not clauses.terms or clauses.limit is None:
        return None
    tree = parse(sql, dialect)
    limit = tree.args.get("limit") if tree is not None else None
    offset = tree.args.get("offset") if tree is not None else None
    count = limit.expression if limit is not None and limit.key == "limit" else None
    skipped = offset.expression if offset is not None else None
    if count is None or not all(part.key == "literal" and part.name.isdigit() for part in (count, skipped) if part):
        return None
    return Limited(sql[: clauses.limit].rstrip(), int(skipped.name) if skipped is not None else 0, int(count.name))


def tied_places(rows: Sequence[Sequence[Any]], keys: int) -> list[int]:
    """The place of each row in the order of a keyed query: rows that tie share one.

    The sequence of keys is fixed even where that of tied rows is not.
    """
    return tied([row[-keys:] for row in rows])


def tied(keys: Sequence[Any]) -> list[int]:
    """The place of each row by its keys: equal neighbours share one."""
    places = [0] if keys else []
    for previous, key in pairwise(keys):
        places.append(places[-1] + (key != previous))
    return places


class _Term(NamedTuple):
    """One key of ORDER BY: its text, its direction, and its name (in small letters) if it is a plain name."""

    key: str
    direction: str
    name: str


class _Column(NamedTuple):
    """One item of the select list: its text without alias, and its name (its alias, or "*")."""

    text: str
    name: str


class _Clauses(NamedTuple):
    """Where the parts of an ordered query are; `columns` is None for set operations."""

    terms: list[_Term]
    columns: list[_Column] | None
    columns_end: int
    distinct: bool
    limit: int | None


def _clauses(sql: str, dialect: str) -> _Clauses | None:
    from sqlglot import expressions as exp

    found = tokens(sql, dialect)
    tree = parse(sql, dialect)
    if not found or not isinstance(tree, exp.Query):
        return None
    top = _top_level(found)
    words = [_word(token) for token in top]
    if "ORDER BY" not in words:
        return None
    order = words.index("ORDER BY")
    end = next((i for i in range(order + 1, len(words)) if words[i] in _AFTER_KEYS), len(words))
    limit = top[end].start if end < len(top) else None
    inside = [token for token in found if token.start >= top[order].end and (limit is None or token.end <= limit)]
    terms = [_term(sql, term) for term in _split(inside)]
    selects = [i for i in range(order) if words[i] == "SELECT"]
    if not selects or not isinstance(tree, exp.Select) or _SET_OPERATIONS & set(words[:order]):
        return _Clauses(terms, None, 0, distinct=False, limit=limit)
    select = selects[-1]
    after = next(i for i in range(select + 1, order + 1) if words[i] in _AFTER_COLUMNS)
    distinct = words[select + 1] == "DISTINCT"
    start = top[select + (words[select + 1] in ("DISTINCT", "ALL"))].end
    items = [token for token in found if token.start >= start and token.end <= top[after].start]
    parts = _split(items)
    columns = [_column(sql, part, column.alias) for part, column in zip(parts, tree.selects, strict=False)]
    only = tree.args.get("distinct")
    if len(parts) != len(tree.selects) or (only and only.args.get("on")):
        return _Clauses(terms, None, 0, distinct=distinct, limit=limit)
    return _Clauses(terms, columns, items[-1].end, distinct, limit)


def _word(token: Token) -> str:
    return " ".join(token.text.upper().split()) if token.kind == "word" and token.any_case else ""


def _top_level(found: Sequence[Token]) -> list[Token]:
    """The tokens outside all brackets."""
    depth = 0
    top = []
    for token in found:
        if token.kind == "word":
            depth -= token.text in (")", "]")
            if depth == 0 and token.text not in (")", "]"):
                top.append(token)
            depth += token.text in ("(", "[")
        elif depth == 0:
            top.append(token)
    return top


def _split(found: Sequence[Token]) -> list[list[Token]]:
    """The tokens between commas outside brackets."""
    commas = {token.start for token in _top_level(found) if token.text == ","}
    parts: list[list[Token]] = [[]]
    for token in found:
        if token.start in commas:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _term(sql: str, found: list[Token]) -> _Term:
    end = len(found)
    while end > 1 and found[end - 1].text.upper() in _DIRECTIONS:
        end -= 1
    name = found[0].text.casefold() if end == 1 and found[0].kind == "word" else ""
    direction = sql[found[end].start : found[-1].end] if end < len(found) else ""
    return _Term(sql[found[0].start : found[end - 1].end], direction, name)


def _column(sql: str, found: list[Token], alias: str) -> _Column:
    if not alias:
        text = sql[found[0].start : found[-1].end]
        return _Column(text, "*" if found[-1].text == "*" else found[0].text.casefold() if len(found) == 1 else "")
    end = next((token.start for token in _top_level(found) if _word(token) == "AS"), found[-1].start)
    return _Column(sql[found[0].start : end].rstrip(), alias.casefold())


def _column_of(term: _Term, columns: Sequence[_Column]) -> int | None:
    """The column that a key names by its number or alias; None for an expression, which stays as it is."""
    if term.key.isdigit():
        place = int(term.key) - 1
        return place if 0 <= place < len(columns) else None
    names = [column.name for column in columns]
    # A plain column names itself.
    if term.name and names.count(term.name) == 1 and columns[names.index(term.name)].text.casefold() != term.name:
        return names.index(term.name)
    return None
