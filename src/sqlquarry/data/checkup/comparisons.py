"""Find the comparisons in a query, and check them for text where a column was meant and the reverse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlquarry.data.checkup.findings import Finding, Kind
from sqlquarry.data.checkup.gold_query import GoldQuery
from sqlquarry.sql.double_quotes import quoted_columns
from sqlquarry.sql.schema import Column

KINDS = (
    Kind(
        "string-in-double-quotes",
        "warning",
        "The gold query has text in double quotes",
        'Write text in single quotes. In standard SQL, "abc" is a column, so PostgreSQL and others refuse the query, '
        "and SQLite reads it as a column as soon as a column has this name.",
    ),
    Kind(
        "string-read-as-column",
        "error",
        "Text in double quotes is read as a column, because a column has the same name",
        "Write the text in single quotes. The condition now compares two columns.",
    ),
    Kind(
        "column-read-as-string",
        "error",
        "A column in double quotes is read as text, because no column has this name",
        "Correct the name of the column. The query now uses the same text for each row.",
    ),
    Kind(
        "literals-compared",
        "error",
        "A condition compares two literals",
        "Write the column on one side. The condition is now the same for each row. Often the column's name is a number "
        "or misspelled, and the schema lacks it.",
    ),
    Kind(
        "number-in-quotes",
        "warning",
        "A numeric column is compared with a number in quotes",
        "Write the number without quotes. SQLite converts it, but other databases may refuse the query.",
    ),
    Kind(
        "number-stored-as-text",
        "note",
        "A text column is compared with a number in quotes",
        "Check the column's type. In data sets such as WikiSQL, types were inferred, so numbers are in quotes.",
    ),
    Kind(
        "number-against-text",
        "warning",
        "A text column is compared with a number",
        "Check the column's type. SQLite compares a text column with a number as text, so that '9' > '10', and "
        "PostgreSQL refuses the query.",
    ),
    Kind(
        "text-against-number",
        "warning",
        "A numeric column is compared with a text that is not a number",
        "Check the column's type and the value. In SQLite the two are never equal, and PostgreSQL refuses the query.",
    ),
)

EQUALITY = {"=", "<>", "IS", "IS NOT"}
ORDER = {"<", ">", "<=", ">="}
_MATCHING = {"LIKE", "ILIKE", "GLOB", "REGEXP", "RLIKE"}
OPERATORS = EQUALITY | ORDER | _MATCHING | {"IN", "BETWEEN"}
_ARITHMETIC = {"+", "-", "*", "/", "%", "||", "->", "->>", "::"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_NUMERIC = {"integer", "real"}


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


def comparisons(gold: GoldQuery) -> Iterator[Comparison]:
    """Yield the comparisons of a query that have a literal on one side at least."""
    words = gold.words
    for place, word in enumerate(words):
        if word not in OPERATORS or not 0 < place < len(words) - 1:
            continue
        before = place - 1 - (words[place - 1] == "NOT")
        left, right = _operand_before(gold, before), _literals_after(gold, place, word)
        if right:
            is_literal = left is not None and not gold.is_name(left)
            yield Comparison(word, None if is_literal else left, right, left if is_literal else None)
        elif left is not None and not gold.is_name(left):
            yield Comparison(word, _column_after(gold, place + 1), (left,))


def _is_literal(gold: GoldQuery, place: int) -> bool:
    return gold.is_number(place) or gold.is_text(place)


def _operand_before(gold: GoldQuery, place: int) -> int | None:
    """Return the token that is the whole left operand, a literal or the name of a column, or None."""
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
    """Return the index of the literal that starts at a token, which may be its sign."""
    place += place < len(gold.words) and gold.words[place] in ("-", "+")
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


def check_quotes(gold: GoldQuery) -> Iterator[Finding]:
    """Yield text in double quotes, and names in double quotes that are read as the other thing than was meant."""
    if not gold.double_quoted or gold.dialect != "sqlite":
        return
    texts = [gold.tokens[place].text for place in sorted(gold.quoted_texts)]
    meant = [name for name in quoted_columns(gold.sql) if name in texts] if texts else []
    compared = {gold.tokens[place].text for found in comparisons(gold) for place in _sides(found)}
    for name in meant:
        if name not in compared:
            yield gold.finding("column-read-as-string", f'"{name}"')
    if values := [f'"{text}"' for text in dict.fromkeys(texts) if text not in meant or text in compared]:
        yield gold.finding("string-in-double-quotes", ", ".join(values))
    for place in gold.double_quoted:
        if place not in gold.quoted_texts and (other := _compared_plain_column(gold, place)):
            yield gold.finding("string-read-as-column", f'"{gold.tokens[place].text}" compared with {other}')


def check_types(gold: GoldQuery) -> Iterator[Finding]:
    """Yield comparisons of literals with each other, and of literals with columns of another type."""
    for found in comparisons(gold):
        if found.other is not None:
            if not _is_deliberate(gold, found):
                yield gold.finding("literals-compared", _shown(gold, found.other, found))
        elif found.column is not None:
            column = _one_type(gold.columns(gold.tokens[found.column].text))
            if column is not None and (mismatch := _mismatch(gold, found, column)):
                shown = _shown(gold, found.column, found)
                yield gold.finding(mismatch, f"{shown}, {column.name} is {column.declared}")


def _sides(found: Comparison) -> Sequence[int]:
    return (*found.literals, *(() if found.other is None else (found.other,)))


def _compared_plain_column(gold: GoldQuery, place: int) -> str | None:
    """Return the column without quotes that is compared with the double-quoted name at an index, or None."""
    around = gold.words[place + 1 : place + 2]
    if place < 2 or gold.words[place - 1] not in EQUALITY | ORDER | _MATCHING or around in (["."], ["("]):
        return None
    before = place - 2 - (gold.words[place - 2] == "NOT")
    left = _operand_before(gold, before)
    if left is None or not gold.is_name(left) or gold.sql[gold.tokens[left].start] == '"':
        return None
    return gold.tokens[left].text


def _is_deliberate(gold: GoldQuery, found: Comparison) -> bool:
    """Return whether a comparison of two literals is a constant, as in WHERE 1 = 1."""
    values = {gold.tokens[place].text for place in _sides(found)}
    return all(map(gold.is_number, _sides(found))) and (len(values) == 1 or values <= {"0", "1"})


def _one_type(columns: Sequence[Column]) -> Column | None:
    """Return the first column if all have the same kind of type and it is declared, or None."""
    kinds = {column.kind for column in columns}
    return columns[0] if len(kinds) == 1 and columns[0].declared else None


def _mismatch(gold: GoldQuery, found: Comparison, column: Column) -> str | None:
    texts = [gold.tokens[place].text for place in found.literals if gold.is_text(place)]
    if found.operator in _MATCHING:
        return None
    if column.kind in _NUMERIC:
        if texts and all(_NUMBER.fullmatch(text.strip()) for text in texts):
            return "number-in-quotes"
        return "text-against-number" if texts else None
    if column.kind != "text" or column.affinity != "TEXT":
        return None
    if len(texts) < len(found.literals):
        return "number-against-text"
    return "number-stored-as-text" if all(_NUMBER.fullmatch(text.strip()) for text in texts) else None


def _shown(gold: GoldQuery, side: int, found: Comparison) -> str:
    """Return the text of a comparison."""
    places = sorted((side, *found.literals))
    return " ".join(gold.sql[gold.tokens[places[0]].start : gold.tokens[places[-1]].end].split())
