"""Measure the errors of a judge against a better grader on the same records, and correct its accuracy for them."""

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

# With fewer records the interval is useless, and its coverage is not certain (see the simulation in the tests).
MINIMUM_PER_CLASS = 3
_DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Calibration:
    """The errors of a judge, measured against a reference.

    Args:
        judge: the measured grader.
        reference: the grader whose verdicts count as the truth.
        n: number of records with a verdict of both.
        agreement: share of these records on which both verdicts are the same.
        kappa: agreement beyond chance, where 1 is perfect and 0 is chance (Cohen 1960).
        sensitivity: share of the truly correct answers that the judge calls correct.
        specificity: share of the truly wrong answers that the judge calls wrong.
        corrected: the accuracy on all records with a verdict of the judge, corrected for its errors. The interval
            takes into account that the errors are measured on only `n` records. If no correction is possible, the
            value is nan and the interval is 0 to 1.
        note: the reason why no correction is possible, or "".
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
            f"{self.kappa:.2f}, sensitivity {self.sensitivity}, specificity {self.specificity}, corrected accuracy: "
            f"{self.note or self.corrected}"
        )


def calibrate_verdicts(judge: str, reference: str, pairs: Iterable[tuple[Verdict, Verdict]]) -> Calibration | None:
    """Measure `judge` against `reference`.

    Return None if fewer than 3 truly correct or fewer than 3 truly wrong records have both verdicts. The judge is
    assumed to err equally often on records with both verdicts and on records with only its own.

    Args:
        judge: name of the measured grader.
        reference: name of the grader whose verdicts count as the truth.
        pairs: both verdicts on each record, first the judge's.

    Raises:
        JudgingError: both are the same grader.

    Sources: Cohen 1960, Educational and Psychological Measurement 20:37-46 (kappa). Rogan & Gladen 1978, American
    Journal of Epidemiology 107:71-76 (correction).
    """
    if judge == reference:
        raise JudgingError(f"{judge!r} cannot be calibrated against itself. Pass another grader as the reference.")
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
    """Numbers of records by both verdicts. "only" are records without a verdict of the reference."""

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
    """Return the corrected accuracy with its 95 % interval, and the reason if no correction is possible.

    Rogan and Gladen's estimate, (apparent + specificity - 1) / (sensitivity + specificity - 1), is linear in the
    apparent rate. So over all records it is the weighted mean of two values: the reference's accuracy on the records
    that it judged, and the corrected accuracy on the other records.
    """
    if not table.only:
        return estimate(table.truly_correct, table.both, unjudged), ""
    n = table.both + table.only
    sensitivity, specificity = table.true_positives / table.truly_correct, table.true_negatives / table.truly_wrong
    if sensitivity + specificity <= 1:
        note = (
            f"not possible, because sensitivity + specificity is {sensitivity + specificity:.2f} and the judge is not "
            "better than chance"
        )
        return Estimate(math.nan, 0.0, 1.0, n, unjudged), note
    apparent = (table.true_positives + table.false_positives + table.only_correct) / n
    value = min(1.0, max(0.0, (apparent + specificity - 1) / (sensitivity + specificity - 1)))
    low, high = _interval(table)
    return Estimate(value, min(low, value), max(high, value), n, unjudged), ""


def _interval(table: _Table) -> tuple[float, float]:
    """Return percentiles 2.5 and 97.5 of the corrected accuracy over draws of the four rates' Jeffreys posteriors.

    The posterior is Beta(k + 1/2, n - k + 1/2) (Brown, Cai & DasGupta 2001, Statistical Science 16:101-133). If the
    judge is not better than chance in a draw, its verdicts contain no information. The accuracy on the records that
    only it judged is then drawn uniformly from 0 to 1.
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
