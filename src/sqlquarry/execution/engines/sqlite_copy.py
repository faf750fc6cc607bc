"""Copy an SQLite database that cannot be read in place. This module is imported only in child processes of `sandbox`.

A write-ahead log without its -shm file, or the rollback journal of a killed writer, can only be read by a process that
may write. A child process makes the copy, because closing a database's file in the judge's process would release the
locks that the judge may hold on it (https://sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlquarry.execution.sandbox_child import LOGS, Answer, QuerySettings, state

_ATTEMPTS = 3


def run_query(database: str, target: str, settings: QuerySettings) -> Answer:  # noqa: ARG001 - the signature of all engines
    """Copy `database` and its logs to the file `target` and apply the logs to the copy."""
    _allow_large_files()
    try:
        if refused := _copy(database, Path(target)):
            return "failure", "unavailable", refused
        with closing(sqlite3.connect(target, isolation_level=None)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()  # rolls back uncommitted changes
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    except (OSError, sqlite3.Error) as error:
        return "failure", "unavailable", str(error)
    return "rows", (), []


def _copy(database: str, target: Path) -> str | None:
    """Copy the files while none of them changes. Return why that is impossible, or None."""
    for _ in range(_ATTEMPTS):
        before = state(database)
        sizes = [found[1] if found else 0 for found in before]
        needed, free = 2 * sum(sizes) - sizes[0], shutil.disk_usage(target.parent).free
        if needed > free:
            return f"{target.parent} needs {needed:,} free bytes, but it has {free:,}. Set TMPDIR to another folder."
        for end, found in zip(("", *LOGS), before, strict=True):
            if found:
                shutil.copyfile(database + end, f"{target}{end}")
            else:
                Path(f"{target}{end}").unlink(missing_ok=True)
        if state(database) == before:
            return None
    return "another process keeps writing to it. Stop that process, or judge on a backup of the database."


def _allow_large_files() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
