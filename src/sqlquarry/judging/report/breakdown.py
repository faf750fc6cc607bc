"""Accuracy and mean score by slice, and number of mistakes by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from sqlquarry.judging.mistakes import mistake
from sqlquarry.judging.report.data import Report
from sqlquarry.judging.report.estimates import Estimate, MeanScore, estimate, mean_score
from sqlquarry.records import Record
from sqlquarry.sql.features import features

SliceKeys = Mapping[str, Callable[[Record], str]]  # slice name -> the bucket that a record belongs to

_Measure = TypeVar("_Measure")
_MOST_DATABASES = 24
_WORDS_IN_ORDER = ("none", "no", "easy", "medium", "hard", "extra", "extra hard", "yes")


def slices(
    report: Report, *, by: SliceKeys | Literal["auto"] = "auto", grader: str | None = None
) -> dict[str, dict[str, Estimate]]:
    """Return the accuracy by slice name and bucket, for example ``["joins"]["2"]``.

    Args:
        report: the system's report.
        by: slice name -> function that returns the bucket of a record. "auto" uses `sql.features` of the gold
            SQL, and the database unless there are more than 24.
        grader: the grader whose verdicts count. The default is the report's first grader.

    Raises:
        JudgingError: the report has no such grader.
    """
    verdicts = report.verdicts_by(grader)

    def accuracy(places: Sequence[int]) -> Estimate:
        counts = Counter(verdicts[i] for i in places)
        return estimate(counts["correct"], counts["correct"] + counts["wrong"], counts["unjudged"])

    return _by_bucket(report, by, accuracy)


def score_slices(
    report: Report, *, by: SliceKeys | Literal["auto"] = "auto", grader: str | None = None
) -> dict[str, dict[str, MeanScore]]:
    """Return the mean score by slice name and bucket. Buckets without a score are left out.

    Args:
        report: the system's report.
        by: as in `slices`.
        grader: the grader whose scores count. The default is the report's first grader.

    Raises:
        JudgingError: the report has no such grader.
    """
    scores = report.scores_by(grader)

    def mean(places: Sequence[int]) -> MeanScore | None:
        scored = [score for score in map(scores.__getitem__, places) if score is not None]
        return mean_score(scored) if scored else None

    return _by_bucket(report, by, mean)


def _by_bucket(
    report: Report, by: SliceKeys | Literal["auto"], measure: Callable[[Sequence[int]], _Measure | None]
) -> dict[str, dict[str, _Measure]]:
    """Return slice name -> bucket -> measure of its records' positions. Leave out buckets without a measure."""
    found: dict[str, dict[str, _Measure]] = {}
    for name, buckets in slice_places(report, by).items():
        for bucket, places in buckets.items():
            if (measured := measure(places)) is not None:
                found.setdefault(name, {})[bucket] = measured
    return found


def count_mistakes(report: Report, *, grader: str | None = None) -> dict[str, int]:
    """Count the records of each error class (`judging.mistakes`), most frequent first. Correct answers have no class.

    Args:
        report: the system's report.
        grader: the grader whose judgements count. The default is the report's first grader.

    Raises:
        JudgingError: the report has no such grader.
    """
    counts = Counter(filter(None, mistake_classes(report, grader)))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def slice_places(report: Report, by: SliceKeys | Literal["auto"]) -> dict[str, dict[str, list[int]]]:
    """Return slice name -> bucket -> positions of its records, with the buckets in a natural order."""
    found: dict[str, dict[str, list[int]]] = {}
    for i, entry in enumerate(report.entries):
        labels = _own_slices(entry.record) if by == "auto" else {name: key(entry.record) for name, key in by.items()}
        for name, bucket in labels.items():
            found.setdefault(name, {}).setdefault(bucket, []).append(i)
    if by == "auto" and len(found.get("database", ())) > _MOST_DATABASES:
        del found["database"]
    return {name: dict(sorted(buckets.items(), key=_natural)) for name, buckets in found.items()}


def mistake_classes(report: Report, grader: str | None = None) -> list[str | None]:
    """Return the error class of each entry, or None for a correct one."""
    pairs = zip(report.entries, report.judgements_by(grader), strict=True)
    return [mistake(entry.record, entry.sql, judgement, entry.truncated) for entry, judgement in pairs]


def _own_slices(record: Record) -> dict[str, str]:
    return dict(features(record)) | ({"database": record.database} if record.database else {})


def _natural(item: tuple[str, object]) -> tuple[int, float, str]:
    """Return a sort key for the orders none, 1, 2, 10 and easy, medium, hard."""
    bucket = item[0]
    if bucket in _WORDS_IN_ORDER:
        return (0, _WORDS_IN_ORDER.index(bucket), "")
    digits = bucket[: len(bucket) - len(bucket.lstrip("0123456789"))]
    return (1, int(digits), bucket) if digits else (2, 0, bucket)
