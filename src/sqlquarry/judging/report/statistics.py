"""Accuracies with error bars: one system, two systems on the same records, many slices at once."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

from sqlquarry.errors import JudgingError
from sqlquarry.extras import require

_RESAMPLES = 2000
_BCA_LIMIT = 1000
_PRECISION = 1e-4  # of a detectable difference: a hundredth of a point
_BATCH = 128  # resamples at a time: 128 × 10,000 records is 10 MB


class Estimate(NamedTuple):
    """A share of correct answers with its 95 % interval.

    Args:
        value: correct / judged, 0 to 1; nan where nothing was judged (the interval is then 0 to 1).
        low: lower end of the interval.
        high: upper end of the interval.
        n: records judged; unjudged ones are not among them.
        unjudged: records that could not be judged.
    """

    value: float
    low: float
    high: float
    n: int
    unjudged: int = 0

    def __str__(self) -> str:
        left_out = f", {self.unjudged} unjudged" if self.unjudged else ""
        if not self.n:
            return f"no verdict (0 judged{left_out})"
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}] (n={self.n}{left_out})"


class PairedComparison(NamedTuple):
    """Two systems on the same records: those on which both were judged.

    Args:
        before: the accuracy of the system that is compared with.
        after: the accuracy of the system in question.
        fixed: records wrong before and correct after.
        broken: records correct before and wrong after.
        difference: after − before, −1 to 1; nan where no record has two verdicts.
        low: lower end of the 95 % interval of the difference.
        high: upper end of it.
        p_value: of "both are equally accurate", by the exact McNemar test; it treats records as independent.
        detectable: the smallest true difference that this test would find with 80 % power on as many records.
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

    def __str__(self) -> str:
        if not self.before.n:
            return f"no record has two verdicts ({self.before.unjudged} unjudged)"
        return (
            f"{100 * self.difference:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}], "
            f"{self.fixed} fixed, {self.broken} broken, {p_text(self.p_value)} "
            f"(n={self.before.n}, detectable: {100 * self.detectable:.1f} points)"
        )


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a binomial share; (0, 1) for n = 0.

    Raises:
        JudgingError: not 0 <= correct <= n, or confidence not strictly between 0 and 1.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22:209-212.
    """
    if not 0 <= correct <= n or not 0 < confidence < 1:
        raise JudgingError(
            f"wilson_interval({correct}, {n}, {confidence}) needs 0 <= correct <= n and 0 < confidence < 1"
        )
    if n == 0:
        return 0.0, 1.0
    z = _z(confidence)
    share = correct / n
    center = share + z * z / (2 * n)
    margin = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The formula gives 0 and 1 exactly at the ends; floats do not.
    low = 0.0 if correct == 0 else (center - margin) / scale
    high = 1.0 if correct == n else (center + margin) / scale
    return low, high


def estimate(correct: int, n: int, unjudged: int = 0) -> Estimate:
    """The estimate for `correct` of `n` judged records, with its Wilson interval."""
    return Estimate(correct / n if n else math.nan, *wilson_interval(correct, n), n, unjudged)


def clustered_estimate(correct: Sequence[bool], clusters: Sequence[Hashable], unjudged: int = 0) -> Estimate:
    """The estimate where records of one cluster (questions on one database) stand or fall together.

    The interval is `bootstrap_interval`'s; where all answers are right, or all wrong, it is Wilson's with clusters
    counted instead of records, since resampling them shows no spread.

    Raises:
        JudgingError: there are fewer than two clusters, so their spread is unknown.
    """
    n, right = len(correct), sum(correct)
    if right in (0, n):
        count = len(set(clusters))
        return Estimate(right / n if n else math.nan, *wilson_interval(count if right else 0, count), n, unjudged)
    return Estimate(right / n, *bootstrap_interval([float(c) for c in correct], clusters), n, unjudged)


def bootstrap_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval of the mean from 2,000 resamples of whole clusters; the same input gives the same interval.

    Args:
        values: one per record.
        clusters: what each record belongs to; None takes every record as independent.
        confidence: of the interval.
        seed: of the resamples.

    Raises:
        JudgingError: there are fewer than two clusters, or not one cluster name per value.
        MissingExtraError: the extra `judge` is not installed.

    Source: BCa, Efron 1987, "Better bootstrap confidence intervals", JASA 82:171-185 (percentiles beyond 1,000);
    clusters as units, Field & Welsh 2007, "Bootstrapping clustered data", JRSS B 69:369-390.
    """
    require("judge", "the bootstrap")
    from scipy import stats

    names = range(len(values)) if clusters is None else clusters
    if len(names) != len(values) or len(set(names)) < 2:
        raise JudgingError(
            f"the bootstrap needs at least 2 clusters and one for each value, not {len(set(names))} clusters, "
            f"{len(names)} names and {len(values)} values. Use the Wilson interval, or another cluster key."
        )
    sums: dict[Hashable, float] = {}
    counts: dict[Hashable, int] = {}
    for name, value in zip(names, values, strict=True):
        sums[name] = sums.get(name, 0.0) + value
        counts[name] = counts.get(name, 0) + 1
    means = {sums[name] / counts[name] for name in sums}
    if len(means) == 1:  # every resample is the same
        return (mean := means.pop()), mean
    found = stats.bootstrap(
        (list(sums.values()), list(counts.values())),
        lambda total, count, axis: total.sum(axis=axis) / count.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        # BCa's correction shrinks with n while its jackknife grows with n²: it is for the small samples.
        method="BCa" if len(sums) <= _BCA_LIMIT else "percentile",
        confidence_level=confidence,
        rng=seed,
    ).confidence_interval
    return float(found.low), float(found.high)


def paired_comparison(
    before: Sequence[bool], after: Sequence[bool], clusters: Sequence[Hashable] | None = None, *, unjudged: int = 0
) -> PairedComparison:
    """Compare two systems on the same records, in the same order.

    The interval of the difference is the paired bootstrap's. Where no record changed (or all did, one way), resampling
    shows no spread; then it is that of Agresti & Min 2005, "Simple improved confidence intervals for comparing
    matched proportions", Statistics in Medicine 24:729-740, eq. for adding 1/2 to each of the four counts.

    Args:
        before: whether the system that is compared with was right, by record.
        after: whether the system in question was right, by record.
        clusters: what each record belongs to, for the interval; None takes every record as independent.
        unjudged: records left out because one of the systems has no verdict on them.
    """
    n = len(before)
    differences = [float(new) - float(old) for old, new in zip(before, after, strict=True)]
    fixed, broken = differences.count(1.0), differences.count(-1.0)
    units = range(n) if clusters is None else clusters
    low, high = bootstrap_interval(differences, clusters) if len(set(units)) > 1 else (0.0, 0.0)
    if low == high:
        low, high = _agresti_min(fixed, broken, n)
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
    """Two-sided p-value of "both systems are equally accurate", from the records on which only one of them is right.

    Source: McNemar 1947, Psychometrika 12:153-157, in its exact binomial form.
    """
    n = fixed + broken
    tail = sum(math.comb(n, k) for k in range(min(fixed, broken) + 1))
    return min(1.0, 2 * tail / (1 << n))


def detectable_difference(n: int, discordant: float, *, power: float = 0.8, confidence: float = 0.95) -> float:
    """The smallest true difference of two accuracies that the exact McNemar test finds with this power on `n` records.

    The number of records on which only one system is right is binomial, and of these the number that favour the better
    one is binomial, too (Connor 1987, "Sample size for testing differences in proportions for the paired-sample
    design", Biometrics 43:207-211, before its normal approximation). The power is summed over both, and the difference
    found by bisection; 1 if no difference is found that often.

    Args:
        n: records that both systems answer.
        discordant: share of records on which only one of them is right, 0 to 1; at least the difference itself.
        power: chance to find the difference.
        confidence: 1 − the level of the test.

    Raises:
        JudgingError: n is negative, or a share is not between 0 and 1.
        MissingExtraError: the extra `judge` is not installed.
    """
    if n < 0 or not 0 <= discordant <= 1 or not 0.5 <= power < 1 or not 0 < confidence < 1:
        raise JudgingError(f"detectable_difference({n}, {discordant}, {power=}, {confidence=}) is out of range")
    require("judge", "the detectable difference")
    low, high = 0.0, 1.0
    if _mcnemar_power(n, discordant, high, 1 - confidence) < power:
        return 1.0
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if _mcnemar_power(n, discordant, middle, 1 - confidence) < power:
            low = middle
        else:
            high = middle
    return high


def _mcnemar_power(n: int, discordant: float, difference: float, level: float) -> float:
    """The chance that the exact McNemar test finds a true difference."""
    import numpy as np
    from scipy import stats

    share = max(discordant, difference)
    # Nine in ten million draws lie between these.
    first, last = (int(count) for count in stats.binom.ppf((1e-7, 1 - 1e-7), n, share)) if n and share else (0, 0)
    changed = np.arange(max(first, 1), max(last, 0) + 1)
    if not changed.size:
        return 0.0
    # The largest smaller count for which twice the tail is at most the level.
    most = stats.binom.ppf(level / 2, changed, 0.5)
    most = np.where(2 * stats.binom.cdf(most, changed, 0.5) <= level, most, most - 1)
    favour = (1 + difference / share) / 2
    found = stats.binom.cdf(most, changed, favour) + stats.binom.cdf(most, changed, 1 - favour)
    return float((stats.binom.pmf(changed, n, share) * found).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value as it counts among so many tests, in the same order; keeps the chance of any false alarm.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6:65-70.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def p_text(p_value: float) -> str:
    """A p-value for readers: "p = 0.031", or "p < 0.001"."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _agresti_min(fixed: int, broken: int, n: int) -> tuple[float, float]:
    plus, minus, total = fixed + 0.5, broken + 0.5, n + 2
    center = (plus - minus) / total
    margin = _z(0.95) * math.sqrt(plus + minus - (plus - minus) ** 2 / total) / total
    return max(-1.0, center - margin), min(1.0, center + margin)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
