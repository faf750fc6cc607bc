"""Compare the graders of one report: contradictions, agreement and calibration."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

from sqlquarry.judging.report.calibration import Calibration, calibrate_verdicts
from sqlquarry.judging.report.data import Report, ReportEntry


class Disagreement(NamedTuple):
    """An entry on which graders contradict each other.

    Args:
        place: position of the entry in the report, from 0.
        entry: the entry.
        correct: the graders that call it correct.
        wrong: the graders that call it wrong.
    """

    place: int
    entry: ReportEntry
    correct: tuple[str, ...]
    wrong: tuple[str, ...]


class GraderAgreement(NamedTuple):
    """The agreement of two graders on the records on which both have a verdict.

    Args:
        first: the name of a grader.
        second: the name of another grader.
        n: number of records with a verdict of both.
        only_first: number of records that only the first calls correct.
        only_second: number of records that only the second calls correct.
    """

    first: str
    second: str
    n: int
    only_first: int
    only_second: int

    @property
    def share(self) -> float:
        """Share of the n records on which both verdicts are the same."""
        return 1 - (self.only_first + self.only_second) / self.n


def calibrate(report: Report, judge: str, reference: str) -> Calibration | None:
    """Measure the errors of the grader `judge` by the verdicts of `reference` on the same records.

    Return None if fewer than 3 truly correct or fewer than 3 truly wrong records have both verdicts. The judge is
    assumed to err equally often on records with both verdicts and on records with only its own.

    Raises:
        JudgingError: the report has no such grader, or both are the same.
    """
    pairs = zip(report.verdicts_by(judge), report.verdicts_by(reference), strict=True)
    return calibrate_verdicts(judge, reference, pairs)


def find_disagreements(report: Report) -> list[Disagreement]:
    """Return the entries that one grader calls correct and another calls wrong."""
    found = []
    for i, entry in enumerate(report.entries):
        correct = tuple(judgement.grader for judgement in entry.judgements if judgement.verdict == "correct")
        wrong = tuple(judgement.grader for judgement in entry.judgements if judgement.verdict == "wrong")
        if correct and wrong:
            found.append(Disagreement(i, entry, correct, wrong))
    return found


def grader_agreements(report: Report) -> list[GraderAgreement]:
    """Compare all pairs of graders that have verdicts on the same records."""
    found = []
    for first, second in combinations(report.graders, 2):
        pairs = list(zip(report.verdicts_by(first), report.verdicts_by(second), strict=True))
        if n := sum("unjudged" not in pair for pair in pairs):
            only_first, only_second = pairs.count(("correct", "wrong")), pairs.count(("wrong", "correct"))
            found.append(GraderAgreement(first, second, n, only_first, only_second))
    return found
