"""SQL text cut into coloured pieces, with what differs between two queries marked."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from functools import lru_cache
from typing import NamedTuple

_PLAIN_WORDS = re.compile(r"\w+|'[^']*'|[^\w\s]")
_LONGEST_DIFF = 2000  # tokens; difflib takes seconds beyond


class Piece(NamedTuple):
    """A token of a query, or what stands between two.

    Args:
        kind: "k" keyword, "f" function, "n" number, "s" string, "c" comment, " " anything else.
        text: as written.
        changed: the other query has no such token here.
    """

    kind: str
    text: str
    changed: bool = False

    @property
    def coded(self) -> str:
        """The text behind its kind, in upper case where it changed: how the page's data holds it."""
        kind = self.kind.upper() if self.kind != " " else "_"
        return (kind if self.changed else self.kind) + self.text


def pieces(sql: str, dialect: str) -> list[Piece]:
    """The whole text of `sql`, cut into pieces; text that sqlglot cannot cut is cut into words without colours."""
    found: list[Piece] = []
    end = 0
    for start, stop, kind in _spans(sql, dialect):
        if start > end:
            found.append(_between(sql[end:start]))
        found.append(Piece(kind, sql[start:stop]))
        end = stop
    return [*found, _between(sql[end:])] if end < len(sql) else found


def diffed(gold: str, predicted: str, dialect: str) -> tuple[list[Piece], list[Piece]]:
    """Both queries in pieces; marked is what the other one lacks. The case of all but strings makes no difference.

    White space and comments are never marked, nor are queries of more than 2,000 tokens.
    """
    sides = pieces(gold, dialect), pieces(predicted, dialect)
    places = [[i for i, piece in enumerate(side) if piece.text.strip() and piece.kind != "c"] for side in sides]
    if max(map(len, places)) > _LONGEST_DIFF:
        return sides
    keys = [[_key(side[i]) for i in at] for side, at in zip(sides, places, strict=True)]
    for what, *ranges in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        if what != "equal":
            for side, at, start, stop in zip(sides, places, ranges[::2], ranges[1::2], strict=True):
                for i in at[start:stop]:
                    side[i] = side[i]._replace(changed=True)
    return sides


@lru_cache(maxsize=4096)
def _spans(sql: str, dialect: str) -> list[tuple[int, int, str]]:
    """Start, end and kind of each token."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        tokens = sqlglot.tokenize(sql, read=dialect if sqlglot.Dialect.get(dialect) else None)
    except SqlglotError:
        return [(*word.span(), " ") for word in _PLAIN_WORDS.finditer(sql)]
    names = [token.token_type.name for token in tokens]
    return [
        (token.start, token.end + 1, _kind(name, token.text, following))
        for token, name, following in zip(tokens, names, [*names, ""][1:], strict=True)
    ]


def _kind(name: str, text: str, following: str) -> str:
    if name == "NUMBER":
        return "n"
    if name.endswith("STRING"):
        return "s"
    if name == "VAR":
        return "f" if following == "L_PAREN" else " "
    return "k" if name != "IDENTIFIER" and text[:1].isalpha() else " "


def _between(text: str) -> Piece:
    return Piece("c" if text.strip() else " ", text)


def _key(piece: Piece) -> str:
    return piece.text if piece.kind == "s" else piece.text.upper()
