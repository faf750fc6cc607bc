"""Check the values in conditions: text where a column was meant, the reverse, NULL, and values of another type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sqlquarry.data.checkup.comparisons import EQUALITY, MATCHING, ORDER, Comparison, comparisons, operand_before
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
        "null-compared",
        "error",
        "A value is compared with NULL by an operator",
        "Write IS NULL or IS NOT NULL. A comparison with NULL is never true, and 'null' in quotes is a text.",
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

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_NUMERIC = {"integer", "real"}


def check_quotes(gold: GoldQuery) -> Iterator[Finding]:
    """Yield text in double quotes, and names in double quotes that are read as the other thing than was meant."""
    if not gold.double_quoted or gold.dialect != "sqlite":
        return
    texts = [gold.tokens[place].text for place in sorted(gold.quoted_texts)]
    meant = [name for name in quoted_columns(gold.sql) if name in texts] if texts else []
    compared = {gold.tokens[place].text for found in comparisons(gold) for place in found.all_literals}
    for name in meant:
        if name not in compared:
            yield gold.finding("column-read-as-string", f'"{name}"')
    if values := [f'"{text}"' for text in dict.fromkeys(texts) if text not in meant or text in compared]:
        yield gold.finding("string-in-double-quotes", ", ".join(values))
    for place in gold.double_quoted:
        if place not in gold.quoted_texts and (other := _compared_plain_column(gold, place)):
            yield gold.finding("string-read-as-column", f'"{gold.tokens[place].text}" compared with {other}')


def check_nulls(gold: GoldQuery) -> Iterator[Finding]:
    """Yield comparisons with NULL by = or another operator, also with NULL in quotes."""
    for place, word in enumerate(gold.words[:-1]):
        if place and word in (EQUALITY | ORDER) - {"IS"}:
            is_null = gold.words[place + 1] == "NULL" or (gold.is_text(place + 1) and is_null_text(gold, place + 1))
            if is_null:
                yield gold.finding("null-compared", _between(gold, place - 1, place + 1))


def is_null_text(gold: GoldQuery, place: int) -> bool:
    """Return whether the token at an index is NULL in quotes."""
    return gold.tokens[place].text.lower() == "null"


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


def _compared_plain_column(gold: GoldQuery, place: int) -> str | None:
    """Return the column without quotes that is compared with the double-quoted name at an index, or None."""
    around = gold.words[place + 1 : place + 2]
    if place < 2 or gold.words[place - 1] not in EQUALITY | ORDER | MATCHING or around in (["."], ["("]):
        return None
    before = place - 2 - (gold.words[place - 2] == "NOT")
    left = operand_before(gold, before)
    if left is None or not gold.is_name(left) or gold.sql[gold.tokens[left].start] == '"':
        return None
    return gold.tokens[left].text


def _is_deliberate(gold: GoldQuery, found: Comparison) -> bool:
    """Return whether a comparison of two literals is a constant, as in WHERE 1 = 1."""
    values = {gold.tokens[place].text for place in found.all_literals}
    return all(map(gold.is_number, found.all_literals)) and (len(values) == 1 or values <= {"0", "1"})


def _one_type(columns: Sequence[Column]) -> Column | None:
    """Return the first column if all have the same kind of type and it is declared, or None."""
    kinds = {column.kind for column in columns}
    return columns[0] if len(kinds) == 1 and columns[0].declared else None


def _mismatch(gold: GoldQuery, found: Comparison, column: Column) -> str | None:
    texts = [gold.tokens[place].text for place in found.literals if gold.is_text(place)]
    if found.operator in MATCHING or any(is_null_text(gold, place) for place in found.literals):
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
    return _between(gold, places[0], places[-1])


def _between(gold: GoldQuery, first: int, last: int) -> str:
    return " ".join(gold.sql[gold.tokens[first].start : gold.tokens[last].end].split())
