"""Show, compare and check reports: ``python -m sqlquarry.judging REPORT.json [--minimum 0.8] …``.

The exit status is 0 if all checks pass, 1 if a check fails (see `check_report`) and 2 if a file or an option cannot be
used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlquarry.errors import JudgingError, SQLQuarryError
from sqlquarry.judging.report import Report, check_report, compare_reports, write_html, write_markdown
from sqlquarry.judging.report.junit import write_checks
from sqlquarry.text import visible


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except SQLQuarryError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _run(options: argparse.Namespace) -> int:
    report = Report.from_json(options.report)
    baseline = Report.from_json(options.compare) if options.compare else None
    checks = check_report(report, minimum=options.minimum, slice_minimum=options.slice_minimum, baseline=baseline)
    lines = [report.summary()]
    if baseline is not None:
        lines.append(f"against {options.compare.stem}: {compare_reports(baseline, report)}")
    if options.html:
        before, after = _names(options)
        systems = {before: baseline, after: report} if baseline is not None else {after: report}
        write_html(systems, options.html, title=options.title)
    if options.markdown:
        write_markdown(report, options.markdown, title=options.title, baseline=baseline)
    if options.junit:
        write_checks(checks, options.junit)
    failures = [f"FAILED {check.group} {check.name}: {check.failure}" for check in checks if check.failure is not None]
    sys.stdout.write(visible("\n".join([*lines, *failures])) + "\n")
    return 1 if failures else 0


def _names(options: argparse.Namespace) -> tuple[str, str]:
    """Return the names of both systems on the page, which come from their file names.

    Raises:
        JudgingError: both reports are the same file.
    """
    if options.compare == options.report:
        raise JudgingError(f"{options.report} cannot be compared with itself. Give another report to --compare.")
    before, after = (options.compare.stem if options.compare else ""), options.report.stem
    return (before, after) if before != after else (str(options.compare), str(options.report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sqlquarry.judging",
        description="Show a report, compare it with another, and check it. "
        "The exit status is 0 if all checks pass, 1 if a check fails and 2 if a file or an option cannot be used.",
    )
    parser.add_argument("report", type=Path, help="a file that Report.to_json wrote")
    parser.add_argument("--compare", type=Path, help="the report of the baseline on the same records")
    parser.add_argument("--minimum", type=float, help="fail if the lower end of the accuracy's interval is below this")
    parser.add_argument("--slice-minimum", type=float, help="fail if the upper end of a slice's interval is below this")
    parser.add_argument("--title", default="SQL accuracy", help="title of the HTML page and the Markdown")
    parser.add_argument("--html", type=Path, help="write the HTML page to this file")
    parser.add_argument("--markdown", type=Path, help="write Markdown for a pull request to this file")
    parser.add_argument("--junit", type=Path, help="write the checks as JUnit XML to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
