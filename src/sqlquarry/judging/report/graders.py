"""How the graders of one report relate: where they contradict each other, and how far a judge errs."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

from sqlquarry.judging.report.calibration import Calibration, calibrate_verdicts
from sqlquarry.judging.report.data import Report, ReportEntry


class Disagreement(NamedTuple):
    """Name an entry on which graders contradict each other.

    Args:
        place: of the entry in the report, from 0.
        entry: the entry.
        correct: the graders that call it correct.
        wrong: the graders that call it wrong.
    """

    place: int
    entry: ReportEntry
    correct: tuple[str, ...]
    wrong: tuple[str, ...]


class GraderAgreement(NamedTuple):
    """Compare two graders on the records on which both have a verdict.

    Args:
        first: a grader.
        second: another one.
        n: records on which both have a verdict.
        only_first: records that only the first calls correct.
        only_second: records that only the second calls correct.
    """

    first: str
    second: str
    n: int
    only_first: int
    only_second: int

    @property
    def share(self) -> float:
        """Return records with the same verdict / n."""
        return 1 - (self.only_first + self.only_second) / self.n


def calibrate(report: Report, judge: str, reference: str) -> Calibration | None:
    """Measure how far the grader `judge` errs by the verdicts of `reference` on the same records.

    Returns None if fewer than 3 right or 3 wrong records have both verdicts. The judge is assumed to err as often on
    the records that only it has a verdict on as on those that both have.

    Raises:
        JudgingError: the report has no such grader, or both are the same.
    """
    pairs = zip(report.verdicts_by(judge), report.verdicts_by(reference), strict=True)
    return calibrate_verdicts(judge, reference, pairs)


def find_disagreements(report: Report) -> list[Disagreement]:
    """Return the entries that one grader calls correct and another wrong."""
    found = []
    for i, entry in enumerate(report.entries):
        correct = tuple(judgement.grader for judgement in entry.judgements if judgement.verdict == "correct")
        wrong = tuple(judgement.grader for judgement in entry.judgements if judgement.verdict == "wrong")
        if correct and wrong:
            found.append(Disagreement(i, entry, correct, wrong))
    return found


def grader_agreements(report: Report) -> list[GraderAgreement]:
    """Compare every pair of graders that share records with verdicts."""
    found = []
    for first, second in combinations(report.graders, 2):
        pairs = list(zip(report.verdicts_by(first), report.verdicts_by(second), strict=True))
        if n := sum("unjudged" not in pair for pair in pairs):
            only_first, only_second = pairs.count(("correct", "wrong")), pairs.count(("wrong", "correct"))
            found.append(GraderAgreement(first, second, n, only_first, only_second))
    return found
