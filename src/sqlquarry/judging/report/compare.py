"""What changed from one system to another on the same records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from sqlquarry.answers import Verdict
from sqlquarry.errors import JudgingError
from sqlquarry.judging.report.breakdown import SliceKeys, slice_places
from sqlquarry.judging.report.data import Report
from sqlquarry.judging.report.significance import PairedComparison, holm, paired_comparison
from sqlquarry.records import Record


class SliceChange(NamedTuple):
    """Compare two systems on one slice.

    Args:
        name: the slice.
        bucket: its value.
        comparison: the two systems on its records.
        adjusted_p: McNemar's p-value, corrected for the number of slices (Holm).
    """

    name: str
    bucket: str
    comparison: PairedComparison
    adjusted_p: float


def compare_reports(
    before: Report,
    after: Report,
    *,
    grader: str | None = None,
    cluster_by: Callable[[Record], str] | None = None,
) -> PairedComparison:
    """Say what changed from `before` to `after`, on the records on which both have a verdict.

    Args:
        before: the report of the system to compare with.
        after: the report of the system in question, on the same records.
        grader: whose verdicts; the first grader of `after` that `before` has, too, if not given.
        cluster_by: as in `Report.accuracy`; for the interval of the difference.

    Raises:
        JudgingError: the reports are not of the same records, or one has no such grader.
    """
    return _compare_at(before, after, grader=grader or _shared_grader(before, after), cluster_by=cluster_by)


def compare_slices(
    before: Report, after: Report, *, by: SliceKeys | Literal["auto"] = "auto", grader: str | None = None
) -> list[SliceChange]:
    """Compare two systems slice by slice, the largest loss first; slices without two verdicts on a record are left out.

    Args:
        before: the report of the system to compare with.
        after: the report of the system in question, on the same records.
        by: slice name -> the bucket that a record belongs to; "auto" as in `slices`.
        grader: whose verdicts; the first grader of `after` that `before` has, too, if not given.

    Raises:
        JudgingError: the reports are not of the same records, or one has no such grader.
    """
    grader = grader or _shared_grader(before, after)
    found = [
        (name, bucket, _compare_at(before, after, grader=grader, places=places))
        for name, buckets in slice_places(after, by).items()
        for bucket, places in buckets.items()
    ]
    found = [item for item in found if item[2].before.n]
    adjusted = holm([comparison.p_value for _, _, comparison in found])
    changes = [SliceChange(*item, p) for item, p in zip(found, adjusted, strict=True)]
    return sorted(changes, key=lambda change: change.comparison.difference)


def _compare_at(
    before: Report,
    after: Report,
    *,
    grader: str,
    places: Iterable[int] | None = None,
    cluster_by: Callable[[Record], str] | None = None,
) -> PairedComparison:
    """Compare two systems by one grader, on all records or those at `places`.

    Raises:
        JudgingError: the reports are not of the same records, or one has no such grader.
    """
    if not _have_same_records(before, after):
        raise JudgingError("the two reports are of different records. Judge both systems on the same records.")
    pairs = _verdict_pairs(before, after, grader)
    wanted = range(len(pairs)) if places is None else list(places)
    judged = [i for i in wanted if "unjudged" not in pairs[i]]
    return paired_comparison(
        [pairs[i][0] == "correct" for i in judged],
        [pairs[i][1] == "correct" for i in judged],
        [cluster_by(after.entries[i].record) for i in judged] if cluster_by else None,
        unjudged=len(wanted) - len(judged),
    )


def changed_places(before: Report, after: Report, grader: str, *, was: Verdict, now: Verdict) -> list[int]:
    """Return the places of the records whose verdict went from `was` to `now`."""
    return [i for i, pair in enumerate(_verdict_pairs(before, after, grader)) if pair == (was, now)]


def require_same_records(reports: Mapping[str, Report]) -> None:
    """Refuse to compare reports record by record unless they are of the same records and graders.

    Raises:
        JudgingError: there are no reports, or they differ.
    """
    if not reports:
        raise JudgingError("there is no report to write")
    (first_name, first), *others = reports.items()
    for name, other in others:
        if not _have_same_records(first, other):
            raise JudgingError(f"the report {name!r} is of other records than {first_name!r}: judge the same")
        if other.graders != first.graders:
            raise JudgingError(f"the report {name!r} has the graders {other.graders}, not {first.graders}")


def _shared_grader(before: Report, after: Report) -> str:
    """Return the first grader of `after` that `before` has, too.

    Raises:
        JudgingError: they share none.
    """
    for grader in after.graders:
        if grader in before.graders:
            return grader
    raise JudgingError(
        f"the reports share no grader: one has {', '.join(before.graders)}, the other {', '.join(after.graders)}. "
        "Judge both systems with the same grader."
    )


def _have_same_records(one: Report, other: Report) -> bool:
    return [entry.record for entry in one.entries] == [entry.record for entry in other.entries]


def _verdict_pairs(before: Report, after: Report, grader: str) -> list[tuple[Verdict, Verdict]]:
    return list(zip(before.verdicts_by(grader), after.verdicts_by(grader), strict=True))
