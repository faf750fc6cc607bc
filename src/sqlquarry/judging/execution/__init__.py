"""Grade a prediction by running it and the gold query in sandboxed processes and comparing their rows."""

from sqlquarry.judging.execution.databases import DatabaseSource
from sqlquarry.judging.execution.grader import ExecutionGrader
from sqlquarry.judging.execution.limits import ExecutionLimits

__all__ = ["DatabaseSource", "ExecutionGrader", "ExecutionLimits"]
