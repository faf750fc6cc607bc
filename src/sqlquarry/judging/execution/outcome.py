"""Compare the results of a prediction and a gold query on one database, and describe the difference."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from sqlquarry.answers import Verdict
from sqlquarry.errors import JudgingError
from sqlquarry.execution.sandbox import Failure, Rows
from sqlquarry.judging.execution.gold import GoldResult
from sqlquarry.results.cells import ComparisonOptions, Row
from sqlquarry.results.comparison import ColumnNames, choice_matches, columns_by_name, rows_match

_MOST_DECIMALS = 6  # more decimals do not look like rounding


class QueryOutcome(NamedTuple):
    """A verdict and its reason."""

    verdict: Verdict
    reason: str


def compare_with_gold(gold: GoldResult, predicted: Rows | Failure, comparison: ComparisonOptions) -> QueryOutcome:
    """Judge a prediction by one gold query on one database."""
    if isinstance(predicted, Failure) and predicted.kind == "unknown_function":
        return QueryOutcome("unjudged", predicted.message)
    if isinstance(predicted, Failure):
        return QueryOutcome("wrong", f"the query fails: {predicted.message}")
    expected = gold.result
    missing = len(expected.columns) - len(predicted.columns)
    if missing > 0 or (missing < 0 and not comparison.extra_columns):
        return QueryOutcome("wrong", f"{counted(predicted.columns, 'column')} instead of {len(expected.columns)}")
    names = (expected.columns, predicted.columns)
    if expected.rows == predicted.rows and columns_by_name(*names) in (None, [*range(len(expected.columns))]):
        return QueryOutcome("correct", "")  # most right answers, without asking which rows tie
    try:
        return _compare_rows(gold, predicted, comparison, names)
    except JudgingError as error:
        return QueryOutcome("unjudged", str(error))


def _compare_rows(gold: GoldResult, predicted: Rows, comparison: ComparisonOptions, names: ColumnNames) -> QueryOutcome:
    expected = gold.result
    places, any_order = gold.places(), [0] * len(expected.rows)
    strict = places if places is not None else range(len(expected.rows))
    if rows_match(expected.rows, predicted.rows, strict, comparison, names):
        return QueryOutcome("correct", "")
    if places is None and rows_match(expected.rows, predicted.rows, any_order, comparison, names):
        return QueryOutcome(
            "unjudged", "the same rows in a different order, and it is unknown which rows tie in the gold's ORDER BY"
        )
    choice = gold.limit_choice() if len(expected.rows) == len(predicted.rows) else None
    if (
        choice
        and len(choice.candidates) > len(choice.places)
        and choice_matches(choice.candidates, choice.places, predicted.rows, comparison, names)
    ):
        if choice.is_certain:
            return QueryOutcome(
                "correct", f"another choice among {len(choice.candidates):,} rows that tie at the gold's LIMIT"
            )
        reason = "other rows than the gold's LIMIT kept, and it is unknown which rows tie in its ORDER BY"
        return QueryOutcome("unjudged", reason)
    return QueryOutcome("wrong", _difference(gold, predicted, comparison))


def _difference(gold: GoldResult, predicted: Rows, comparison: ComparisonOptions) -> str:
    """Describe the difference for the reader of a report."""
    expected = gold.result
    if len(expected.rows) != len(predicted.rows):
        return f"{counted(predicted.rows, 'row')} instead of {len(expected.rows):,}"
    with contextlib.suppress(JudgingError):  # the comparison would take too long
        if likeness := _likeness(gold, predicted, comparison):
            return likeness
    if len(expected.rows) == 1:
        return "a different row"
    common = sum((Counter(expected.rows) & Counter(predicted.rows)).values())
    return f"{len(expected.rows) - common:,} of {len(expected.rows):,} rows differ"


def _likeness(gold: GoldResult, predicted: Rows, comparison: ComparisonOptions) -> str | None:
    """Describe the looser rule under which both results would be equal, or return None if there is none.

    Raises:
        JudgingError: the comparison takes too long.
    """
    expected = gold.result
    names, any_order = (expected.columns, predicted.columns), [0] * len(expected.rows)
    if gold.ordered and rows_match(expected.rows, predicted.rows, any_order, comparison, names):
        return "the right rows in a different order than ORDER BY requires"
    places = gold.places() or any_order
    if rows_match(expected.rows, predicted.rows, places, comparison):
        return "the right values, but under each other's column names"
    digits = _decimals(expected.rows)
    if digits and rows_match(expected.rows, predicted.rows, places, replace(comparison, decimals=digits), names):
        return f"equal after rounding to {digits} digit{'' if digits == 1 else 's'}"
    return None


def _decimals(rows: Sequence[Row]) -> int | None:
    """Return the number of decimals (at most 6) to which a result looks rounded, or None if it does not."""
    most = 0
    for row in rows:
        for cell in row:
            if isinstance(cell, float | Decimal) and math.isfinite(cell):
                exponent = Decimal(str(cell)).normalize().as_tuple().exponent
                most = max(most, -exponent if isinstance(exponent, int) else 0)
                if most > _MOST_DECIMALS:
                    return None
    return most or None


def counted(things: Sequence[object], noun: str) -> str:
    """Return the number of things with the noun, as in "1 row" and "1,200 rows"."""
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"
