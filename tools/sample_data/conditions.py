"""Conditions on one column, in SQL and in two English forms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.sample_data.dice import Dice
from tools.sample_data.lexicon import Column, Value


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on one column.

    Args:
        column: the column.
        test: the SQL after the column's name, such as "> 20".
        short: the English after a noun, such as "with a weight above 20 kg".
        whose: the same with "whose", such as "whose weight is greater than 20 kg".
    """

    column: Column
    test: str
    short: str
    whose: str

    @property
    def sql(self) -> str:
        """The condition for a query on one table."""
        return f"{self.column.name} {self.test}"

    def of(self, table: str) -> str:
        """Return the condition for a query that joins tables."""
        return f"{table}.{self.column.name} {self.test}"


def literal(value: Value) -> str:
    """Return the value as an SQL literal. Sample values contain no quotation marks."""
    if value is None:
        return "NULL"
    return f"'{value}'" if isinstance(value, str) else str(value)


def with_article(noun: str) -> str:
    """Return the noun with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeio' or noun.startswith('hour') else 'a'} {noun}"


def compare(column: Column, values: Sequence[Any], dice: Dice) -> Condition:
    """Return a comparison with one literal that fits the column's role: equality, order, or before and after."""
    if column.role in ("category", "label"):
        value = dice.pick(values)
        if column.role == "category" and dice.below(7) == 0:
            return Condition(column, f"!= {literal(value)}", *(f"whose {column.noun} is not {value}",) * 2)
        return Condition(column, f"= {literal(value)}", column.where.format(value), f"whose {column.noun} is {value}")
    if column.role == "date":
        sign, word = dice.pick([(">", "after"), ("<", "before")])
        day = _inner(values, dice)
        return Condition(
            column, f"{sign} '{day}'", f"{column.where} {word} {day}", f"whose {column.noun} is {word} {day}"
        )
    number = _rounded(_inner(values, dice))
    sign, short, counted, whose = dice.pick(
        [
            (">", "above", "more than", "greater than"),
            ("<", "below", "fewer than", "less than"),
            (">=", "of at least", "at least", "at least"),
            ("<=", "of at most", "at most", "at most"),
        ]
    )
    amount = f"{number} {column.unit}".rstrip()
    return Condition(
        column,
        f"{sign} {number}",
        f"with {counted} {number} {column.counted}"
        if column.counted
        else f"with {with_article(column.noun)} {short} {amount}",
        f"whose {column.noun} is {whose} {amount}",
    )


def in_year(column: Column, values: Sequence[Any], dice: Dice) -> Condition:
    """Require a date in one of the years of the column's values."""
    year = str(dice.pick(values))[:4]
    return Condition(
        column,
        f"BETWEEN '{year}-01-01' AND '{year}-12-31'",
        f"{column.where} in {year}",
        f"whose {column.noun} is in {year}",
    )


def between(column: Column, values: Sequence[Any], dice: Dice) -> Condition:
    """Require a number or date between two inclusive bounds."""
    low, high = _inner(values, dice, 0.2, 0.5), _inner(values, dice, 0.5, 0.8)
    if column.role == "number":
        low, high = _rounded(low), _rounded(high)
    span = f"between {low} and {high} {column.unit}".rstrip()
    if column.role == "date":
        short = f"{column.where} {span}"
    elif column.counted:
        short = f"with {span} {column.counted}"
    else:
        short = f"with {with_article(column.noun)} {span}"
    return Condition(column, f"BETWEEN {literal(low)} AND {literal(high)}", short, f"whose {column.noun} is {span}")


def one_of(column: Column, values: Sequence[Any], dice: Dice) -> Condition:
    """Require one of two categories."""
    first, second = dice.shuffled(dict.fromkeys(values))[:2]
    words = f"{first} or {second}"
    return Condition(
        column,
        f"IN ({literal(first)}, {literal(second)})",
        column.where.format(words),
        f"whose {column.noun} is {words}",
    )


def like(column: Column, values: Sequence[Any], dice: Dice) -> Condition:
    """Require a label that starts with certain letters or contains a certain word."""
    value = str(dice.pick(values))
    if " " in value and dice.below(2):
        word = value.split()[dice.below(2)]
        return Condition(
            column,
            f"LIKE '%{word}%'",
            f"with {word} in the {column.noun}",
            f"whose {column.noun} contains {word}",
        )
    size = 1 if " " in value else len(value) - 3
    return Condition(
        column,
        f"LIKE '{value[:size]}%'",
        f"with {with_article(column.noun)} starting with {value[:size]}",
        f"whose {column.noun} starts with {value[:size]}",
    )


def is_null(column: Column, *, missing: bool) -> Condition:
    """Require that an optional column is NULL, or that it is not."""
    if missing:
        return Condition(column, "IS NULL", column.missing, f"whose {column.noun} is missing")
    return Condition(column, "IS NOT NULL", column.present, f"whose {column.noun} is given")


def _inner(values: Sequence[Any], dice: Dice, low: float = 0.2, high: float = 0.8) -> Any:
    """Return a value between two quantiles, which is a bound that keeps some rows and drops some."""
    ordered = sorted(values)
    first, end = int(low * len(ordered)), int(high * len(ordered))
    return ordered[first + dice.below(end - first)]


def _rounded(value: float) -> int | float:
    """Round to two significant digits, as people do in questions: 41730 becomes 42000."""
    rounded = float(f"{value:.2g}")
    return int(rounded) if rounded.is_integer() else rounded
