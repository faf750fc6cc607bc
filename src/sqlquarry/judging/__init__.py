"""SQL pairs -> Report: is a predicted query right, how often, and how sure is that?"""

from sqlquarry.judging.comparison import results_equal
from sqlquarry.judging.exact import ExactGrader
from sqlquarry.judging.execution import ExecutionGrader
from sqlquarry.judging.extraction import extract_sql
from sqlquarry.judging.judge import Grader, SQLJudge
from sqlquarry.judging.report import Entry, Report
from sqlquarry.judging.report_html import write_html
from sqlquarry.judging.statistics import Estimate, wilson_interval

__all__ = [
    "Entry",
    "Estimate",
    "ExactGrader",
    "ExecutionGrader",
    "Grader",
    "Report",
    "SQLJudge",
    "extract_sql",
    "results_equal",
    "wilson_interval",
    "write_html",
]
