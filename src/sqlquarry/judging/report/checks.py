"""What a build may demand of a report, and its JUnit file.

A figure is held against the end of its 95 % interval that leaves no doubt:

- the headline passes only where its lower end reaches the minimum: accuracy has been shown;
- a slice fails only where its upper end stays below its own minimum: small slices prove little either way;
- the baseline is lost to only where the exact McNemar test says so (p < 0.05) and more records broke than were fixed;
- a report whose judging stopped early is not accepted at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from sqlquarry.artifacts import write_atomically
from sqlquarry.errors import JudgingError
from sqlquarry.files.locations import local_path
from sqlquarry.judging.report import analysis
from sqlquarry.judging.report.model import Report
from sqlquarry.judging.statistics import p_text
from sqlquarry.text import visible

_LEVEL = 0.05
_EXAMPLES = 20


class Check(NamedTuple):
    """One demand.

    Args:
        group: what is checked: "accuracy", "complete", "baseline" or the name of a slice.
        name: whose figure it is: the grader, or the slice's bucket.
        text: the figure.
        failure: why it fails; None where it passes.
    """

    group: str
    name: str
    text: str
    failure: str | None = None


def checks(
    report: Report,
    *,
    minimum: float | None = None,
    slice_minimum: float | None = None,
    baseline: Report | None = None,
) -> list[Check]:
    """Check a report; without a minimum, figures are listed and pass.

    Args:
        report: the report; its first grader's figures count.
        minimum: what the headline's lower end must reach, 0 to 1.
        slice_minimum: what no slice's upper end may stay below, 0 to 1.
        baseline: the report of the system that this one must not be worse than.

    Raises:
        JudgingError: a minimum is not between 0 and 1, or the baseline is not of the same records and graders.
    """
    for name, value in (("minimum", minimum), ("slice_minimum", slice_minimum)):
        if value is not None and not 0 <= value <= 1:
            raise JudgingError(f"{name} is {value}, but an accuracy lies between 0 and 1: give 0.8 for 80 %")
    head = analysis.headline(report)
    failure = None
    if minimum is not None and not head.estimate.low >= minimum:
        failure = f"{head.label}: the interval's lower end, {head.estimate.low:.1%}, is below {minimum:.1%}"
    found = [Check("accuracy", head.label, str(head.estimate), failure)]
    left = report.about.get("left", 0)
    stopped = f"{left} records are not judged: {report.about.get('stopped', 'stopped early')}" if left else None
    found.append(Check("complete", "judging", f"{len(report.entries)} records, {left} left", stopped))
    if baseline is not None:
        found.append(_against(report, baseline))
    for name, buckets in report.slices().items():
        for bucket, share in buckets.items():
            failure = None
            if slice_minimum is not None and share.n and share.high < slice_minimum:
                failure = f"the interval's upper end, {share.high:.1%}, is below {slice_minimum:.1%}"
            found.append(Check(name, bucket, str(share), failure))
    return found


def write_junit(path: str | Path, made: list[Check]) -> None:
    """Write the checks as JUnit's XML, one test case each, atomically."""
    root = ET.Element("testsuites", _totals(made))
    for group in dict.fromkeys(check.group for check in made):
        members = [check for check in made if check.group == group]
        suite = ET.SubElement(root, "testsuite", {"name": visible(group)} | _totals(members))
        for check in members:
            classname = f"sqlquarry.{visible(check.group)}"
            case = ET.SubElement(suite, "testcase", classname=classname, name=visible(check.name))
            if check.failure is not None:
                ET.SubElement(case, "failure", message=visible(check.failure)).text = visible(check.text)
            ET.SubElement(case, "system-out").text = visible(check.text)
    ET.indent(root)
    write_atomically(local_path(path, "path"), ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _against(report: Report, baseline: Report) -> Check:
    analysis.require_same_records({"baseline": baseline, "this model": report})
    grader = report.graders[0]
    found = report.compare(baseline)
    broken = analysis.changed(baseline, report, grader, was="correct", now="wrong")
    lines = [f"broken: {report.entries[i].record.id or i + 1}: {report.entries[i].record.question}" for i in broken]
    text = "\n".join([str(found), *lines[:_EXAMPLES]])
    worse = found.difference < 0 and found.p_value < _LEVEL
    failure = f"{100 * found.difference:+.1f} points against the baseline, {p_text(found.p_value)}" if worse else None
    return Check("baseline", grader, text, failure)


def _totals(made: list[Check]) -> dict[str, str]:
    failures = sum(check.failure is not None for check in made)
    return {"tests": str(len(made)), "failures": str(failures), "errors": "0"}
