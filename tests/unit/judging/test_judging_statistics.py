"""Intervals and tests, compared with scipy and with simulations."""

import functools
import math
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sqlquarry.errors import JudgingError
from sqlquarry.judging import wilson_interval
from sqlquarry.judging.report.estimates import bootstrap_interval, clustered_estimate, estimate
from sqlquarry.judging.report.significance import (
    detectable_difference,
    holm,
    p_text,
    paired_comparison,
    sign_test,
)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_wilson_interval_is_scipys(pair, confidence):
    correct, n = pair
    want = stats.binomtest(correct, n).proportion_ci(confidence, method="wilson")
    low, high = wilson_interval(correct, n, confidence=confidence)
    assert (low, high) == pytest.approx((want.low, want.high), abs=1e-9)
    assert 0 <= low <= correct / n <= high <= 1


def test_an_estimate_without_judged_records():
    nothing = estimate(0, 0, unjudged=3)
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high, nothing.n) == (0, 1, 0)
    assert re.findall(r"\w+", str(nothing))[2:] == ["0", "judged", "3", "unjudged"]
    assert str(estimate(3, 4)) == "75.0% [30.1%, 95.4%] (n=4)"


@pytest.mark.parametrize("bad", [(2, 1, 0.95), (-1, 1, 0.95), (1, 1, 1.0)])
def test_impossible_counts_are_refused(bad):
    correct, n, confidence = bad
    with pytest.raises(JudgingError, match=re.escape(f"({correct}, {n}, {confidence})")):
        wilson_interval(correct, n, confidence=confidence)


@given(st.integers(0, 200), st.integers(0, 200))
def test_sign_test_is_scipys(fixed, broken):
    want = stats.binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert sign_test(fixed, broken) == pytest.approx(want, abs=1e-9)


def test_bootstrap_interval_covers_the_truth():
    draw = random.Random(1)
    hits = 0
    for _ in range(150):
        low, high = bootstrap_interval([float(draw.random() < 0.7) for _ in range(60)])
        hits += low <= 0.7 <= high
    assert 0.90 <= hits / 150 <= 0.99


def test_only_the_clustered_interval_covers_the_truth_if_records_depend_on_their_cluster():
    draw = random.Random(2)
    hits = {"clustered": 0, "independent": 0}
    for _ in range(100):
        values, clusters = [], []
        for cluster in range(30):
            share = draw.betavariate(1.4, 0.6)  # mean 0.7, and databases differ much
            values += [float(draw.random() < share) for _ in range(8)]
            clusters += [cluster] * 8
        for name, names in (("clustered", clusters), ("independent", None)):
            low, high = bootstrap_interval(values, names)
            hits[name] += low <= 0.7 <= high
    assert hits["clustered"] >= 88
    assert hits["independent"] <= 80


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=3, max_size=40), st.integers(2, 4))
@settings(max_examples=15)
def test_copies_of_a_record_in_its_own_cluster_add_nothing(values, copies):
    clusters = [i for i in range(len(values)) for _ in range(copies)]
    want = bootstrap_interval(values)
    assert bootstrap_interval([values[i] for i in clusters], clusters) == pytest.approx(want)
    assert want[0] <= sum(values) / len(values) <= want[1]
    assert bootstrap_interval(values) == want, "the same input gives the same interval"


def test_the_bootstrap_refuses_a_single_cluster_and_missing_names():
    with pytest.raises(JudgingError, match=r"\b1 clusters, 2 names and 2 values\b"):
        bootstrap_interval([1.0, 0.0], ["a", "a"])
    with pytest.raises(JudgingError, match=r"\b2 clusters, 2 names and 3 values\b"):
        bootstrap_interval([1.0, 0.0, 1.0], ["a", "b"])


def test_a_clustered_estimate_of_right_answers_only_counts_clusters():
    share = clustered_estimate([True] * 100, ["a"] * 50 + ["b"] * 50, 3)
    assert (share.value, share.n, share.unjudged) == (1, 100, 3)
    assert (share.low, share.high) == wilson_interval(2, 2)
    assert math.isnan(clustered_estimate([], []).value)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
@settings(max_examples=20)
def test_a_comparison_backwards_is_its_mirror_image(pairs):
    before, after = zip(*pairs, strict=True)
    forth, back = paired_comparison(before, after), paired_comparison(after, before)
    assert forth.difference == pytest.approx(-back.difference)
    assert (forth.fixed, forth.broken, forth.p_value) == (back.broken, back.fixed, back.p_value)
    assert forth.difference == pytest.approx(forth.after.value - forth.before.value)
    assert forth.low <= forth.difference <= forth.high
    assert forth.low < forth.high, "no sample gives certainty"


def test_the_interval_of_a_difference_covers_the_truth():
    draw = random.Random(3)
    hits = 0
    for _ in range(120):  # one in six broken, one in three fixed
        signs = [draw.choice("-++   ") for _ in range(80)]
        found = paired_comparison([sign != "+" for sign in signs], [sign != "-" for sign in signs])
        hits += found.low <= 1 / 6 <= found.high
    assert 0.90 <= hits / 120 <= 0.99


def test_comparisons_without_changes_or_records_still_have_an_interval():
    same = paired_comparison([True] * 50, [True] * 50)
    assert (same.difference, same.p_value) == (0, 1)
    assert same.low == pytest.approx(-same.high)
    assert 0.02 < same.high < 0.1
    nothing = paired_comparison([], [], unjudged=3)
    assert math.isnan(nothing.difference)
    assert re.findall(r"\d+ \w+", str(nothing)) == ["3 unjudged"]
    assert "+10.0 " in str(paired_comparison([False] * 2 + [True] * 18, [True] * 20))


@pytest.mark.parametrize(("n", "discordant"), [(40, 0.5), (200, 0.3), (629, 0.12), (600, 0.2), (2000, 0.1)])
def test_the_detectable_difference_is_found_four_times_in_five(n, discordant):
    difference = detectable_difference(n, discordant)
    draw = np.random.default_rng(0)
    both = (1 - max(discordant, difference)) / 2
    better, worse = (max(discordant, difference) + difference) / 2, (max(discordant, difference) - difference) / 2
    p_value = functools.cache(sign_test)
    counts = draw.multinomial(n, [better, worse, both, both], size=20_000).tolist()
    found = sum(p_value(fixed, broken) <= 0.05 for fixed, broken, *_ in counts) / len(counts)
    assert 0.79 < found < 0.825, "the exact test has steps, so the power may be a little more than 0.8"


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3_000), st.floats(0, 1))
def test_more_records_detect_less(n, discordant):
    difference = detectable_difference(n, discordant)
    assert 0 < difference <= 1
    assert detectable_difference(4 * n, discordant) <= difference + 2e-4
    if n >= 200 and 0.1 <= discordant <= 0.9:  # Connor's normal approximation is close and a little too optimistic
        needed = (1.959964 * discordant**0.5 + 0.841621 * (discordant - difference**2) ** 0.5) ** 2 / difference**2
        assert 0.75 * n < needed < 1.02 * n


def test_detectable_difference_refuses_impossible_shares():
    assert detectable_difference(0, 0) == 1
    with pytest.raises(JudgingError, match=r"\(10, 1\.2\)"):
        detectable_difference(10, 1.2)


def test_holm_on_an_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_between_no_correction_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1, len(p_values) * p)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_p_values_as_text():
    assert (p_text(0.0004), p_text(0.0312)) == ("p < 0.001", "p = 0.031")
