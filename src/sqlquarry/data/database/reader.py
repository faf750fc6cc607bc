"""Read a database in processes that can be killed, within the time that the user allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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

    @property
    def expired(self) -> bool:
        """True if the budget of time is spent."""
        return self._left_s <= 0

    def run(self, sql: str) -> Rows | Failure:
        """Run one query. It fails with the kind "timeout" when its own time or that of all queries is spent."""
        if self.expired:
            return Failure("timeout", "the time for reading values is spent")
        start = time.monotonic()
        self._sandbox.limits = replace(self._limits, time_s=min(self._limits.time_s, self._left_s))
        try:
            return self._sandbox.run(self.database, sql)
        finally:
            self._left_s -= time.monotonic() - start

    def rows(self, sql: str) -> Sequence[tuple[Any, ...]] | Failure:  # each query has cells of its own types
        """Run one query and return its rows."""
        found = self.run(sql)
        return found.rows if isinstance(found, Rows) else found

    def close(self) -> None:
        """End the processes."""
        self._sandbox.close()
