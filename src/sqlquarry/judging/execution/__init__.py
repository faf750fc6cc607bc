"""Grade by running both queries: databases -> sandboxed processes -> rows -> verdict."""

from sqlquarry.judging.execution.databases import DatabaseSource
from sqlquarry.judging.execution.grader import ExecutionGrader

__all__ = ["DatabaseSource", "ExecutionGrader"]
