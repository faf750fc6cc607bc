"""Grade a prediction by running it and the gold query in sandboxed processes and comparing their rows."""

from sqlquarry.execution.databases import DatabaseSource
from sqlquarry.execution.limits import ExecutionLimits
from sqlquarry.judging.execution.grader import ExecutionGrader

__all__ = ["DatabaseSource", "ExecutionGrader", "ExecutionLimits"]
