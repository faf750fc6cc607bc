"""What a judged query may use, and what a user allows on servers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlquarry.errors import ConfigError
from sqlquarry.options import check_options


@check_options()
@dataclass(frozen=True, kw_only=True)
class ExecutionLimits:
    """Bound what one query may use; a query that exceeds a bound fails.

    Args:
        time_s: seconds until it is stopped; it is killed half a second later.
        rows: rows of the result.
        result_bytes: bytes of text and blobs in the whole result, plus 16 for each cell.
        value_bytes: bytes of any one value; in SQLite of intermediate ones too.
        memory_bytes: bytes that DuckDB may use, and that PostgreSQL may spill to disk if the account may set that.

    Raises:
        ConfigError: a limit is not a positive, finite number; all bad ones are named.
    """

    time_s: float = 10.0
    rows: int = 100_000
    result_bytes: int = 100_000_000
    value_bytes: int = 1_000_000
    memory_bytes: int = 1_000_000_000

    def __post_init__(self) -> None:
        rule = "but must be above 0 and finite"
        if bad := [f"{name} is {value!r}, {rule}" for name, value in vars(self).items() if not 0 < value < math.inf]:
            raise ConfigError("; ".join(bad))


DEFAULT_LIMITS = ExecutionLimits()


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """State what a user allows on servers; nothing by default.

    Args:
        allow_functions: functions that only read, of a database or an extension, as ``schema.name`` on PostgreSQL and
            ``name`` on other servers. ``*`` and ``?`` match any characters.
        allow_privileged_accounts: use accounts that may do more than read on PostgreSQL: superusers and the like.
        allow_unchecked_servers: use servers other than PostgreSQL, which do not say themselves what a query does. Give
            them an account that can only read.

    Raises:
        ConfigError: `allow_functions` is not a list of names.
    """

    allow_functions: Sequence[str] = ()
    allow_privileged_accounts: bool = False
    allow_unchecked_servers: bool = False

    def __post_init__(self) -> None:
        names = self.allow_functions
        if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(f"allow_functions must be a list of names, but is {names!r}")
        object.__setattr__(self, "allow_functions", tuple(names))


NO_PERMISSIONS = Permissions()
