"""Equality of two query results, the definition behind every number in a report."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace

from sqlquarry.results.cells import STRICT, Cell, ComparisonOptions, Row
from sqlquarry.results.pairing import PairSearch, perfect_matching

_FEW_ROWS = 300  # at most this many rows are paired one by one

_Row = tuple[Cell, ...]  # normalized, so that equal rows have equal hashes
ColumnNames = tuple[Sequence[str], Sequence[str]]  # column names of the gold and of the prediction


def results_equal(
    gold_rows: Sequence[Row], predicted_rows: Sequence[Row], *, ordered: bool, comparison: ComparisonOptions = STRICT
) -> bool:
    """Return whether two results contain the same rows.

    They do if there are a permutation of the columns, the same for all rows, and a one-to-one pairing of the rows such
    that all paired cells are equal. So duplicates count. With `ordered`, row i must be paired with row i.

    Cells are equal if they have the same type and value:

    - Numbers are one type: `True` is 1, and `1.0` is 1.
    - Integers and decimals must be exactly equal. The last digit of decimals with 16 or more significant digits may
      differ, because these are quotients that the database rounded.
    - If one number is a float, ``|a - b|`` must be at most ``1e-9 * max(|a|, |b|)`` or 1e-12. This is the noise of sums
      in a different order.
    - NULL equals only NULL, and NaN only NaN. Text, bytes and numbers never equal each other.

    Empty results are equal. The answer is exact: equality within a tolerance is not transitive, so such rows are paired
    by bipartite matching and not only by rounding or sorting.

    Args:
        gold_rows: rows x columns.
        predicted_rows: rows x columns.
        ordered: whether the order of the rows matters.
        comparison: differences that still count as equal.

    Raises:
        JudgingError: finding the column permutation takes too long (large, highly symmetric results).
    """
    count = len(gold_rows)
    return rows_match(gold_rows, predicted_rows, range(count) if ordered else [0] * count, comparison)


def rows_match(
    gold_rows: Sequence[Row],
    predicted_rows: Sequence[Row],
    places: Sequence[int],
    comparison: ComparisonOptions = STRICT,
    names: ColumnNames | None = None,
) -> bool:
    """Compare like `results_equal`, but with the place of each row in the order. Rows that tie share a place.

    Args:
        gold_rows: rows x columns.
        predicted_rows: rows x columns.
        places: one number per row. Only rows with the same number may be exchanged.
        comparison: differences that still count as equal.
        names: column names of the gold and of the prediction. If columns may be permuted and both have the same names,
            in any order, columns are paired by name. So results with swapped names are different.

    Raises:
        JudgingError: finding the column permutation takes too long.
    """
    if len(gold_rows) != len(predicted_rows):
        return False
    if not gold_rows:
        return True
    prepared = _prepared(gold_rows, predicted_rows, comparison, names)
    if prepared is None:
        return False
    gold, predicted, comparison = prepared
    return (
        gold == predicted
        or _equal_by_counts(gold, predicted, places, comparison)
        or PairSearch(gold, predicted, places, places, comparison).run()
    )


def choice_matches(
    candidates: Sequence[tuple[int, Row]],
    places: Sequence[int],
    predicted_rows: Sequence[Row],
    comparison: ComparisonOptions = STRICT,
    names: ColumnNames | None = None,
) -> bool:
    """Return whether the predicted rows can be paired with different candidates that have the same places.

    Args:
        candidates: rows with their places, at least one.
        places: the place of each predicted row.
        predicted_rows: rows x columns.
        comparison: differences that still count as equal.
        names: as in `rows_match`.

    Raises:
        JudgingError: finding the column permutation takes too long.
    """
    prepared = _prepared([row for _, row in candidates], predicted_rows, comparison, names)
    if prepared is None or not predicted_rows:
        return False
    gold, predicted, comparison = prepared
    return PairSearch(gold, predicted, [place for place, _ in candidates], places, comparison).run()


def _prepared(
    gold_rows: Sequence[Row], predicted_rows: Sequence[Row], comparison: ComparisonOptions, names: ColumnNames | None
) -> tuple[list[_Row], list[_Row], ComparisonOptions] | None:
    """Normalize the rows, and reorder columns that are paired by name. Return None if the numbers of columns differ."""
    widths = [{len(row) for row in rows} for rows in (gold_rows, predicted_rows)]
    if any(len(found) > 1 for found in widths):
        return None
    missing = widths[0].pop() - (widths[1] or {0}).pop()
    if missing > 0 or (missing < 0 and not comparison.extra_columns):
        return None
    by_name = columns_by_name(*names) if names and comparison.permute_columns else None
    if by_name is not None:
        predicted_rows = _with_columns(predicted_rows, by_name)
        comparison = replace(comparison, permute_columns=False)
    return comparison.normalized(gold_rows), comparison.normalized(predicted_rows), comparison


def columns_by_name(gold: Sequence[str], predicted: Sequence[str]) -> list[int] | None:
    """Return the predicted column for each gold column, or None unless both have the same unique names."""
    mine, theirs = [name.casefold() for name in gold], [name.casefold() for name in predicted]
    if len(set(mine)) < len(mine) or sorted(mine) != sorted(theirs):
        return None
    return [theirs.index(name) for name in mine]


def _with_columns(rows: Sequence[Row], columns: Sequence[int]) -> Sequence[Row]:
    """Return the rows with the given columns in the given order."""
    if list(columns) == list(range(len(columns))):
        return rows
    if len(columns) == 1:
        return [(row[columns[0]],) for row in rows]
    return list(map(operator.itemgetter(*columns), rows))


def _equal_by_counts(
    gold: list[tuple[Cell, ...]],
    predicted: list[tuple[Cell, ...]],
    places: Sequence[int],
    comparison: ComparisonOptions,
) -> bool:
    """Return whether counting shows that the rows are the same, with columns paired by their values.

    This confirms nearly all equal results in a small part of the time of the search. False proves nothing.
    """
    if len(gold[0]) != len(predicted[0]):
        return False
    if not _unmatched(gold, predicted, places):
        return True
    if comparison.permute_columns:
        mine, theirs = (
            [hash(frozenset(Counter(column).items())) for column in zip(*rows, strict=True)]
            for rows in (gold, predicted)
        )
        if mine != theirs and len(set(mine)) == len(mine) and set(mine) == set(theirs):
            return not _unmatched(gold, _with_columns(predicted, [theirs.index(sign) for sign in mine]), places)
    return _equal_by_rounded_counts(gold, predicted, places, comparison)


def _unmatched(
    gold: Sequence[Hashable], predicted: Sequence[Hashable], places: Sequence[int]
) -> tuple[Counter[Hashable], Counter[Hashable]] | None:
    """Return the rows, each with its place, that only one side has, or None if there are no such rows."""
    if places[0] == places[-1]:
        mine, theirs = Counter(gold), Counter(predicted)
    else:
        mine, theirs = Counter(zip(places, gold, strict=True)), Counter(zip(places, predicted, strict=True))
    return None if mine == theirs else (mine - theirs, theirs - mine)


def _equal_by_rounded_counts(
    gold: list[tuple[Cell, ...]],
    predicted: list[tuple[Cell, ...]],
    places: Sequence[int],
    comparison: ComparisonOptions,
) -> bool:
    """Truncate floats so that equal ones are within the tolerance, count again, and pair the remaining rows."""
    if comparison.relative_tolerance <= 2**-52 or comparison.decimals is not None:
        return False
    scale = 2.0 ** math.ceil(1 - math.log2(comparison.relative_tolerance))

    def cut(cell: Cell) -> Cell:
        if type(cell) is not float or math.isinf(cell):
            return cell
        nearest = round(cell)
        if abs(cell - nearest) <= comparison.relative_tolerance / 2 * abs(cell):
            return nearest
        fraction, exponent = math.frexp(cell)
        return (int(fraction * scale), exponent)

    mine, theirs = ([tuple(map(cut, row)) for row in rows] for rows in (gold, predicted))
    left = _unmatched(mine, theirs, places)
    if left is None:
        return True
    if max(side.total() for side in left) > _FEW_ROWS:
        return False
    tied = places[0] == places[-1]
    rest = [
        _rows_behind(rows, cuts, places, side, tied=tied)
        for rows, cuts, side in zip((gold, predicted), (mine, theirs), left, strict=True)
    ]
    return perfect_matching(
        [[j for j, (q, b) in enumerate(rest[1]) if p == q and comparison.same_row(a, b)] for p, a in rest[0]]
    )


def _rows_behind(
    rows: Sequence[Row], cuts: Sequence[Hashable], places: Sequence[int], wanted: Counter[Hashable], *, tied: bool
) -> list[tuple[int, Row]]:
    """Return the original rows, each with its place, of the truncated rows `wanted`."""
    found, wanted = [], wanted.copy()
    for row, cut, place in zip(rows, cuts, places, strict=True):
        key = cut if tied else (place, cut)
        if wanted[key] > 0:
            wanted[key] -= 1
            found.append((0 if tied else place, row))
    return found
