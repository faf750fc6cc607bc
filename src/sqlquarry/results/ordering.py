"""Find out whether the order of a gold query's rows matters, and which rows tie.

The database itself ranks the rows, in an additional column DENSE_RANK() OVER (ORDER BY <the keys>). The keys are copied
from the query's text. sqlglot's spelling of them is not used, because it may differ: CAST(x AS DATE) is not DATE(x).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.sql.parsing import Token, parse, tokens

if TYPE_CHECKING:
    from sqlglot.expressions import Query

_SET_OPERATIONS = {"UNION", "INTERSECT", "EXCEPT"}
_CUTS = {"LIMIT", "OFFSET", "FETCH"}
_AFTER_KEYS = _CUTS | {"FOR"}
_AFTER_COLUMNS = {"FROM", "WHERE", "GROUP BY", "HAVING", "WINDOW", "ORDER BY"}


def is_ordered(sql: str, dialect: str = "sqlite") -> bool:
    """Return whether a query has a top-level ORDER BY, so that the order of its rows is part of the answer."""
    if "order" not in sql.lower():  # avoids tokenizing most queries
        return False
    top = _top_level(_within_brackets(tokens(sql, dialect) or []))
    # With a comment between the two words they are two tokens.
    split = any((a.text.upper(), b.text.upper()) == ("ORDER", "BY") for a, b in pairwise(top))
    return split or "ORDER BY" in _words(top)


class KeyedQuery(NamedTuple):
    """A query whose last `keys` columns are the place of each row in its ORDER BY."""

    sql: str
    keys: int


class Limited(NamedTuple):
    """A query without its top-level LIMIT, and the number of rows that LIMIT skips."""

    sql: str
    offset: int


def with_order_keys(sql: str, dialect: str = "sqlite") -> KeyedQuery | None:
    """Append the rank of each row in ORDER BY to the columns of a plain SELECT, which shows the ties.

    Return None for set operations, for DISTINCT if a key is not among the columns (the rank would add rows), for keys
    that are the number of a column behind a star, and for keys without a name, whose meaning depends on the database.
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
        if (clauses.distinct and not in_columns) or (place is None and not term.has_name):
            return None
        terms.append(term.on(term.key if place is None else f"({clauses.columns[place].text})"))
    rank = f", DENSE_RANK() OVER (ORDER BY {', '.join(terms)})"
    return KeyedQuery(sql[: clauses.columns_end] + rank + sql[clauses.columns_end : clauses.end], 1)


def around_order_keys(sql: str, names: Sequence[str], dialect: str = "sqlite") -> KeyedQuery | None:
    """Wrap a query that orders by its own columns in a query that appends the rank of each row.

    Columns keep their collation. Return None if a key is not the number or name of a column, or if two columns have its
    name.

    Args:
        sql: the query.
        names: the column names of the result.
        dialect: the dialect of the query.
    """
    clauses = _clauses(sql, dialect)
    if clauses is None or not clauses.terms:
        return None
    terms = []
    folded = [name.casefold() for name in names]
    for term in clauses.terms:
        if term.key.isdigit() and 1 <= int(term.key) <= len(names):
            place = int(term.key)
        elif folded.count(term.name) == 1:
            place = folded.index(term.name) + 1
        else:
            return None
        terms.append(term.on(f"c{place}"))
    columns = ", ".join(f"c{place}" for place in range(1, len(names) + 1))
    rank = f"DENSE_RANK() OVER (ORDER BY {', '.join(terms)})"
    query = sql[clauses.start : clauses.end]
    return KeyedQuery(
        f"WITH sqlquarry_gold({columns}) AS ({query}\n) SELECT {columns}, {rank} FROM sqlquarry_gold "
        f"ORDER BY {len(names) + 1}",
        1,
    )


def limit_of(sql: str, dialect: str = "sqlite") -> Limited | None:
    """Return the query without its top-level LIMIT or FETCH.

    Return None if it has none, or if its OFFSET is not a plain number.
    """
    upper = sql.upper()
    if not any(word in upper for word in _CUTS):  # avoids tokenizing most queries
        return None
    found, tree = _read(sql, dialect)
    top = _top_level(found)
    cut = next((token for token, word in zip(top, _words(top), strict=True) if word in _CUTS), None)
    if cut is None or tree is None or not (tree.args.get("limit") or tree.args.get("offset")):
        return None
    offset = tree.args["offset"].expression if tree.args.get("offset") else None
    if offset is not None and not (offset.key == "literal" and offset.name.isdigit()):
        return None
    return Limited(sql[found[0].start : cut.start].rstrip(), int(offset.name) if offset is not None else 0)


def tied_places(rows: Sequence[Sequence[object]], keys: int) -> list[int]:
    """Return the place of each row in the order of a keyed query. Rows that tie share a place.

    The order of the keys is always the same, even if the order of tied rows is not.
    """
    places = [0] if rows else []
    for previous, row in pairwise(rows):
        places.append(places[-1] + (row[-keys:] != previous[-keys:]))
    return places


class _Term(NamedTuple):
    """One key of ORDER BY.

    Args:
        key: the text of the key.
        suffix: the direction, after the collation if another key can have the collation, too.
        name: the key in lower case if it is a plain name, otherwise "".
        has_name: the key is more than numbers and signs.
    """

    key: str
    suffix: str
    name: str
    has_name: bool

    def on(self, key: str) -> str:
        """Return the same collation and direction with another key."""
        return f"{key} {self.suffix}".rstrip()


class _Column(NamedTuple):
    """One item of the select list: its text without alias, and its name (its alias, or "*")."""

    text: str
    name: str


class _Clauses(NamedTuple):
    """The positions of the parts of an ordered query. `columns` is None for set operations."""

    terms: list[_Term]
    start: int
    end: int
    limit: int | None
    columns: list[_Column] | None = None
    columns_end: int = 0
    distinct: bool = False


def _clauses(sql: str, dialect: str) -> _Clauses | None:
    from sqlglot import expressions as exp

    found, tree = _read(sql, dialect)
    if not found or tree is None:
        return None
    top = _top_level(found)
    words = _words(top)
    if "ORDER BY" not in words:
        return None
    order = words.index("ORDER BY")
    end = next((i for i in range(order + 1, len(words)) if words[i] in _AFTER_KEYS), len(words))
    limit = top[end].start if end < len(top) else None
    inside = [token for token in found if token.start >= top[order].end and (limit is None or token.end <= limit)]
    terms = [_term(sql, term, dialect) for term in _split(inside)]
    clauses = _Clauses(terms, found[0].start, found[-1].end, limit)
    selects = [i for i in range(order) if words[i] == "SELECT"]
    if not selects or not isinstance(tree, exp.Select) or _SET_OPERATIONS & set(words[:order]):
        return clauses
    select = selects[-1]
    after = next(i for i in range(select + 1, order + 1) if words[i] in _AFTER_COLUMNS)
    distinct = words[select + 1] == "DISTINCT"
    start = top[select + (words[select + 1] in ("DISTINCT", "ALL"))].end
    items = [token for token in found if token.start >= start and token.end <= top[after].start]
    parts = _split(items)
    columns = [_column(sql, part, column.alias) for part, column in zip(parts, tree.selects, strict=False)]
    only = tree.args.get("distinct")
    if len(parts) != len(tree.selects) or (only and only.args.get("on")):
        return clauses
    return clauses._replace(columns=columns, columns_end=items[-1].end, distinct=distinct)


def _read(sql: str, dialect: str) -> tuple[list[Token], Query | None]:
    """Return the tokens and the tree of a query, without enclosing brackets."""
    from sqlglot import expressions as exp

    tree = parse(sql, dialect)
    while isinstance(tree, exp.Subquery) and not any(tree.args.get(part) for part in ("order", "limit", "offset")):
        tree = tree.this
    return _within_brackets(tokens(sql, dialect) or []), tree if isinstance(tree, exp.Query) else None


def _words(found: Sequence[Token]) -> list[str]:
    """Return each keyword in upper case, and "" for other tokens, including a column such as t.offset."""
    before = ("", *(token.text for token in found))
    return [_word(token) if last != "." else "" for last, token in zip(before, found, strict=False)]


def _word(token: Token) -> str:
    return " ".join(token.text.upper().split()) if token.kind == "word" and token.any_case else ""


def _within_brackets(found: list[Token]) -> list[Token]:
    """Return the tokens without enclosing brackets."""
    while len(found) > 2 and found[0].text == "(" and [token.start for token in _top_level(found)] == [found[0].start]:
        found = found[1:-1]
    return found


def _top_level(found: Sequence[Token]) -> list[Token]:
    """Return the tokens outside all brackets."""
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
    """Return the groups of tokens between commas outside brackets."""
    commas = {token.start for token in _top_level(found) if token.text == ","}
    parts: list[list[Token]] = [[]]
    for token in found:
        if token.start in commas:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _term(sql: str, found: list[Token], dialect: str) -> _Term:
    has_name = any(token.kind.endswith("STRING") or token.text[:1].isalpha() for token in found)
    words = [sql[token.start : token.end].upper() for token in found]
    end = len(found)
    if words[end - 2 : end - 1] == ["NULLS"] and words[end - 1] in ("FIRST", "LAST"):
        end -= 2
    if end > 1 and words[end - 1] in ("ASC", "DESC") and words[end - 2] != ".":
        end -= 1
    direction = sql[found[end].start : found[-1].end] if end < len(found) else ""
    # Brackets around a number or name do not turn it into an expression. Nor does a collation in SQLite (resolve.c).
    plain, collation = _within_brackets(found[:end]), ""
    if dialect == "sqlite" and len(plain) > 2 and plain[-2].text.upper() == "COLLATE":
        collation = sql[plain[-2].start : plain[-1].end]
        plain = _within_brackets(plain[:-2])
    if len(plain) == 1:
        name = plain[0].text.casefold() if plain[0].kind == "word" else ""
        key = sql[plain[0].start : plain[0].end]
        return _Term(key, f"{collation} {direction}".strip(), name, has_name=has_name)
    return _Term(sql[found[0].start : found[end - 1].end], direction, "", has_name=has_name)


def _column(sql: str, found: list[Token], alias: str) -> _Column:
    if not alias:
        text = sql[found[0].start : found[-1].end]
        return _Column(text, "*" if found[-1].text == "*" else found[0].text.casefold() if len(found) == 1 else "")
    end = next((token.start for token in _top_level(found) if _word(token) == "AS"), found[-1].start)
    return _Column(sql[found[0].start : end].rstrip(), alias.casefold())


def _column_of(term: _Term, columns: Sequence[_Column]) -> int | None:
    """Return the column that a key refers to by number or alias, or None for an expression."""
    if term.key.isdigit():
        place = int(term.key) - 1
        return place if 0 <= place < len(columns) else None
    names = [column.name for column in columns]
    # A plain column needs no replacement.
    if term.name and names.count(term.name) == 1 and columns[names.index(term.name)].text.casefold() != term.name:
        return names.index(term.name)
    return None
