"""Are two query results the same? The one definition that every number in a report rests on."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlquarry.errors import ConfigError, JudgingError

_LARGEST_WHOLE_FLOAT = 2**53  # from here on every float is a whole number, so wholeness says nothing
_SEARCH_BUDGET = 20_000_000  # rows looked at while trying column orders: a few seconds
_PAIRING_BUDGET = 4_000_000  # pairs of rows compared among rows that differ within the tolerance only
_NAN = object()

Row = Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What may differ between two results that count as the same; by default only the order of the columns.

    Args:
        permute_columns: the predicted columns may come in another order, the same for all rows.
        extra_columns: the prediction may have columns besides the gold's; its rows must still be as many.
        relative_tolerance: of numbers that are not both whole, as a share of the larger one; below 0.5.
        absolute_tolerance: of numbers that are not both whole.
        ignore_case: text is compared without upper and lower case (Unicode case folding).
        ignore_space: text is compared without outer white space, and with one blank for each run within.

    Raises:
        ConfigError: a tolerance is out of range; all bad ones are named.
    """

    permute_columns: bool = True
    extra_columns: bool = False
    relative_tolerance: float = 1e-6
    absolute_tolerance: float = 1e-6
    ignore_case: bool = False
    ignore_space: bool = False

    def __post_init__(self) -> None:
        bounds = {"relative_tolerance": 0.5, "absolute_tolerance": math.inf}
        if bad := [
            f"{name} is {getattr(self, name)!r}" for name, top in bounds.items() if not 0 <= getattr(self, name) < top
        ]:
            raise ConfigError(
                f"tolerances must be at least 0 and finite, the relative one below 0.5, but {', '.join(bad)}"
            )

    def same_cell(self, a: Any, b: Any) -> bool:
        """Whether two normalised cells are equal."""
        if a == b:
            return True
        if not (isinstance(a, float) or isinstance(b, float)):
            return False
        numbers = isinstance(a, int | float) and isinstance(b, int | float)
        return numbers and math.isclose(a, b, rel_tol=self.relative_tolerance, abs_tol=self.absolute_tolerance)

    def same_row(self, a: Row, b: Row) -> bool:
        """Whether two normalised rows are equal, cell by cell."""
        return all(map(self.same_cell, a, b))

    def normalised(self, rows: Iterable[Row]) -> list[tuple[Any, ...]]:
        """The rows with one representative for each value and for all text that counts as the same."""
        plain = [tuple(map(_normalised, row)) for row in rows]
        if not (self.ignore_case or self.ignore_space):
            return plain
        return [tuple(self._text(cell) if isinstance(cell, str) else cell for cell in row) for row in plain]

    def _text(self, text: str) -> str:
        text = " ".join(text.split()) if self.ignore_space else text
        return text.casefold() if self.ignore_case else text


STRICT = Comparison()


def results_equal(
    gold_rows: Sequence[Row], predicted_rows: Sequence[Row], *, ordered: bool, comparison: Comparison = STRICT
) -> bool:
    """Say whether two results hold the same rows.

    They do if one permutation of the columns, the same for all rows, and a one-to-one pairing of the rows exist such
    that all paired cells are equal; with `ordered`, row i must be paired with row i. Duplicates therefore count.

    Cells are equal if they have the same type and value. Numbers are one type (`True` is 1, `1.0` is 1): two whole
    numbers must be the same, because they are counts and keys; otherwise ``|a - b| <= 1e-6 * max(1, |a|, |b|)``.
    NULL equals only NULL, NaN only NaN; text, bytes and numbers never equal each other. Empty results are equal.

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
    gold_rows: Sequence[Row], predicted_rows: Sequence[Row], places: Sequence[int], comparison: Comparison = STRICT
) -> bool:
    """`results_equal`, with the order given as the place of each row; rows that tie have the same place.

    Args:
        gold_rows: rows x columns.
        predicted_rows: rows x columns.
        places: one number per row: rows with the same number may be exchanged, others not.
        comparison: what else may differ.

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
    gold, predicted = comparison.normalised(gold_rows), comparison.normalised(predicted_rows)
    return gold == predicted or _Search(gold, predicted, places, comparison).run()


def _normalised(value: Any) -> Any:
    """One representative for values that are the same number: whole numbers as int, every NaN as one object."""
    if value is None or type(value) in (int, str):  # nearly all cells
        return value
    if isinstance(value, Decimal):  # as int where it is whole: float would make long keys equal
        value = int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        if math.isnan(value):
            return _NAN
        return int(value) if value.is_integer() and abs(value) <= _LARGEST_WHOLE_FLOAT else value
    if isinstance(value, bool):
        return int(value)
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def _cell_classes(values: Iterable[Hashable], comparison: Comparison) -> dict[Any, int]:
    """Number the values so that equal cells always share a number (the converse holds except for dense floats)."""
    distinct = set(values)
    numbers = sorted(value for value in distinct if isinstance(value, int | float))
    joined = [False] * len(numbers)  # joined[i]: the numbers i and i + 1 share a class
    done = 0
    for number in numbers:
        if isinstance(number, float) and math.isfinite(number):
            # Twice: the partner may be the larger one, and none may be missed by rounding.
            reach = 2 * max(comparison.relative_tolerance * abs(number), comparison.absolute_tolerance)
            last = bisect_right(numbers, number + reach) - 1
            for i in range(max(done, bisect_left(numbers, number - reach)), last):
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
