"""Judge predicted SQL against gold SQL and report the accuracy with its confidence interval."""

from sqlquarry.judging.equivalence import EquivalenceGrader
from sqlquarry.judging.exact import ExactGrader
from sqlquarry.judging.execution import DatabaseSource, ExecutionGrader, ExecutionLimits
from sqlquarry.judging.extraction import extract_sql
from sqlquarry.judging.grader import Grader
from sqlquarry.judging.judge import SQLJudge
from sqlquarry.judging.llm import LLMGrader, PromptRubric, Rubric
from sqlquarry.judging.report import (
    Report,
    ReportEntry,
    ReportInfo,
    calibrate,
    check_report,
    compare_reports,
    compare_slices,
    compare_stages,
    count_mistakes,
    find_disagreements,
    score_slices,
    slices,
    write_html,
    write_junit,
    write_markdown,
)
from sqlquarry.judging.report.calibration import Calibration
from sqlquarry.judging.report.estimates import Estimate, MeanScore, wilson_interval
from sqlquarry.judging.synthesis import SynthesizedDatabases
from sqlquarry.results.cells import ComparisonOptions
from sqlquarry.results.comparison import results_equal

__all__ = [
    "Calibration",
    "ComparisonOptions",
    "DatabaseSource",
    "EquivalenceGrader",
    "Estimate",
    "ExactGrader",
    "ExecutionGrader",
    "ExecutionLimits",
    "Grader",
    "LLMGrader",
    "MeanScore",
    "PromptRubric",
    "Report",
    "ReportEntry",
    "ReportInfo",
    "Rubric",
    "SQLJudge",
    "SynthesizedDatabases",
    "calibrate",
    "check_report",
    "compare_reports",
    "compare_slices",
    "compare_stages",
    "count_mistakes",
    "extract_sql",
    "find_disagreements",
    "results_equal",
    "score_slices",
    "slices",
    "wilson_interval",
    "write_html",
    "write_junit",
    "write_markdown",
]
