"""Checks of a report that can fail a build.

The headline must be proven good enough, but slices and comparisons fail only if they are proven worse:

- The headline passes only if the lower end of its interval reaches the minimum.
- A slice fails only if the upper end of its interval is below the slice minimum, because small slices prove little.
- The comparison with a baseline fails only if the exact McNemar test finds a loss (p < 0.05 and more records broken
  than fixed).
- A report whose judging stopped early always fails.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlquarry.errors import JudgingError
from sqlquarry.judging.report.breakdown import score_slices, slices
from sqlquarry.judging.report.compare import changed_places, compare_reports, require_same_records
from sqlquarry.judging.report.data import Headline, Report
from sqlquarry.judging.report.significance import LEVEL, p_text

_EXAMPLES = 20


class Check(NamedTuple):
    """The result of one check.

    Args:
        group: "accuracy", "mean score", "complete", "baseline" or the name of a slice.
        name: the name of the grader or of the slice's bucket.
        text: the checked figure.
        failure: the reason why the check fails, or None if it passes.
    """

    group: str
    name: str
    text: str
    failure: str | None = None


def check_report(
    report: Report,
    *,
    minimum: float | None = None,
    slice_minimum: float | None = None,
    baseline: Report | None = None,
) -> list[Check]:
    """Check a report. A figure without a minimum is listed and passes.

    Args:
        report: the report. The figures of its first grader are checked.
        minimum: 0 to 1. The lower end of the headline's interval must reach it.
        slice_minimum: 0 to 1. The upper end of each slice's interval must reach it.
        baseline: the report of the baseline. The system must not be worse.

    Raises:
        JudgingError: a minimum is not between 0 and 1, or the baseline has different records or graders.
    """
    for name, value in (("minimum", minimum), ("slice_minimum", slice_minimum)):
        if value is not None and not 0 <= value <= 1:
            raise JudgingError(f"{name} is {value}, but an accuracy is between 0 and 1. Pass 0.8 for 80 %.")
    head = report.headline()
    found = [_headline_check(head, minimum), _complete_check(report)]
    if head.mean_score:
        found.insert(1, Check("mean score", report.graders[0], str(head.mean_score)))
    if baseline is not None:
        found.append(_baseline_check(report, baseline))
    return found + _slice_checks(report, slice_minimum)


def _headline_check(head: Headline, minimum: float | None) -> Check:
    failure = None
    if minimum is not None and not head.estimate.low >= minimum:
        failure = f"{head.label}: the interval's lower end, {head.estimate.low:.1%}, is below {minimum:.1%}"
    return Check("accuracy", head.label, str(head.estimate), failure)


def _complete_check(report: Report) -> Check:
    left = report.info.records_left
    failure = f"{left} records are not judged ({report.info.stopped or 'stopped early'})" if left else None
    return Check("complete", "judging", f"{len(report.entries)} records, {left} left", failure)


def _slice_checks(report: Report, minimum: float | None) -> list[Check]:
    found, means = [], score_slices(report)
    for name, buckets in slices(report).items():
        for bucket, share in buckets.items():
            failure = None
            if minimum is not None and share.n and share.high < minimum:
                failure = f"the interval's upper end, {share.high:.1%}, is below {minimum:.1%}"
            mean = means.get(name, {}).get(bucket)
            found.append(Check(name, bucket, f"{share}, mean score {mean}" if mean else str(share), failure))
    return found


def _baseline_check(report: Report, baseline: Report) -> Check:
    require_same_records({"baseline": baseline, "this model": report})
    grader = report.graders[0]
    found = compare_reports(baseline, report)
    broken = changed_places(baseline, report, grader, was="correct", now="wrong")
    lines = [f"broken: {report.entries[i].record.id or i + 1}: {report.entries[i].record.question}" for i in broken]
    text = "\n".join([str(found), *lines[:_EXAMPLES]])
    worse = found.difference < 0 and found.p_value < LEVEL
    failure = f"{100 * found.difference:+.1f} points against the baseline, {p_text(found.p_value)}" if worse else None
    return Check("baseline", grader, text, failure)
