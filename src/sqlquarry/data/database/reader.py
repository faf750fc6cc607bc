"""Read a database in processes that can be killed, within the time that the user allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlquarry.execution.engines import DatabaseEngine, engine_of
from sqlquarry.execution.limits import ExecutionLimits, Permissions
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox

# The queries of this package only read, so they need no permission of the user. Functions in views are still refused.
_OWN_QUERIES = Permissions(allow_privileged_accounts=True, allow_unchecked_servers=True)
_CELL_BYTES = 16_000_000  # longer values cannot be skipped in SQLite, because its limit also holds for unread columns


class Reader:
    """Runs the queries of this package, which all have one budget of time.

    Args:
        database: a file or URL.
        limits: limits of each query.
        time_s: seconds that all queries together may take.
    """

    def __init__(self, database: Path | str, limits: ExecutionLimits, *, time_s: float) -> None:
        self.database = database
        self._limits = replace(limits, value_bytes=max(limits.value_bytes, _CELL_BYTES))
        self._sandbox = Sandbox(self._limits, _OWN_QUERIES)
        self._left_s = time_s

    def run(self, sql: str) -> Rows | Failure:
        """Run one query. It fails with the kind "timeout" when its own time or that of all queries is spent."""
        return self._run(sql, self._limits.time_s)

    def inspect(self, module: str, question: str) -> str | Failure:
        """Ask an engine of this package, which answers with one text. It may take all the time that is left.

        Args:
            module: the module of the engine.
            question: the text that the engine gets instead of a query.
        """
        engine = engine_of(self.database)._replace(module=module)
        found = self._run(question, self._left_s, engine)
        return str(found.rows[0][0]) if isinstance(found, Rows) else found

    def rows(self, sql: str) -> Sequence[tuple[Any, ...]] | Failure:  # each query has cells of its own types
        """Run one query and return its rows."""
        found = self.run(sql)
        return found.rows if isinstance(found, Rows) else found

    def close(self) -> None:
        """End the processes."""
        self._sandbox.close()

    def _run(self, sql: str, time_s: float, engine: DatabaseEngine | None = None) -> Rows | Failure:
        if self._left_s <= 0:
            return Failure("timeout", "the time for reading is spent")
        start = time.monotonic()
        self._sandbox.limits = replace(self._limits, time_s=min(time_s, self._left_s))
        try:
            return self._sandbox.run(self.database, sql, engine=engine)
        finally:
            self._left_s -= time.monotonic() - start
