"""Show, compare and check reports: ``python -m sqlquarry.judging REPORT.json [--minimum 0.8] …``.

Exit status: 0 all checks pass, 1 one fails (see `judging.report.checks`), 2 a file or option cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlquarry.errors import SQLQuarryError
from sqlquarry.judging.report import Report
from sqlquarry.judging.report.checks import checks, write_junit
from sqlquarry.text import visible


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except SQLQuarryError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _run(options: argparse.Namespace) -> int:
    report = Report.from_json(options.report)
    baseline = Report.from_json(options.compare) if options.compare else None
    made = checks(report, minimum=options.minimum, slice_minimum=options.slice_minimum, baseline=baseline)
    lines = [report.summary()]
    if baseline is not None:
        lines.append(f"against {options.compare.stem}: {report.compare(baseline)}")
    if options.html:
        before, after = _names(options)
        report.to_html(options.html, title=options.title, name=after, compare={before: baseline} if baseline else None)
    if options.markdown:
        report.to_markdown(options.markdown, title=options.title, baseline=baseline)
    if options.junit:
        write_junit(options.junit, made)
    failures = [f"FAILED {check.group} {check.name}: {check.failure}" for check in made if check.failure is not None]
    sys.stdout.write(visible("\n".join([*lines, *failures])) + "\n")
    return 1 if failures else 0


def _names(options: argparse.Namespace) -> tuple[str, str]:
    """The systems' names on the page: their files'."""
    before, after = (options.compare.stem if options.compare else ""), options.report.stem
    return (before, after) if before != after else (str(options.compare), str(options.report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sqlquarry.judging",
        description="Show a report, compare it with another, and check it. "
        "Exit status: 0 all checks pass, 1 one fails, 2 a file or option cannot be used.",
    )
    parser.add_argument("report", type=Path, help="a file that Report.to_json wrote")
    parser.add_argument("--compare", type=Path, help="the baseline's report, on the same records")
    parser.add_argument("--minimum", type=float, help="fail where the lower end of the accuracy's interval is below")
    parser.add_argument("--slice-minimum", type=float, help="fail where the upper end of a slice's interval is below")
    parser.add_argument("--title", default="SQL accuracy", help="heading of the page and the Markdown")
    parser.add_argument("--html", type=Path, help="write the page there")
    parser.add_argument("--markdown", type=Path, help="write the text for a pull request there")
    parser.add_argument("--junit", type=Path, help="write the checks there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
