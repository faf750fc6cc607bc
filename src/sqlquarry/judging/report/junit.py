"""Write the checks of a report as a JUnit file for CI systems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from sqlquarry.files.locations import local_path
from sqlquarry.files.writing import write_atomically
from sqlquarry.judging.report.checks import Check, check_report
from sqlquarry.judging.report.data import Report
from sqlquarry.text import visible


def write_junit(
    report: Report,
    path: str | Path,
    *,
    minimum: float | None = None,
    slice_minimum: float | None = None,
    baseline: Report | None = None,
) -> bool:
    """Atomically write the checks of `check_report` as a JUnit file, and return whether all of them pass.

    Args:
        report: the report. The figures of its first grader are checked.
        path: the .xml file.
        minimum: 0 to 1. The lower end of the headline's interval must reach it.
        slice_minimum: 0 to 1. The upper end of each slice's interval must reach it.
        baseline: the report of the baseline. The system must not be worse.

    Raises:
        JudgingError: a minimum is not between 0 and 1, or the baseline has different records or graders.
    """
    checks = check_report(report, minimum=minimum, slice_minimum=slice_minimum, baseline=baseline)
    write_checks(checks, path)
    return all(check.failure is None for check in checks)


def write_checks(checks: Sequence[Check], path: str | Path) -> None:
    """Atomically write checks as JUnit XML, with one test case per check."""
    root = ET.Element("testsuites", _totals(checks))
    for group in dict.fromkeys(check.group for check in checks):
        members = [check for check in checks if check.group == group]
        suite = ET.SubElement(root, "testsuite", {"name": visible(group)} | _totals(members))
        for check in members:
            classname = f"sqlquarry.{visible(check.group)}"
            case = ET.SubElement(suite, "testcase", classname=classname, name=visible(check.name))
            if check.failure is not None:
                ET.SubElement(case, "failure", message=visible(check.failure)).text = visible(check.text)
            ET.SubElement(case, "system-out").text = visible(check.text)
    ET.indent(root)
    write_atomically(local_path(path, "path"), ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _totals(checks: Sequence[Check]) -> dict[str, str]:
    failures = sum(check.failure is not None for check in checks)
    return {"tests": str(len(checks)), "failures": str(failures), "errors": "0"}
