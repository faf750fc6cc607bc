"""Are two query results the same? The one definition that every number in a report rests on."""

from __future__ import annotations

import math
import operator
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import permutations
from typing import Any

from sqlquarry.errors import JudgingError
from sqlquarry.judging.cells import INEXACT, NUMBERS, STRICT, Comparison, Row

_SEARCH_BUDGET = 20_000_000  # rows looked at while trying column orders: a few seconds
_FEW_ROWS, _FEW_COLUMNS = 300, 4  # that are paired one by one, and in every order
_PAIRING_BUDGET = 4_000_000  # pairs of rows compared among rows that differ within the tolerance only


def results_equal(
    gold_rows: Sequence[Row], predicted_rows: Sequence[Row], *, ordered: bool, comparison: Comparison = STRICT
) -> bool:
    """Say whether two results hold the same rows.

    They do if one permutation of the columns, the same for all rows, and a one-to-one pairing of the rows exist such
    that all paired cells are equal; with `ordered`, row i must be paired with row i. Duplicates therefore count.

    Cells are equal if they have the same type and value. Numbers are one type (`True` is 1, `1.0` is 1). Whole numbers
    and decimals are exact and must be the same; only the last digit of decimals with 16 or more significant digits may
    differ, for these are quotients that the database rounded. If one number is a float, ``|a - b|`` must be at most
    ``1e-9 * max(|a|, |b|)`` or 1e-12, which is the noise of sums in another order. NULL equals only NULL, NaN only NaN;
    text, bytes and numbers never equal each other. Empty results are equal.

    The answer is exact: tolerance is not transitive, so rows within tolerance are paired by bipartite matching, not
    by rounding or by sorting alone.

    Args:
        gold_rows: rows x columns.
        predicted_rows: rows x columns.
        ordered: whether the order of the rows matters.
        comparison: what else may differ.

    Raises:
        JudgingError: finding the column permutation takes too long (large, highly symmetric results).
    """
    count = len(gold_rows)
    return rows_match(gold_rows, predicted_rows, range(count) if ordered else [0] * count, comparison)


def rows_match(
    gold_rows: Sequence[Row],
    predicted_rows: Sequence[Row],
    places: Sequence[int],
    comparison: Comparison = STRICT,
    names: tuple[Sequence[str], Sequence[str]] | None = None,
) -> bool:
    """`results_equal`, with the order given as the place of each row; rows that tie have the same place.

    Args:
        gold_rows: rows x columns.
        predicted_rows: rows x columns.
        places: one number per row: rows with the same number may be exchanged, others not.
        comparison: what else may differ.
        names: of the gold's and the prediction's columns. If both have the same names, in any order, and columns may
            be permuted, columns of one name belong together: values under each other's names are not the same result.

    Raises:
        JudgingError: finding the column permutation takes too long.
    """
    if len(gold_rows) != len(predicted_rows):
        return False
    if not gold_rows:
        return True
    widths = [{len(row) for row in rows} for rows in (gold_rows, predicted_rows)]
    if any(len(found) > 1 for found in widths):
        return False
    missing = widths[0].pop() - widths[1].pop()
    if missing > 0 or (missing < 0 and not comparison.extra_columns):
        return False
    by_name = columns_by_name(*names) if names and comparison.permute_columns else None
    if by_name is not None:
        predicted_rows = _taken(predicted_rows, by_name)
        comparison = replace(comparison, permute_columns=False)
    gold, predicted = comparison.normalised(gold_rows), comparison.normalised(predicted_rows)
    return (
        gold == predicted
        or _counted(gold, predicted, places, comparison)
        or _Search(gold, predicted, places, comparison).run()
    )


def choice_matches(
    candidates: Sequence[tuple[int, Row]],
    places: Sequence[int],
    predicted_rows: Sequence[Row],
    comparison: Comparison = STRICT,
    names: tuple[Sequence[str], Sequence[str]] | None = None,
) -> bool:
    """Whether each predicted row can have a candidate of its own that has the place of the predicted row.

    Args:
        candidates: rows with their places, more than are wanted.
        places: of each predicted row.
        predicted_rows: rows x columns, as wide as the candidates.
        comparison: what else may differ; results of more than four columns are paired by names or as they come.
        names: as in `rows_match`.
    """
    width = len(candidates[0][1])
    if any(len(row) != width for row in predicted_rows) or len(candidates) * len(predicted_rows) > _PAIRING_BUDGET:
        return False
    by_name = columns_by_name(*names) if names else None
    orders: Iterable[Sequence[int]] = [by_name or range(width)]
    if by_name is None and comparison.permute_columns and width <= _FEW_COLUMNS:
        orders = permutations(range(width))
    gold = comparison.normalised([row for _, row in candidates])
    predicted = comparison.normalised(predicted_rows)
    return any(
        _perfect_matching(
            [
                [j for j, row in enumerate(gold) if candidates[j][0] == place and comparison.same_row(row, wanted)]
                for place, wanted in zip(places, _taken(predicted, order), strict=True)
            ]
        )
        for order in orders
    )


def columns_by_name(gold: Sequence[str], predicted: Sequence[str]) -> list[int] | None:
    """The predicted column for each of the gold's; None unless both have the same names, each of them once."""
    mine, theirs = [name.casefold() for name in gold], [name.casefold() for name in predicted]
    if len(set(mine)) < len(mine) or sorted(mine) != sorted(theirs):
        return None
    return [theirs.index(name) for name in mine]


def _taken(rows: Sequence[Row], columns: Sequence[int]) -> Sequence[Row]:
    """The rows with these columns in this order."""
    if list(columns) == list(range(len(columns))):
        return rows
    if len(columns) == 1:
        return [(row[columns[0]],) for row in rows]
    return list(map(operator.itemgetter(*columns), rows))


def _counted(
    gold: list[tuple[Any, ...]], predicted: list[tuple[Any, ...]], places: Sequence[int], comparison: Comparison
) -> bool:
    """Whether the rows are the same by counting them, with columns paired by what they hold.

    This decides nearly all equal results, in a small part of the time of the search. False says nothing.
    """
    if len(gold[0]) != len(predicted[0]):
        return False
    if not _left_over(gold, predicted, places):
        return True
    if comparison.permute_columns:
        mine, theirs = (
            [hash(frozenset(Counter(column).items())) for column in zip(*rows, strict=True)]
            for rows in (gold, predicted)
        )
        if mine != theirs and len(set(mine)) == len(mine) and set(mine) == set(theirs):
            return not _left_over(gold, _taken(predicted, [theirs.index(sign) for sign in mine]), places)
    return _counted_but_for_noise(gold, predicted, places, comparison)


def _left_over(
    gold: Sequence[Hashable], predicted: Sequence[Hashable], places: Sequence[int]
) -> tuple[Counter[Any], Counter[Any]] | None:
    """The rows, each with its place, that only one side has; None if there are none."""
    if places[0] == places[-1]:
        mine, theirs = Counter(gold), Counter(predicted)
    else:
        mine, theirs = Counter(zip(places, gold, strict=True)), Counter(zip(places, predicted, strict=True))
    return None if mine == theirs else (mine - theirs, theirs - mine)


def _counted_but_for_noise(
    gold: list[tuple[Any, ...]], predicted: list[tuple[Any, ...]], places: Sequence[int], comparison: Comparison
) -> bool:
    """Count again with floats cut to fewer bits, so that equal ones are within the tolerance; then pair the rest."""
    if comparison.relative_tolerance <= 2**-52 or comparison.decimals is not None:
        return False
    scale = 2.0 ** math.ceil(1 - math.log2(comparison.relative_tolerance))

    def cut(cell: Any) -> Any:
        if type(cell) is not float or math.isinf(cell):
            return cell
        nearest = round(cell)
        if abs(cell - nearest) <= comparison.relative_tolerance / 2 * abs(cell):
            return nearest
        fraction, exponent = math.frexp(cell)
        return (int(fraction * scale), exponent)

    mine, theirs = ([tuple(map(cut, row)) for row in rows] for rows in (gold, predicted))
    left = _left_over(mine, theirs, places)
    if left is None:
        return True
    if max(side.total() for side in left) > _FEW_ROWS:
        return False
    tied = places[0] == places[-1]
    rest = [
        _originals(rows, cuts, places, side, tied=tied)
        for rows, cuts, side in zip((gold, predicted), (mine, theirs), left, strict=True)
    ]
    return _perfect_matching(
        [[j for j, (q, b) in enumerate(rest[1]) if p == q and comparison.same_row(a, b)] for p, a in rest[0]]
    )


def _originals(
    rows: Sequence[Row], cuts: Sequence[Hashable], places: Sequence[int], wanted: Counter[Any], *, tied: bool
) -> list[tuple[int, Row]]:
    """The rows, each with its place, that became those `wanted`."""
    found, wanted = [], wanted.copy()
    for row, cut, place in zip(rows, cuts, places, strict=True):
        key = cut if tied else (place, cut)
        if wanted[key] > 0:
            wanted[key] -= 1
            found.append((0 if tied else place, row))
    return found


def _cell_classes(values: Iterable[Hashable], comparison: Comparison) -> dict[Any, int]:
    """Number the values so that equal cells always share a number (the converse holds except for dense floats)."""
    distinct = set(values)
    numbers = sorted(value for value in distinct if isinstance(value, NUMBERS))
    joined = [False] * len(numbers)  # joined[i]: the numbers i and i + 1 share a class
    done = 0
    for number in numbers:
        if isinstance(number, INEXACT) and math.isfinite(number) and (reach := comparison.reach(number)):
            # Twice: the partner may be the larger one, and none may be missed by rounding.
            low, high = _around(number, 2 * reach)
            last = bisect_right(numbers, high) - 1
            for i in range(max(done, bisect_left(numbers, low)), last):
                joined[i] = True
            done = max(done, last)
    classes: dict[Any, int] = {}
    current = 0
    for i, number in enumerate(numbers):
        current += i > 0 and not joined[i - 1]
        classes[number] = current
    for value in distinct.difference(classes):
        current += 1
        classes[value] = current
    return classes


def _around(number: Any, reach: Any) -> tuple[Any, Any]:
    """The ends of a number's reach; of decimals exactly."""
    if isinstance(number, Decimal):
        return Fraction(number) - reach, Fraction(number) + reach
    return number - reach, number + reach


class _Search:
    """Find columns under which the rows pair up; most pairs of results need no search at all."""

    def __init__(
        self,
        gold: list[tuple[Any, ...]],
        predicted: list[tuple[Any, ...]],
        places: Sequence[int],
        comparison: Comparison,
    ) -> None:
        self.gold, self.predicted, self.comparison = gold, predicted, comparison
        self.width = len(gold[0])
        classes = _cell_classes((cell for rows in (gold, predicted) for row in rows for cell in row), comparison)
        self.gold_columns = [[classes[cell] for cell in column] for column in zip(*gold, strict=True)]
        self.predicted_columns = [[classes[cell] for cell in column] for column in zip(*predicted, strict=True)]
        self.places = list(places)
        self.budget = _SEARCH_BUDGET

    def run(self) -> bool:
        gold_rows = predicted_rows = self.places
        gold_signs, predicted_signs = self._column_signs(gold_rows, predicted_rows)
        if self.width == len(self.predicted_columns):
            # What a row or a column looks like whatever the permutation (colour refinement): rows and columns can only
            # be paired with their like, which leaves one candidate per column in nearly all real results.
            gold_rows, predicted_rows = _shared_numbers(
                self._row_signs(self.gold_columns, gold_signs), self._row_signs(self.predicted_columns, predicted_signs)
            )
            if Counter(gold_rows) != Counter(predicted_rows):
                return False
            gold_signs, predicted_signs = self._column_signs(gold_rows, predicted_rows)
        candidates = [[j for j, sign in enumerate(predicted_signs) if sign == wanted] for wanted in gold_signs]
        return self._assign(candidates, gold_rows, predicted_rows)

    def _column_signs(self, gold_rows: list[int], predicted_rows: list[int]) -> tuple[list[int], list[int]]:
        return _shared_numbers(
            [tuple(sorted(zip(gold_rows, column, strict=True))) for column in self.gold_columns],
            [tuple(sorted(zip(predicted_rows, column, strict=True))) for column in self.predicted_columns],
        )

    def _row_signs(self, columns: list[list[int]], signs: list[int]) -> list[Hashable]:
        rows = zip(*columns, strict=True)
        return [(place, *sorted(zip(signs, row, strict=True))) for place, row in zip(self.places, rows, strict=True)]

    def _assign(self, candidates: list[list[int]], gold_rows: list[int], predicted_rows: list[int]) -> bool:
        """Give each gold column a predicted one, fewest candidates first; the rows so far must match at each step."""
        permute = self.comparison.permute_columns
        order = sorted(range(self.width), key=lambda i: len(candidates[i]))
        contents = list(zip(*self.predicted, strict=True))
        stack: list[tuple[list[int], list[int], tuple[int, ...]]] = [(gold_rows, predicted_rows, ())]
        while stack:
            gold_rows, predicted_rows, chosen = stack.pop()
            if len(chosen) == self.width:
                if self._rows_pair_up(gold_rows, predicted_rows, dict(zip(order, chosen, strict=True))):
                    return True
                continue
            wanted = order[len(chosen)]
            tried = set()  # equal columns are interchangeable: one of them stands for all
            for j in candidates[wanted]:
                if j in chosen or (permute and contents[j] in tried):
                    continue
                if not permute and any((i < wanted) != (k < j) for i, k in zip(order, chosen, strict=False)):
                    continue
                tried.add(contents[j])
                self._spend(len(gold_rows))
                gold_next, predicted_next = _shared_numbers(
                    zip(gold_rows, self.gold_columns[wanted], strict=True),
                    zip(predicted_rows, self.predicted_columns[j], strict=True),
                )
                if Counter(gold_next) == Counter(predicted_next):
                    stack.append((gold_next, predicted_next, (*chosen, j)))
        return False

    def _rows_pair_up(self, gold_rows: list[int], predicted_rows: list[int], column_of: dict[int, int]) -> bool:
        """Pair the rows of each group exactly; only groups with dense floats are more than a formality."""
        groups: dict[int, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
        for group, row in zip(gold_rows, self.gold, strict=True):
            groups[group][0].append(row)
        for group, row in zip(predicted_rows, self.predicted, strict=True):
            groups[group][1].append(tuple(row[column_of[i]] for i in range(self.width)))
        for mine, theirs in groups.values():
            mine.sort()
            theirs.sort()
            same_row = self.comparison.same_row
            if all(map(same_row, mine, theirs)):
                continue
            if len(mine) ** 2 > _PAIRING_BUDGET:
                raise _too_hard(self)
            if not _perfect_matching([[j for j, b in enumerate(theirs) if same_row(a, b)] for a in mine]):
                return False
        return True

    def _spend(self, rows: int) -> None:
        self.budget -= rows
        if self.budget < 0:
            raise _too_hard(self)


def _too_hard(search: _Search) -> JudgingError:
    return JudgingError(
        f"comparing two results of {len(search.gold)} rows and {search.width} columns takes too long: too many rows or "
        "columns look alike. Select fewer columns or rows in the gold query."
    )


def _shared_numbers(gold: Iterable[Hashable], predicted: Iterable[Hashable]) -> tuple[list[int], list[int]]:
    """Replace keys by small numbers, the same key by the same number on both sides."""
    numbers: dict[Hashable, int] = {}
    mine = [numbers.setdefault(key, len(numbers)) for key in gold]
    return mine, [numbers.setdefault(key, len(numbers)) for key in predicted]


def _perfect_matching(candidates: list[list[int]]) -> bool:
    """Whether each left item can have a right item of its own, by augmenting paths (Berge 1957)."""
    left_of: dict[int, int] = {}
    right_of: dict[int, int] = {}
    for start in range(len(candidates)):
        reached_from: dict[int, int] = {}
        queue = [start]
        free: int | None = None
        for left in queue:  # grows while it is walked
            for right in candidates[left]:
                if right not in reached_from:
                    reached_from[right] = left
                    if right in left_of:
                        queue.append(left_of[right])
                    else:
                        free = right
                        break
            if free is not None:
                break
        if free is None:
            return False
        while free is not None:
            left = reached_from[free]
            previous = right_of.get(left)
            left_of[free], right_of[left] = left, free
            free = previous
    return True
