"""Search for a pairing of the columns and rows of two results, if counting cannot decide."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction

from sqlquarry.errors import JudgingError
from sqlquarry.results.cells import INEXACT, NUMBERS, ComparisonOptions

_SEARCH_BUDGET = 20_000_000  # rows inspected while trying column orders, which takes a few seconds
_PAIRING_BUDGET = 4_000_000  # pairs of rows compared among rows that differ only within the tolerance


def _cell_classes(values: Iterable[object], comparison: ComparisonOptions) -> dict[object, int]:
    """Assign each value a class number.

    Equal cells always get the same number. Unequal cells may share one only if they are numbers close to each other.
    """
    distinct = set(values)
    numbers = sorted(value for value in distinct if isinstance(value, NUMBERS))
    joined = [False] * len(numbers)  # joined[i] is whether the numbers i and i + 1 share a class
    done = 0
    for number in numbers:
        if number in (math.inf, -math.inf):
            continue
        if isinstance(number, INEXACT) and (reach := comparison.tolerance_at(number)):
            # Twice the reach, because the partner may be the larger number and rounding must not exclude it.
            low, high = _around(number, 2 * reach)
            last = bisect_right(numbers, high) - 1
            for i in range(max(done, bisect_left(numbers, low)), last):
                joined[i] = True
            done = max(done, last)
    classes: dict[object, int] = {}
    current = 0
    for i, number in enumerate(numbers):
        current += i > 0 and not joined[i - 1]
        classes[number] = current
    for value in distinct.difference(classes):
        current += 1
        classes[value] = current
    return classes


def _around(number: float | Decimal, reach: float | Fraction) -> tuple[float | Fraction, float | Fraction]:
    """Return both ends of a number's reach, exactly for decimals."""
    if isinstance(number, Decimal):
        return Fraction(number) - reach, Fraction(number) + reach
    return number - reach, number + reach


class PairSearch:
    """A search for an order of the columns in which the rows can be paired. Most results need no search.

    If the gold has more rows than the prediction, each predicted row must be paired with a different one of them.
    """

    def __init__(
        self,
        gold: list[tuple[object, ...]],
        predicted: list[tuple[object, ...]],
        gold_places: Sequence[int],
        predicted_places: Sequence[int],
        comparison: ComparisonOptions,
    ) -> None:
        self.gold, self.predicted, self.comparison = gold, predicted, comparison
        self.width = len(gold[0])
        classes = _cell_classes((cell for rows in (gold, predicted) for row in rows for cell in row), comparison)
        self.gold_columns = [[classes[cell] for cell in column] for column in zip(*gold, strict=True)]
        self.predicted_columns = [[classes[cell] for cell in column] for column in zip(*predicted, strict=True)]
        self.places = list(gold_places), list(predicted_places)
        self.may_leave = len(gold) > len(predicted)
        self.budget = _SEARCH_BUDGET

    def run(self) -> bool:
        """Return whether such an order of the columns exists.

        Raises:
            JudgingError: the search takes too long.
        """
        gold_rows, predicted_rows = self.places
        if self.may_leave:
            values = [set(column) for column in self.predicted_columns]
            wholes = [set(column) for column in self.gold_columns]
            return self._assign(
                [[j for j, some in enumerate(values) if some <= whole] for whole in wholes], *self.places
            )
        gold_signs, predicted_signs = self._column_signs(gold_rows, predicted_rows)
        if self.width == len(self.predicted_columns):
            # Color refinement: the signs of rows and columns do not depend on the permutation, and only equal signs can
            # be paired. This leaves one candidate per column in nearly all real results.
            gold_rows, predicted_rows = _shared_numbers(
                self._row_signs(gold_rows, self.gold_columns, gold_signs),
                self._row_signs(predicted_rows, self.predicted_columns, predicted_signs),
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

    def _row_signs(self, places: list[int], columns: list[list[int]], signs: list[int]) -> list[Hashable]:
        rows = zip(*columns, strict=True)
        return [(place, *sorted(zip(signs, row, strict=True))) for place, row in zip(places, rows, strict=True)]

    def _assign(self, candidates: list[list[int]], gold_rows: list[int], predicted_rows: list[int]) -> bool:
        """Assign a predicted column to each gold column, fewest candidates first, while the rows still match."""
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
            tried = set()  # equal columns are interchangeable, so one of them is enough
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
                mine, theirs = Counter(gold_next), Counter(predicted_next)
                if mine == theirs or (self.may_leave and mine >= theirs):
                    stack.append((gold_next, predicted_next, (*chosen, j)))
        return False

    def _rows_pair_up(self, gold_rows: list[int], predicted_rows: list[int], column_of: dict[int, int]) -> bool:
        """Pair the rows of each group exactly. This is quick, except for groups of floats that are close together."""
        groups: dict[int, tuple[list[tuple[object, ...]], list[tuple[object, ...]]]] = defaultdict(lambda: ([], []))
        for group, row in zip(gold_rows, self.gold, strict=True):
            groups[group][0].append(row)
        for group, row in zip(predicted_rows, self.predicted, strict=True):
            groups[group][1].append(tuple(row[column_of[i]] for i in range(self.width)))
        same_row = self.comparison.same_row
        for mine, theirs in groups.values():
            if not self.may_leave:
                mine.sort()
                theirs.sort()
                if all(map(same_row, mine, theirs)):
                    continue
            elif Counter(mine) >= Counter(theirs):
                continue
            if len(mine) * len(theirs) > _PAIRING_BUDGET:
                raise _too_hard(self)
            if not perfect_matching([[i for i, a in enumerate(mine) if same_row(a, b)] for b in theirs]):
                return False
        return True

    def _spend(self, rows: int) -> None:
        self.budget -= rows
        if self.budget < 0:
            raise _too_hard(self)


def _too_hard(search: PairSearch) -> JudgingError:
    return JudgingError(
        f"comparing two results of {len(search.gold)} rows and {search.width} columns takes too long, because too many "
        "rows or columns are alike. Select fewer columns or rows in the gold query."
    )


def _shared_numbers(gold: Iterable[Hashable], predicted: Iterable[Hashable]) -> tuple[list[int], list[int]]:
    """Replace keys by small numbers. Equal keys get the same number on both sides."""
    numbers: dict[Hashable, int] = {}
    mine = [numbers.setdefault(key, len(numbers)) for key in gold]
    return mine, [numbers.setdefault(key, len(numbers)) for key in predicted]


def perfect_matching(candidates: list[list[int]]) -> bool:
    """Return whether each left item can have its own right item, by augmenting paths (Berge 1957)."""
    left_of: dict[int, int] = {}
    right_of: dict[int, int] = {}
    for start in range(len(candidates)):
        reached_from: dict[int, int] = {}
        queue = [start]
        free: int | None = None
        for left in queue:  # grows during the loop
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
