"""Accuracies with error bars."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

from sqlquarry.errors import JudgingError


class Estimate(NamedTuple):
    """A share of correct answers with its 95 % interval.

    Args:
        value: correct / judged, 0 to 1; nan where nothing was judged (the interval is then 0 to 1).
        low: lower end of the Wilson interval.
        high: upper end of the Wilson interval.
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
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / n
    center = share + z * z / (2 * n)
    margin = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The formula gives 0 and 1 exactly at the ends; floats do not.
    low = 0.0 if correct == 0 else (center - margin) / scale
    high = 1.0 if correct == n else (center + margin) / scale
    return low, high


def estimate(correct: int, n: int, unjudged: int = 0) -> Estimate:
    """The estimate for `correct` of `n` judged records."""
    return Estimate(correct / n if n else math.nan, *wilson_interval(correct, n), n, unjudged)


def sign_test(fixed: int, broken: int) -> float:
    """Two-sided p-value of "both systems are equally accurate", from the records on which only one of them is right.

    Source: McNemar 1947, Psychometrika 12:153-157, in its exact binomial form.
    """
    n = fixed + broken
    tail = sum(math.comb(n, k) for k in range(min(fixed, broken) + 1))
    return min(1.0, 2 * tail / (1 << n))
