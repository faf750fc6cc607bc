"""Compare two systems on the same records, in total or by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from sqlquarry.answers import Verdict
from sqlquarry.errors import JudgingError
from sqlquarry.judging.report.breakdown import SliceKeys, slice_places
from sqlquarry.judging.report.data import Report
from sqlquarry.judging.report.significance import PairedComparison, ScoreChange, holm, paired_comparison, score_change
from sqlquarry.records import Record


class SliceChange(NamedTuple):
    """The change between two systems on one bucket of a slice.

    Args:
        name: the name of the slice.
        bucket: the value of its records.
        comparison: the two systems on these records.
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
    """Compare `after` with `before` on the records on which both have a verdict.

    Args:
        before: the report of the system to compare with.
        after: the report of the system in question on the same records.
        grader: the grader whose verdicts count. The default is the first grader of `after` that `before` has, too.
        cluster_by: as in `Report.accuracy`, for the interval of the difference.

    Raises:
        JudgingError: the reports have different records, or one lacks the grader.
    """
    return _compare_at(before, after, grader=grader or _shared_grader(before, after), cluster_by=cluster_by)


def compare_slices(
    before: Report, after: Report, *, by: SliceKeys | Literal["auto"] = "auto", grader: str | None = None
) -> list[SliceChange]:
    """Compare two systems slice by slice, largest loss first. Slices without a record that both judged are left out.

    Args:
        before: the report of the system to compare with.
        after: the report of the system in question on the same records.
        by: slice name -> function that returns the bucket of a record, or "auto" as in `slices`.
        grader: the grader whose verdicts count. The default is the first grader of `after` that `before` has, too.

    Raises:
        JudgingError: the reports have different records, or one lacks the grader.
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
    """Compare two systems by one grader, on all records or on those at `places`.

    Raises:
        JudgingError: the reports have different records, or one lacks the grader.
    """
    if not _have_same_records(before, after):
        raise JudgingError("the two reports have different records. Judge both systems on the same records.")
    pairs = _verdict_pairs(before, after, grader)
    wanted = range(len(pairs)) if places is None else list(places)
    judged = [i for i in wanted if "unjudged" not in pairs[i]]
    clusters = {i: cluster_by(after.entries[i].record) for i in judged} if cluster_by else None
    found = paired_comparison(
        [pairs[i][0] == "correct" for i in judged],
        [pairs[i][1] == "correct" for i in judged],
        [clusters[i] for i in judged] if clusters else None,
        unjudged=len(wanted) - len(judged),
    )
    return found._replace(score=_score_change(before.scores_by(grader), after.scores_by(grader), judged, clusters))


def _score_change(
    before: Sequence[float | None],
    after: Sequence[float | None],
    judged: Iterable[int],
    clusters: Mapping[int, str] | None,
) -> ScoreChange | None:
    """Compare the scores of the judged records that have two, or return None if there are none."""
    scored = [(i, old, new) for i in judged if (old := before[i]) is not None and (new := after[i]) is not None]
    if not scored:
        return None
    return score_change(
        [old for _, old, _ in scored],
        [new for *_, new in scored],
        [clusters[i] for i, *_ in scored] if clusters else None,
    )


def changed_places(before: Report, after: Report, grader: str, *, was: Verdict, now: Verdict) -> list[int]:
    """Return the positions of the records whose verdict changed from `was` to `now`."""
    return [i for i, pair in enumerate(_verdict_pairs(before, after, grader)) if pair == (was, now)]


def require_same_records(reports: Mapping[str, Report]) -> None:
    """Require that all reports have the same records and graders.

    Raises:
        JudgingError: there are no reports, or their records or graders differ.
    """
    if not reports:
        raise JudgingError("reports is empty. Give at least one report.")
    (first_name, first), *others = reports.items()
    for name, other in others:
        if not _have_same_records(first, other):
            raise JudgingError(f"the reports {first_name!r} and {name!r} have different records. Judge the same ones.")
        if other.graders != first.graders:
            raise JudgingError(
                f"the report {name!r} has the graders {other.graders}, but {first_name!r} has {first.graders}. "
                "Judge both systems with the same graders."
            )


def _shared_grader(before: Report, after: Report) -> str:
    """Return the first grader of `after` that `before` has, too.

    Raises:
        JudgingError: they have no grader in common.
    """
    for grader in after.graders:
        if grader in before.graders:
            return grader
    raise JudgingError(
        f"the reports have no grader in common: {', '.join(before.graders)} and {', '.join(after.graders)}. "
        "Judge both systems with the same grader."
    )


def _have_same_records(one: Report, other: Report) -> bool:
    return [entry.record for entry in one.entries] == [entry.record for entry in other.entries]


def _verdict_pairs(before: Report, after: Report, grader: str) -> list[tuple[Verdict, Verdict]]:
    return list(zip(before.verdicts_by(grader), after.verdicts_by(grader), strict=True))
