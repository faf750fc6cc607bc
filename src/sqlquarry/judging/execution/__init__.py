"""Grade by running both queries: databases -> sandboxed processes -> rows -> verdict."""

from sqlquarry.judging.execution.databases import DatabaseSource
from sqlquarry.judging.execution.grader import ExecutionGrader
from sqlquarry.judging.execution.limits import ExecutionLimits

__all__ = ["DatabaseSource", "ExecutionGrader", "ExecutionLimits"]
