"""Comparison of large results: bounded work and exact pairing."""

import random

import pytest

from sqlquarry.results.comparison import results_equal, rows_match


def permuted(rows, order):
    return [tuple(row[i] for i in order) for row in rows]


@pytest.mark.parametrize("shape", ["identical", "shuffled", "binary"])
def test_twenty_columns_that_look_alike_take_bounded_work(shape, monkeypatch):
    # The budget counts the rows that the search inspects, which does not depend on the speed of the machine. A search
    # that needs more raises JudgingError. The least is once for each row and column.
    monkeypatch.setattr("sqlquarry.results.pairing._SEARCH_BUDGET", 2 * 20 * 500)
    choose = random.Random(0)
    if shape == "identical":
        rows = [(i % 7,) * 20 for i in range(500)]
    elif shape == "shuffled":  # every column has the same values in its own order
        columns = [choose.sample(range(500), 500) for _ in range(20)]
        rows = list(zip(*columns, strict=True))
    else:
        rows = [tuple(choose.randint(0, 1) for _ in range(20)) for _ in range(500)]
    order = choose.sample(range(20), 20)
    predicted = permuted(choose.sample(rows, len(rows)), order)
    assert results_equal(rows, predicted, ordered=False)
    if shape != "identical":
        row = list(predicted[0])
        row[0], row[1] = row[1] + 1, row[0]
        assert not results_equal(rows, [tuple(row), *predicted[1:]], ordered=False)


@pytest.mark.parametrize("places", [[0] * 2_000, [i // 2 for i in range(2_000)]])
def test_large_results_with_noise_are_paired_exactly(places):
    choose = random.Random(0)
    rows = [(i, choose.random() * 10 ** choose.randint(-6, 9), i / 7, f"n{i % 9}") for i in range(2_000)]
    noisy = [tuple(c * (1 + choose.uniform(-3, 3) * 1e-10) if isinstance(c, float) else c for c in row) for row in rows]
    swapped = [row for i in range(0, 2_000, 2) for row in (noisy[i + 1], noisy[i])]
    assert rows_match(rows, swapped, places)
    wrong = list(swapped[7])
    wrong[1] *= 1 + 1e-8
    assert not rows_match(rows, [*swapped[:7], tuple(wrong), *swapped[8:]], places)


def test_equal_columns_are_tried_once(monkeypatch):
    # The values are close enough for the search, but too far apart to be equal. So all orders of the columns fail.
    monkeypatch.setattr("sqlquarry.results.pairing._SEARCH_BUDGET", 2 * 20 * 2)
    assert not results_equal([(0.5,) * 20] * 2, [(0.5 + 8e-10,) * 20] * 2, ordered=False)
