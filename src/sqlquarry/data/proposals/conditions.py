"""Conditions on one column, in SQL and in English, with values from the column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlquarry.data.database.rendering import literal
from sqlquarry.data.database.tables import Value
from sqlquarry.data.proposals.asked import AskedColumn
from sqlquarry.data.proposals.dice import Dice
from sqlquarry.data.proposals.words import with_article

_LONGEST_VALUE = 40  # characters of a value in a question
_SHORTEST_WORD = 4  # characters of a word that a question searches
_FEW = 4
_SHORT = dict.fromkeys(("country", "city", "state", "region", "continent", "county", "hometown"), "from") | {
    "year": "from",
    "name": "named",
}


@dataclass(frozen=True)
class Condition:
    """A condition on one column.

    Args:
        column: the column.
        test: the SQL, with "@" in the places of the column.
        short: the English after a noun, such as "with a weight above 20".
        clause: the English after "whose", such as "weight is greater than 20".
    """

    column: AskedColumn
    test: str
    short: str
    clause: str

    @property
    def sql(self) -> str:
        """The condition in a query on one table."""
        return _written(self.test, self.column.sql)

    @property
    def full(self) -> str:
        """The condition in a query that joins tables."""
        return _written(self.test, self.column.full)

    @property
    def is_equality(self) -> bool:
        """Whether the condition requires one value."""
        return self.test.startswith("@ =")

    @property
    def names_a_row(self) -> bool:
        """Whether at most one row meets the condition, which makes its name and number trivial."""
        return self.column.is_unique and self.is_equality

    @property
    def whose(self) -> str:
        """The English after a noun, with "whose"."""
        return f"whose {self.clause}"


def equal(column: AskedColumn, dice: Dice, *, negated: bool = False) -> Condition | None:
    """Require one of the column's values, or any other value."""
    values = [value for value in column.distinct if _is_askable(value)]
    if not values:
        return None
    value = dice.pick(values)
    said = _said(value, dice)
    if negated:
        return Condition(column, f"@ <> {literal(value)}", *_twice(f"{column.noun} {column.verb} not {said}"))
    words = f"{_SHORT.get(column.noun, f'with the {column.noun}')} {said}"
    return Condition(column, f"@ = {literal(value)}", words, f"{column.noun} {column.verb} {said}")


def flagged(column: AskedColumn, dice: Dice) -> Condition:
    """Require that a boolean is true, or that it is false."""
    is_true = dice.chance(0.7)
    value = "true" if is_true else "false"
    named = column.noun.removesuffix(" status")  # of is_open, which is "open status"
    words = f"that are {'' if is_true else 'not '}{named}" if named != column.noun else f"with {column.noun} {value}"
    return Condition(column, f"@ = {value.upper()}", words, f"{column.noun} {column.verb} {value}")


def one_of(column: AskedColumn, dice: Dice) -> Condition | None:
    """Require one of two values."""
    values = [value for value in column.distinct if _is_askable(value)]
    if len(values) < 3:
        return None
    first = dice.pick(values)
    second = dice.pick([value for value in values if value != first])
    words = f"{_said(first, dice)} or {_said(second, dice)}"
    return Condition(
        column,
        f"@ IN ({literal(first)}, {literal(second)})",
        f"with the {column.noun} {words}",
        f"{column.noun} {column.verb} either {words}",
    )


def compared(column: AskedColumn, dice: Dice) -> Condition | None:
    """Require an order relative to a value within the column's middle range."""
    value = _inner(column.values, dice)
    if value is None:
        return None
    if column.is_time:
        sign, word = dice.pick([(">", "after"), ("<", "before")])
        said = str(value)
        return Condition(
            column,
            f"@ {sign} {literal(value)}",
            f"with {with_article(column.noun)} {word} {said}",
            f"{column.noun} {column.verb} {word} {said}",
        )
    number = _rounded(value)
    sign, short, counted, clause = dice.pick(
        [
            (">", "above", "more than", "greater than"),
            (">", "over", "more than", "higher than"),
            ("<", "below", "fewer than", "less than"),
            ("<", "under", "fewer than", "lower than"),
            (">=", "of at least", "at least", "at least"),
            ("<=", "of at most", "at most", "at most"),
        ]
    )
    words = f"with {counted} {number} {column.counted}" if column.counted else ""
    return Condition(
        column,
        f"@ {sign} {number}",
        words or f"with {with_article(column.noun)} {short} {number}",
        f"{column.noun} {column.verb} {clause} {number}",
    )


def between(column: AskedColumn, dice: Dice) -> Condition | None:
    """Require a number or date between two inclusive bounds."""
    low, high = _inner(column.values, dice, 0.1, 0.5), _inner(column.values, dice, 0.5, 0.9)
    if low is None or high is None or low == high:
        return None
    if column.role == "number":
        low, high = _rounded(low), _rounded(high)
    span = f"between {low} and {high}"
    short = f"with {span} {column.counted}" if column.counted else f"with {with_article(column.noun)} {span}"
    return Condition(
        column, f"@ BETWEEN {literal(low)} AND {literal(high)}", short, f"{column.noun} {column.verb} {span}"
    )


def in_year(column: AskedColumn, dice: Dice) -> Condition | None:
    """Require a date in one of the years of the column's values."""
    if not column.values:
        return None
    year = str(dice.pick(column.values))[:4]
    has_time = any(len(str(value)) > len("2020-01-01") for value in column.values)
    # The last day of the year ends after midnight.
    test = f"@ >= '{year}-01-01' AND @ < '{int(year) + 1:04}-01-01'"
    if not has_time:
        test = f"@ BETWEEN '{year}-01-01' AND '{year}-12-31'"
    return Condition(
        column, test, f"with {with_article(column.noun)} in {year}", f"{column.noun} {column.verb} in {year}"
    )


def like(column: AskedColumn, dice: Dice) -> Condition | None:
    """Require a text that contains a word, or that starts with a letter."""
    texts = [value for value in column.distinct if isinstance(value, str) and _is_askable(value)]
    words = sorted({word for text in texts for word in text.split() if word.isalpha() and len(word) >= _SHORTEST_WORD})
    if words and dice.chance(0.6):
        word = dice.pick(words)
        return Condition(
            column, f"@ LIKE '%{word}%'", f'with "{word}" in the {column.noun}', f'{column.noun} contains "{word}"'
        )
    letters = sorted({text[0] for text in texts if text[0].isalpha()})
    if not letters:
        return None
    letter = dice.pick(letters)
    return Condition(
        column,
        f"@ LIKE '{letter}%'",
        f"with {with_article(column.noun)} that starts with {letter}",
        f'{column.noun} starts with the letter "{letter}"',
    )


def gap(column: AskedColumn, *, missing: bool) -> Condition:
    """Require that a column is NULL, or that it is not."""
    if missing:
        return Condition(
            column, "@ IS NULL", f"without {with_article(column.noun)}", f"{column.noun} {column.verb} missing"
        )
    return Condition(column, "@ IS NOT NULL", f"with a known {column.noun}", f"{column.noun} {column.verb} known")


def _written(test: str, name: str) -> str:
    """Put the name in place of each "@" outside of quotes."""
    parts = test.split("'")
    return "'".join(part if place % 2 else part.replace("@", name) for place, part in enumerate(parts))


def _twice(clause: str) -> tuple[str, str]:
    return f"whose {clause}", clause


def _is_askable(value: Value) -> bool:
    if isinstance(value, float | Decimal):  # nobody asks for an exact measure
        return False
    text = str(value)
    return text == text.strip() and 0 < len(text) <= _LONGEST_VALUE and text.isprintable() and not {'"', "\\"} & {*text}


def _said(value: Value, dice: Dice) -> str:
    """Return the value as a question has it. Texts are sometimes in quotes, and always if they are hard to see."""
    if not isinstance(value, str):
        return str(value)
    is_clear = (
        (value[0].isupper() or value.isdecimal()) and value.replace(" ", "").isalnum() and len(value.split()) < _FEW
    )
    return value if is_clear and dice.chance(0.7) else f'"{value}"'


def _inner(values: Sequence[Value], dice: Dice, low: float = 0.1, high: float = 0.9) -> Value | None:
    """Return a value between two quantiles, which is a bound that keeps some rows and drops some."""
    first, end = int(low * len(values)), int(high * len(values))
    return values[first + dice.below(end - first)] if end > first else None


def _rounded(value: Value) -> Value:
    """Round to two or three significant digits, as people do in questions: 41730 becomes 42000."""
    if not isinstance(value, int | float | Decimal) or not math.isfinite(value) or value == 0:
        return value
    number = float(value)
    digits = 2 - math.floor(math.log10(abs(number))) - (abs(number) >= 1000)
    rounded = round(number, digits)
    return int(rounded) if rounded.is_integer() else rounded
