"""SQL pairs -> Report: is a predicted query right, how often, and how sure is that?"""

from sqlquarry.judging.equivalence import EquivalenceGrader
from sqlquarry.judging.exact import ExactGrader
from sqlquarry.judging.execution import DatabaseSource, ExecutionGrader, ExecutionLimits
from sqlquarry.judging.extraction import extract_sql
from sqlquarry.judging.judge import Grader, SQLJudge
from sqlquarry.judging.llm import LLMGrader, Rubric
from sqlquarry.judging.report import Entry, Report
from sqlquarry.judging.report.calibration import Calibration, calibrate
from sqlquarry.judging.report.html import write_html
from sqlquarry.judging.report.statistics import Estimate, wilson_interval
from sqlquarry.judging.results.cells import ComparisonOptions
from sqlquarry.judging.results.comparison import results_equal
from sqlquarry.judging.synthesis import SynthesizedDatabases

__all__ = [
    "Calibration",
    "ComparisonOptions",
    "DatabaseSource",
    "Entry",
    "EquivalenceGrader",
    "Estimate",
    "ExactGrader",
    "ExecutionGrader",
    "ExecutionLimits",
    "Grader",
    "LLMGrader",
    "Report",
    "Rubric",
    "SQLJudge",
    "SynthesizedDatabases",
    "calibrate",
    "extract_sql",
    "results_equal",
    "wilson_interval",
    "write_html",
]
