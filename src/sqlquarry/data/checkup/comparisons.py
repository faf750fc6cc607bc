"""Find the comparisons with literals in a gold query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlquarry.data.checkup.gold_query import GoldQuery

EQUALITY = {"=", "<>", "IS"}
ORDER = {"<", ">", "<=", ">="}
MATCHING = {"LIKE", "ILIKE", "GLOB", "REGEXP", "RLIKE"}
OPERATORS = EQUALITY | ORDER | MATCHING | {"IN", "BETWEEN"}
_ARITHMETIC = {"+", "-", "*", "/", "%", "||", "->", "->>", "::"}
_TYPED = {"DATE", "TIME", "TIMESTAMP", "DATETIME"}  # DATE '2024-01-31'


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison with at least one literal.

    Args:
        operator: the operator in upper case, without NOT.
        column: index of the token that names the compared column, or None for another literal or an expression.
        literals: indices of the tokens of the literals.
        other: index of the literal on the other side if both sides are literals.
    """

    operator: str
    column: int | None
    literals: tuple[int, ...]
    other: int | None = None

    @property
    def all_literals(self) -> tuple[int, ...]:
        """The literals on both sides."""
        return self.literals if self.other is None else (*self.literals, self.other)


def comparisons(gold: GoldQuery) -> Iterator[Comparison]:
    """Yield the comparisons of a query that have a literal on one side at least."""
    words = gold.words
    for place, word in enumerate(words):
        if word not in OPERATORS or not 0 < place < len(words) - 1:
            continue
        before = place - 1 - (words[place - 1] == "NOT")
        left, right = operand_before(gold, before), _literals_after(gold, place, word)
        if right:
            is_literal = left is not None and not gold.is_name(left)
            yield Comparison(word, None if is_literal else left, right, left if is_literal else None)
        elif left is not None and not gold.is_name(left):
            yield Comparison(word, _column_after(gold, place + 1), (left,))


def _is_literal(gold: GoldQuery, place: int) -> bool:
    return gold.is_number(place) or gold.is_text(place)


def operand_before(gold: GoldQuery, place: int) -> int | None:
    """Return the index of the literal or column that is the whole operand up to a token, or None."""
    start = place
    if gold.is_name(place) and place > 1 and gold.tokens[place - 1].text == ".":
        start = place - 2
    if not (gold.is_name(place) or _is_literal(gold, place)):
        return None
    before = gold.words[start - 1] if start else ""
    return None if before in _ARITHMETIC | OPERATORS | {"."} else place


def _literals_after(gold: GoldQuery, place: int, operator: str) -> tuple[int, ...]:
    """Return the literals that are the whole right operand, or () for anything else."""
    first = place + 1 + (operator == "IS" and gold.words[place + 1] == "NOT")
    if operator == "BETWEEN":
        low = _literal_at(gold, first)
        high = _literal_at(gold, low + 2) if low is not None and gold.words[low + 1 : low + 2] == ["AND"] else None
        return tuple(found for found in (low, high) if found is not None)
    if operator == "IN":
        return tuple(_listed(gold, first))
    found = _literal_at(gold, first)
    is_whole = found is not None and (gold.words[found + 1 : found + 2] or [""])[0] not in _ARITHMETIC
    return (found,) if found is not None and is_whole else ()


def _literal_at(gold: GoldQuery, place: int) -> int | None:
    """Return the index of the literal that starts at a token, which may be its sign or type."""
    if place < len(gold.words) - 1 and (gold.words[place] in ("-", "+") or gold.words[place] in _TYPED):
        place += 1
    return place if place < len(gold.words) and _is_literal(gold, place) else None


def _listed(gold: GoldQuery, place: int) -> Iterator[int]:
    while place < len(gold.words) - 1 and gold.words[place] in ("(", ","):
        found = _literal_at(gold, place + 1)
        if found is None:
            return
        yield found
        place = found + 1


def _column_after(gold: GoldQuery, place: int) -> int | None:
    end = place + 2 if gold.words[place + 1 : place + 2] == ["."] else place
    after = (gold.words[end + 1 : end + 2] or [""])[0]
    return end if end < len(gold.words) and gold.is_name(end) and after not in _ARITHMETIC | {"("} else None
