"""The difference of two systems on the same records, its interval, and tests against chance."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from sqlquarry.errors import JudgingError
from sqlquarry.extras import require
from sqlquarry.judging.report.estimates import (
    Estimate,
    bootstrap_interval,
    estimate,
    normal_quantile,
)

LEVEL = 0.05  # a smaller p-value is not attributed to chance
_POWER = 0.8
_PRECISION = 1e-4  # of a detectable difference, a hundredth of a point


class ScoreChange(NamedTuple):
    """The change of the mean score between two systems on the records on which both have a score.

    Args:
        before: the mean score of the system to compare with, 0 to 100, or nan if no record has two scores.
        after: the mean score of the system in question.
        low: lower end of the 95 % interval of the difference.
        high: upper end of this interval.
        n: number of records with two scores.
    """

    before: float
    after: float
    low: float
    high: float
    n: int

    @property
    def difference(self) -> float:
        """After − before, −100 to 100."""
        return self.after - self.before

    def __str__(self) -> str:
        return f"mean score {self.difference:+.2f} [{self.low:+.1f}, {self.high:+.1f}] (n={self.n})"


class PairedComparison(NamedTuple):
    """A comparison of two systems on the records on which both were judged.

    Args:
        before: the accuracy of the system to compare with.
        after: the accuracy of the system in question.
        fixed: number of records that were wrong before and are correct after.
        broken: number of records that were correct before and are wrong after.
        difference: after − before, −1 to 1, or nan if no record has two verdicts.
        low: lower end of the 95 % interval of the difference.
        high: upper end of this interval.
        p_value: p-value of "both are equally accurate" by the exact McNemar test, which treats records as independent.
        detectable: the smallest true difference that this test finds with 80 % power on this number of records.
        score: the change of the mean score, or None if no record has two scores.
    """

    before: Estimate
    after: Estimate
    fixed: int
    broken: int
    difference: float
    low: float
    high: float
    p_value: float
    detectable: float
    score: ScoreChange | None = None

    def __str__(self) -> str:
        if not self.before.n:
            return f"no record has two verdicts ({self.before.unjudged} unjudged)"
        return (
            f"{100 * self.difference:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}], "
            f"{self.fixed} fixed, {self.broken} broken, {p_text(self.p_value)} "
            f"(n={self.before.n}, detectable: {100 * self.detectable:.1f} points)"
            f"{f', {self.score}' if self.score else ''}"
        )


def score_change(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> ScoreChange:
    """Compare the scores of two systems on the same records, in the same order.

    The interval of the difference comes from the paired bootstrap, as in `paired_comparison`. If resampling shows no
    spread, the interval is that of Agresti and Min, with each gain and loss as a fraction of a fixed or broken record.
    It is not too short, because a gain of 0 or 100 has the largest variance among gains with the same mean.

    Args:
        before: scores of the system to compare with, 0 to 100, by record.
        after: scores of the system in question, by record.
        clusters: the cluster of each record, for the interval. None treats all records as independent.
    """
    n = len(before)
    differences = [(new - old) / 100 for old, new in zip(before, after, strict=True)]
    gained, lost = sum(d for d in differences if d > 0), -sum(d for d in differences if d < 0)
    low, high = _difference_interval(differences, gained, lost, clusters)
    means = (sum(before) / n, sum(after) / n) if n else (math.nan, math.nan)
    return ScoreChange(*means, 100 * low, 100 * high, n)


def paired_comparison(
    before: Sequence[bool], after: Sequence[bool], clusters: Sequence[Hashable] | None = None, *, unjudged: int = 0
) -> PairedComparison:
    """Compare two systems on the same records, in the same order.

    The interval of the difference comes from the paired bootstrap. If no record changed, or all changed in the same
    way, resampling shows no spread. The interval is then that of Agresti & Min 2005, "Simple improved confidence
    intervals for comparing matched proportions", Statistics in Medicine 24:729-740, which adds 1/2 to each of the four
    counts.

    Args:
        before: whether the system to compare with is right, by record.
        after: whether the system in question is right, by record.
        clusters: the cluster of each record, for the interval. None treats all records as independent.
        unjudged: number of records left out because one of the systems has no verdict on them.
    """
    n = len(before)
    differences = [float(new) - float(old) for old, new in zip(before, after, strict=True)]
    fixed, broken = differences.count(1.0), differences.count(-1.0)
    low, high = _difference_interval(differences, fixed, broken, clusters)
    return PairedComparison(
        estimate(sum(before), n, unjudged),
        estimate(sum(after), n, unjudged),
        fixed,
        broken,
        (fixed - broken) / n if n else math.nan,
        low,
        high,
        sign_test(fixed, broken),
        detectable_difference(n, (fixed + broken) / n if n else 0.0),
    )


def sign_test(fixed: int, broken: int) -> float:
    """Return the two-sided p-value of "both systems are equally accurate" from the records that only one has right.

    Source: McNemar 1947, Psychometrika 12:153-157, in its exact binomial form.
    """
    n = fixed + broken
    tail = sum(math.comb(n, k) for k in range(min(fixed, broken) + 1))
    return min(1.0, 2 * tail / (1 << n))


def detectable_difference(n: int, discordant: float) -> float:
    """Return the smallest true difference of two accuracies that the exact McNemar test finds with 80 % power.

    Return 1 if the test does not find any difference that often. The number of records on which only one system is
    right is binomial. Among these records, the number that favor the better system is binomial, too (Connor 1987,
    "Sample size for testing differences in proportions for the paired-sample design", Biometrics 43:207-211, before its
    normal approximation). The power is summed over both, and the difference is found by bisection.

    Args:
        n: number of records that both systems answer.
        discordant: share of records on which only one system is right, 0 to 1. If it is smaller than the difference,
            the difference is used.

    Raises:
        JudgingError: n is negative, or the share is not between 0 and 1.
        MissingExtraError: the extra `judge` is not installed.
    """
    if n < 0 or not 0 <= discordant <= 1:
        raise JudgingError(f"detectable_difference({n}, {discordant}) needs n >= 0 and 0 <= discordant <= 1")
    require("judge", "the detectable difference")
    low, high = 0.0, 1.0
    if _mcnemar_power(n, discordant, high) < _POWER:
        return 1.0
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if _mcnemar_power(n, discordant, middle) < _POWER:
            low = middle
        else:
            high = middle
    return high


def _mcnemar_power(n: int, discordant: float, difference: float) -> float:
    """Return the probability that the exact McNemar test finds a true difference."""
    import numpy as np
    from scipy import stats

    share = max(discordant, difference)
    # All but 2 in 10 million draws are between these.
    first, last = (int(count) for count in stats.binom.ppf((1e-7, 1 - 1e-7), n, share)) if n and share else (0, 0)
    changed = np.arange(max(first, 1), max(last, 0) + 1)
    if not changed.size:
        return 0.0
    # The largest count in the smaller tail for which twice the tail is at most the level.
    most = stats.binom.ppf(LEVEL / 2, changed, 0.5)
    most = np.where(2 * stats.binom.cdf(most, changed, 0.5) <= LEVEL, most, most - 1)
    favor = (1 + difference / share) / 2
    found = stats.binom.cdf(most, changed, favor) + stats.binom.cdf(most, changed, 1 - favor)
    return float((stats.binom.pmf(changed, n, share) * found).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return each p-value corrected for the number of tests, in the same order.

    The correction controls the probability of any false alarm.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6:65-70.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def p_text(p_value: float) -> str:
    """Return a p-value as text, such as "p = 0.031" or "p < 0.001"."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _difference_interval(
    differences: Sequence[float], fixed: float, broken: float, clusters: Sequence[Hashable] | None
) -> tuple[float, float]:
    """Return the interval of the mean of differences from −1 to 1. Gains add up to `fixed` and losses to `broken`."""
    units = range(len(differences)) if clusters is None else clusters
    low, high = bootstrap_interval(differences, clusters) if len(set(units)) > 1 else (0.0, 0.0)
    return _agresti_min(fixed, broken, len(differences)) if low == high else (low, high)


def _agresti_min(fixed: float, broken: float, n: int) -> tuple[float, float]:
    plus, minus, total = fixed + 0.5, broken + 0.5, n + 2
    center = (plus - minus) / total
    margin = normal_quantile(0.95) * math.sqrt(plus + minus - (plus - minus) ** 2 / total) / total
    return max(-1.0, center - margin), min(1.0, center + margin)
