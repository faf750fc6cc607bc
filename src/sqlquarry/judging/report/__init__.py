"""Reports of verdicts: their accuracies, comparisons and checks, and the files that show them."""

from sqlquarry.judging.report.breakdown import count_mistakes, score_slices, slices
from sqlquarry.judging.report.checks import check_report
from sqlquarry.judging.report.compare import compare_reports, compare_slices
from sqlquarry.judging.report.data import Report, ReportEntry, ReportInfo
from sqlquarry.judging.report.graders import calibrate, find_disagreements
from sqlquarry.judging.report.html import write_html
from sqlquarry.judging.report.junit import write_junit
from sqlquarry.judging.report.markdown import write_markdown
from sqlquarry.judging.report.stages import compare_stages

__all__ = [
    "Report",
    "ReportEntry",
    "ReportInfo",
    "calibrate",
    "check_report",
    "compare_reports",
    "compare_slices",
    "compare_stages",
    "count_mistakes",
    "find_disagreements",
    "score_slices",
    "slices",
    "write_html",
    "write_junit",
    "write_markdown",
]
