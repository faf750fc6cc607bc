"""Answers that are a choice among the gold's rows, and numbers beyond the range of floats."""

import math
import random
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlquarry.results.cells import STRICT, ComparisonOptions
from sqlquarry.results.comparison import choice_matches, results_equal

CELLS = [0, 1, 1.0, 1 + 9e-10, 1 + 2e-9, None, "1", b"1", Decimal("1.5"), 2**53 + 1, Decimal("1e400"), math.inf]


def by_trying_everything(candidates, places, predicted, comparison):
    """Apply the definition: some choice of the columns and some choice of the rows make all cells equal."""
    width = len(candidates[0][1])
    if len(predicted[0]) != width and not comparison.extra_columns:
        return False
    for columns in permutations(range(len(predicted[0])), width):
        if not comparison.permute_columns and list(columns) != sorted(columns):
            continue
        rows = comparison.normalized([[row[i] for i in columns] for row in predicted])
        gold = [(place, comparison.normalized([row])[0]) for place, row in candidates]
        for chosen in permutations(gold, len(rows)):
            if all(
                place == other and comparison.same_row(row, wanted)
                for (place, row), other, wanted in zip(chosen, places, rows, strict=True)
            ):
                return True
    return False


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_a_choice_of_rows_agrees_with_trying_everything(seed, permute, extra):
    rng = random.Random(seed)
    pool = rng.sample(CELLS, 4)
    width, count = rng.randint(1, 3), rng.randint(1, 5)
    rows = [tuple(rng.choice(pool) for _ in range(width)) for _ in range(count)]
    candidates = sorted(((rng.randint(0, 1), row) for row in rows), key=lambda pair: pair[0])
    kept = sorted(rng.sample(range(count), rng.randint(1, count)))
    columns = rng.sample(range(width), width)
    predicted = [tuple(candidates[i][1][c] for c in columns) for i in kept]
    if rng.random() < 0.3:
        predicted = [(*row, rng.choice(pool)) for row in predicted]
    if rng.random() < 0.5:
        predicted[0] = (rng.choice(pool), *predicted[0][1:])
    places = [candidates[i][0] for i in kept]
    comparison = ComparisonOptions(permute_columns=permute, extra_columns=extra)
    want = by_trying_everything(candidates, places, predicted, comparison)
    assert choice_matches(candidates, places, predicted, comparison) is want


def test_a_large_choice_in_other_columns_is_found_fast():
    candidates = [(0, (i, i % 7, i * 0.5, f"x{i}", None)) for i in range(20_000)]
    predicted = [(None, f"x{i}", i * 0.5 * (1 + 1e-12), i, i % 7) for i in range(0, 1_000, 2)]
    assert choice_matches(candidates, [0] * 500, predicted)
    assert not choice_matches(candidates, [0] * 500, [*predicted[:-1], (None, "x1", 0.5, 2, 1)])


@pytest.mark.parametrize("small", [1.5, Decimal("1.5"), Decimal("1e-400"), math.inf, -math.inf])
@pytest.mark.parametrize("large", [10**400, Decimal("1e400"), Decimal("1.5e400"), -(10**400)])
def test_numbers_beyond_all_floats_are_compared(small, large):
    assert not results_equal([(small,)], [(large,)], ordered=False)
    assert not results_equal([(large,)], [(small,)], ordered=False)
    assert results_equal([(large,), (small,)], [(small,), (large,)], ordered=False, comparison=STRICT)
