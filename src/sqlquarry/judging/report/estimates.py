"""The accuracy of one system, with its interval."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

from sqlquarry.errors import JudgingError
from sqlquarry.extras import require

_RESAMPLES = 2000
_BCA_LIMIT = 1000
_BATCH = 128  # resamples at a time: 128 × 10,000 records is 10 MB


class Estimate(NamedTuple):
    """Hold a share of correct answers with its 95 % interval.

    Args:
        value: correct / judged, 0 to 1; nan if nothing was judged (the interval is then 0 to 1).
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


def wilson_interval(correct: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a binomial share; (0, 1) for n = 0.

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
    z = normal_quantile(confidence)
    share = correct / n
    center = share + z * z / (2 * n)
    margin = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The formula gives 0 and 1 exactly at the ends; floats do not.
    low = 0.0 if correct == 0 else (center - margin) / scale
    high = 1.0 if correct == n else (center + margin) / scale
    return low, high


def estimate(correct: int, n: int, unjudged: int = 0) -> Estimate:
    """Return the estimate for `correct` of `n` judged records, with its Wilson interval."""
    return Estimate(correct / n if n else math.nan, *wilson_interval(correct, n), n, unjudged)


def clustered_estimate(correct: Sequence[bool], clusters: Sequence[Hashable], unjudged: int = 0) -> Estimate:
    """Return the estimate for records of which those of one cluster (questions on one database) depend on each other.

    The interval is `bootstrap_interval`'s. If all answers are right, or all wrong, resampling shows no spread; then it
    is Wilson's with clusters counted instead of records.

    Raises:
        JudgingError: there are fewer than two clusters, so their spread is unknown.
    """
    n, right = len(correct), sum(correct)
    if right in (0, n):
        count = len(set(clusters))
        return Estimate(right / n if n else math.nan, *wilson_interval(count if right else 0, count), n, unjudged)
    return Estimate(right / n, *bootstrap_interval([float(c) for c in correct], clusters), n, unjudged)


def bootstrap_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, *, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of the mean from 2,000 resamples of whole clusters; equal input gives the same interval.

    Args:
        values: one per record.
        clusters: what each record belongs to; None takes every record as independent.
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
        confidence_level=0.95,
        rng=seed,
    ).confidence_interval
    return float(found.low), float(found.high)


def normal_quantile(confidence: float) -> float:
    """Return the number of standard deviations that a two-sided interval reaches on either side."""
    return NormalDist().inv_cdf((1 + confidence) / 2)
