"""How far a judge errs, measured against a better grader on the same records, and the accuracy corrected for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlquarry.answers import Verdict
from sqlquarry.errors import JudgingError
from sqlquarry.extras import require
from sqlquarry.judging.report.estimates import Estimate, estimate
from sqlquarry.text import visible

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

# With fewer, the interval would say nothing, and its coverage could not be promised (see the tests' simulation).
MINIMUM_PER_CLASS = 3
_DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measure a judge against a reference.

    Args:
        judge: the grader that is measured.
        reference: the grader that is taken as the truth.
        n: records on which both gave a verdict.
        agreement: share of them with the same verdict.
        kappa: agreement beyond chance: 1 is perfect, 0 is chance (Cohen 1960).
        sensitivity: share of the truly correct that the judge calls correct.
        specificity: share of the truly wrong that the judge calls wrong.
        corrected: the accuracy on all records that the judge has a verdict on, corrected for its errors; the interval
            includes that the errors are measured on `n` records only. nan, 0 to 1 if no correction is possible.
        note: why no correction is possible; "" if it is.
    """

    judge: str
    reference: str
    n: int
    agreement: float
    kappa: float
    sensitivity: Estimate
    specificity: Estimate
    corrected: Estimate
    note: str = ""

    def __str__(self) -> str:
        return visible(
            f"{self.judge} against {self.reference} on {self.n} records: agreement {self.agreement:.1%}, kappa "
            f"{self.kappa:.2f}, sensitivity {self.sensitivity}, specificity {self.specificity}; corrected accuracy: "
            f"{self.note or self.corrected}"
        )


def calibrate_verdicts(judge: str, reference: str, pairs: Iterable[tuple[Verdict, Verdict]]) -> Calibration | None:
    """Measure `judge` against `reference`; None if fewer than 3 records of either class have both verdicts.

    The judge is assumed to err as often on the records that only it has a verdict on as on those that both have.

    Args:
        judge: name of the grader that is measured.
        reference: name of the grader that is taken as the truth.
        pairs: the verdicts of both on each record, the judge's first.

    Raises:
        JudgingError: both are the same grader.

    Sources: kappa: Cohen 1960, Educational and Psychological Measurement 20:37-46; correction: Rogan & Gladen 1978,
    American Journal of Epidemiology 107:71-76.
    """
    if judge == reference:
        raise JudgingError(f"{judge!r} cannot be calibrated against itself. Name another grader as the reference.")
    counts = Counter(pairs)
    table = _Table(
        counts["correct", "correct"],
        counts["wrong", "correct"],
        counts["correct", "wrong"],
        counts["wrong", "wrong"],
        counts["correct", "unjudged"],
        counts["wrong", "unjudged"],
    )
    if min(table.truly_correct, table.truly_wrong) < MINIMUM_PER_CLASS:
        return None
    unjudged = sum(count for (verdict, _), count in counts.items() if verdict == "unjudged")
    corrected, note = _corrected(table, unjudged)
    agreement = (table.true_positives + table.true_negatives) / table.both
    chance = table.chance_agreement
    return Calibration(
        judge,
        reference,
        table.both,
        agreement,
        (agreement - chance) / (1 - chance),
        estimate(table.true_positives, table.truly_correct),
        estimate(table.true_negatives, table.truly_wrong),
        corrected,
        note,
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """Count records by the judge's verdict and the reference's; "only" are those that the reference left out."""

    true_positives: int
    false_negatives: int
    false_positives: int
    true_negatives: int
    only_correct: int = 0
    only_wrong: int = 0

    @property
    def truly_correct(self) -> int:
        return self.true_positives + self.false_negatives

    @property
    def truly_wrong(self) -> int:
        return self.false_positives + self.true_negatives

    @property
    def both(self) -> int:
        return self.truly_correct + self.truly_wrong

    @property
    def only(self) -> int:
        return self.only_correct + self.only_wrong

    @property
    def chance_agreement(self) -> float:
        called_correct = (self.true_positives + self.false_positives) / self.both
        truly_correct = self.truly_correct / self.both
        return called_correct * truly_correct + (1 - called_correct) * (1 - truly_correct)


def _corrected(table: _Table, unjudged: int = 0) -> tuple[Estimate, str]:
    """Return the corrected accuracy with its 95 % interval, or why there is none.

    Rogan and Gladen's estimate, (apparent + specificity - 1) / (sensitivity + specificity - 1), is linear in the
    apparent rate. So over all records it equals the reference's own accuracy on the records that it judged and the
    correction on those that only the judge did, weighted by their numbers.
    """
    if not table.only:
        return estimate(table.truly_correct, table.both, unjudged), ""
    n = table.both + table.only
    sensitivity, specificity = table.true_positives / table.truly_correct, table.true_negatives / table.truly_wrong
    if sensitivity + specificity <= 1:
        note = (
            f"not possible: sensitivity + specificity is {sensitivity + specificity:.2f}, so the judge is no better "
            "than chance"
        )
        return Estimate(math.nan, 0.0, 1.0, n, unjudged), note
    apparent = (table.true_positives + table.false_positives + table.only_correct) / n
    value = min(1.0, max(0.0, (apparent + specificity - 1) / (sensitivity + specificity - 1)))
    low, high = _interval(table)
    return Estimate(value, min(low, value), max(high, value), n, unjudged), ""


def _interval(table: _Table) -> tuple[float, float]:
    """Return percentiles 2.5 and 97.5 of the corrected accuracy over draws of the four rates' Jeffreys posteriors.

    Beta(k + 1/2, n - k + 1/2): Brown, Cai & DasGupta 2001, Statistical Science 16:101-133. A draw in which the judge
    is no better than chance says nothing of the records that only it saw, so all shares from 0 to 1 count alike.
    """
    require("judge", "calibrate")
    from numpy import clip, quantile, random, where

    draw = random.default_rng(0)

    def rate(hits: int, misses: int) -> NDArray[float64]:
        return draw.beta(hits + 0.5, misses + 0.5, _DRAWS)

    known = rate(table.truly_correct, table.truly_wrong)
    sensitivity = rate(table.true_positives, table.false_negatives)
    specificity = rate(table.true_negatives, table.false_positives)
    apparent = rate(table.only_correct, table.only_wrong)
    power = sensitivity + specificity - 1
    rest = where(power > 0, (apparent + specificity - 1) / where(power > 0, power, 1), draw.uniform(size=_DRAWS))
    shares = (table.both * known + table.only * clip(rest, 0, 1)) / (table.both + table.only)
    low, high = quantile(shares, (0.025, 0.975))
    return float(low), float(high)
