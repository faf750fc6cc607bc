"""Limits for a judged query, and permissions that a user grants on servers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlquarry.errors import ConfigError
from sqlquarry.options import check_options


@check_options()
@dataclass(frozen=True, kw_only=True)
class ExecutionLimits:
    """Limits on the resources of one query. A query that exceeds a limit fails.

    Args:
        time_s: seconds until the query is stopped. Half a second later its process is killed.
        rows: number of rows in the result.
        result_bytes: bytes of text and blobs in the whole result, plus 16 for each cell.
        value_bytes: bytes of a single value. In SQLite this includes intermediate values.
        memory_bytes: bytes that DuckDB may use, and that PostgreSQL may spill to disk if the account may set that.

    Raises:
        ConfigError: a limit is not a positive, finite number. The message lists all such limits.
    """

    time_s: float = 10.0
    rows: int = 100_000
    result_bytes: int = 100_000_000
    value_bytes: int = 1_000_000
    memory_bytes: int = 1_000_000_000

    def __post_init__(self) -> None:
        rule = "but it must be above 0 and finite"
        if bad := [f"{name} is {value!r}, {rule}" for name, value in vars(self).items() if not 0 < value < math.inf]:
            raise ConfigError("; ".join(bad))


DEFAULT_LIMITS = ExecutionLimits()


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """Permissions that a user grants on servers. By default there are none.

    Args:
        allow_functions: functions of a database or an extension that only read, as ``schema.name`` on PostgreSQL and
            ``name`` on other servers. ``*`` and ``?`` are wildcards.
        allow_privileged_accounts: use PostgreSQL accounts that may do more than read, such as superusers.
        allow_unchecked_servers: use servers other than PostgreSQL, which do not report what a query does. Give them an
            account that can only read.

    Raises:
        ConfigError: `allow_functions` is not a list of names.
    """

    allow_functions: Sequence[str] = ()
    allow_privileged_accounts: bool = False
    allow_unchecked_servers: bool = False

    def __post_init__(self) -> None:
        names = self.allow_functions
        if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(f"allow_functions is {names!r}, but it must be a list of names")
        object.__setattr__(self, "allow_functions", tuple(names))


NO_PERMISSIONS = Permissions()
