"""Intervals and tests against scipy's."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sqlquarry.errors import JudgingError
from sqlquarry.judging import wilson_interval
from sqlquarry.judging.statistics import estimate, sign_test


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_wilson_interval_is_scipys(pair, confidence):
    correct, n = pair
    want = stats.binomtest(correct, n).proportion_ci(confidence, method="wilson")
    low, high = wilson_interval(correct, n, confidence)
    assert (low, high) == pytest.approx((want.low, want.high), abs=1e-9)
    assert 0 <= low <= correct / n <= high <= 1


def test_nothing_judged_says_nothing():
    nothing = estimate(0, 0, unjudged=3)
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high, nothing.n) == (0, 1, 0)
    assert str(nothing) == "no verdict (0 judged, 3 unjudged)"
    assert str(estimate(3, 4)) == "75.0% [30.1%, 95.4%] (n=4)"


@pytest.mark.parametrize("bad", [(2, 1, 0.95), (-1, 1, 0.95), (1, 1, 1.0)])
def test_impossible_counts_are_refused(bad):
    with pytest.raises(JudgingError, match="needs 0 <= correct <= n"):
        wilson_interval(*bad)


@given(st.integers(0, 200), st.integers(0, 200))
def test_sign_test_is_scipys(fixed, broken):
    want = stats.binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert sign_test(fixed, broken) == pytest.approx(want, abs=1e-9)
