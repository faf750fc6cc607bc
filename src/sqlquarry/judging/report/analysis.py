"""What a report says beyond one accuracy: slices, error classes, disagreements, comparisons, calibrated headlines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.artifacts import Record
from sqlquarry.errors import JudgingError
from sqlquarry.judging.statistics import Estimate, PairedComparison, holm, paired_comparison

if TYPE_CHECKING:  # it imports this module
    from sqlquarry.judging.calibration import Calibration
    from sqlquarry.judging.report.model import Entry, Report

_MOST_DATABASES = 24
_WORDS_IN_ORDER = ("none", "no", "easy", "medium", "hard", "extra", "extra hard", "yes")


class Headline(NamedTuple):
    """The figure to quote for one grader.

    Args:
        label: the grader's name; an LLM's with "corrected" or "uncalibrated".
        estimate: the accuracy to quote; for a calibrated LLM the one corrected for its errors.
        note: what a reader must know of it; "" for graders that are not LLMs.
        calibration: what the correction rests on, if there is one.
    """

    label: str
    estimate: Estimate
    note: str = ""
    calibration: Calibration | None = None


class SliceChange(NamedTuple):
    """One slice of two systems.

    Args:
        name: the slice.
        bucket: its value.
        comparison: the two systems on its records.
        adjusted_p: the p-value among as many slices (Holm).
    """

    name: str
    bucket: str
    comparison: PairedComparison
    adjusted_p: float


class Disagreement(NamedTuple):
    """An entry on which graders contradict each other.

    Args:
        place: where the entry stands in the report.
        entry: the entry.
        correct: the graders that call it correct.
        wrong: the graders that call it wrong.
    """

    place: int
    entry: Entry
    correct: tuple[str, ...]
    wrong: tuple[str, ...]


class Agreement(NamedTuple):
    """Two graders on the records on which both have a verdict."""

    first: str
    second: str
    n: int
    only_first: int
    only_second: int

    @property
    def share(self) -> float:
        """Records with the same verdict / n."""
        return 1 - (self.only_first + self.only_second) / self.n


def require_same_records(reports: Mapping[str, Report]) -> None:
    """Refuse to compare reports record by record where they are not of the same records and graders.

    Raises:
        JudgingError: there are no reports, or they differ.
    """
    if not reports:
        raise JudgingError("there is no report to write")
    (first_name, first), *others = reports.items()
    for name, other in others:
        if [entry.record for entry in other.entries] != [entry.record for entry in first.entries]:
            raise JudgingError(f"the report {name!r} is of other records than {first_name!r}: judge the same")
        if other.graders != first.graders:
            raise JudgingError(f"the report {name!r} has the graders {other.graders}, not {first.graders}")


def is_llm(report: Report, grader: str) -> bool:
    """Whether this grader is a language model, whose verdicts need calibration."""
    place = report.place(grader)
    return any(entry.judgements[place].details.get("kind") == "llm" for entry in report.entries)


def headline(report: Report, grader: str | None = None) -> Headline:
    """The figure to quote for a grader; an LLM is calibrated by the first grader that ran the queries."""
    grader = report.graders[report.place(grader)]
    raw = report.accuracy(grader)
    if not is_llm(report, grader):
        return Headline(grader, raw)
    for reference in report.graders:
        if _ran_queries(report, reference) and (found := report.calibration(grader, reference)):
            if found.note:
                return Headline(f"{grader} (uncalibrated)", raw, f"calibration by {reference} is {found.note}", found)
            note = (
                f"corrected for the judge's errors as {reference} shows them on {found.n} records; "
                f"kappa {found.kappa:.2f}, raw {raw.value:.1%}"
            )
            return Headline(f"{grader} (corrected)", found.corrected, note, found)
    note = "the judge's own error rate is unknown; add an ExecutionGrader on some of the records"
    return Headline(f"{grader} (uncalibrated)", raw, note)


def slice_places(
    report: Report, by: Mapping[str, Callable[[Record], str]] | None = None
) -> dict[str, dict[str, list[int]]]:
    """Slice name -> bucket -> the places of its records; buckets in a natural order."""
    found: dict[str, dict[str, list[int]]] = {}
    for i, entry in enumerate(report.entries):
        labels = _own_slices(entry.record) if by is None else {name: key(entry.record) for name, key in by.items()}
        for name, bucket in labels.items():
            found.setdefault(name, {}).setdefault(bucket, []).append(i)
    if by is None and len(found.get("database", ())) > _MOST_DATABASES:
        del found["database"]
    return {name: dict(sorted(buckets.items(), key=_natural)) for name, buckets in found.items()}


def mistake_classes(report: Report, grader: str | None = None) -> list[str | None]:
    """The error class of each entry, None where it is correct."""
    from sqlquarry.judging.mistakes import mistake

    place = report.place(grader)
    return [mistake(e.record, e.sql, e.judgements[place], e.truncated) for e in report.entries]


def disagreements(report: Report) -> list[Disagreement]:
    """The entries that one grader calls correct and another wrong."""
    found = []
    for i, entry in enumerate(report.entries):
        correct = tuple(judgement.grader for judgement in entry.judgements if judgement.verdict == "correct")
        wrong = tuple(judgement.grader for judgement in entry.judgements if judgement.verdict == "wrong")
        if correct and wrong:
            found.append(Disagreement(i, entry, correct, wrong))
    return found


def agreements(report: Report) -> list[Agreement]:
    """Every pair of graders that share records with verdicts."""
    found = []
    for i, first in enumerate(report.graders):
        for j, second in enumerate(report.graders[i + 1 :], start=i + 1):
            pairs = [(entry.judgements[i].verdict, entry.judgements[j].verdict) for entry in report.entries]
            n = sum("unjudged" not in pair for pair in pairs)
            if n:
                only_first, only_second = pairs.count(("correct", "wrong")), pairs.count(("wrong", "correct"))
                found.append(Agreement(first, second, n, only_first, only_second))
    return found


def shared_grader(before: Report, after: Report) -> str:
    """The first grader of `after` that `before` has, too.

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


def compare(
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
    if [entry.record for entry in before.entries] != [entry.record for entry in after.entries]:
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


def compare_slices(
    before: Report, after: Report, by: Mapping[str, Callable[[Record], str]] | None = None, *, grader: str
) -> list[SliceChange]:
    """Compare two systems slice by slice, the largest loss first; slices without two verdicts on a record are left out.

    Raises:
        JudgingError: the reports are not of the same records, or one has no such grader.
    """
    found = [
        (name, bucket, compare(before, after, grader=grader, places=places))
        for name, buckets in slice_places(after, by).items()
        for bucket, places in buckets.items()
    ]
    found = [item for item in found if item[2].before.n]
    adjusted = holm([comparison.p_value for _, _, comparison in found])
    changes = [SliceChange(*item, p) for item, p in zip(found, adjusted, strict=True)]
    return sorted(changes, key=lambda change: change.comparison.difference)


def changed(before: Report, after: Report, grader: str, *, was: str, now: str) -> list[int]:
    """The places of the records whose verdict went from `was` to `now`."""
    return [i for i, pair in enumerate(_verdict_pairs(before, after, grader)) if pair == (was, now)]


def _verdict_pairs(before: Report, after: Report, grader: str) -> Sequence[tuple[str, str]]:
    old, new = before.place(grader), after.place(grader)
    return [
        (a.judgements[old].verdict, b.judgements[new].verdict)
        for a, b in zip(before.entries, after.entries, strict=True)
    ]


def _ran_queries(report: Report, grader: str) -> bool:
    """Whether this grader compared results of queries: only such verdicts can show an LLM's errors."""
    place = report.place(grader)
    return any("gold" in entry.judgements[place].details for entry in report.entries) and not is_llm(report, grader)


def _own_slices(record: Record) -> dict[str, str]:
    from sqlquarry.judging.sql.features import features

    return dict(features(record)) | ({"database": record.database} if record.database else {})


def _natural(item: tuple[str, object]) -> tuple[int, float, str]:
    """Buckets in the order in which people read them: none before 1 before 2 before 10, easy before hard."""
    bucket = item[0]
    if bucket in _WORDS_IN_ORDER:
        return (0, _WORDS_IN_ORDER.index(bucket), "")
    digits = bucket[: len(bucket) - len(bucket.lstrip("0123456789"))]
    return (1, int(digits), bucket) if digits else (2, 0, bucket)
