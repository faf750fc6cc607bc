"""Script of the processes that run queries for `sandbox`. It needs only the standard library.

It runs queries on SQLite files, unless its arguments give the module of another engine and the folders to import it
from. It reads requests from standard input and writes answers to standard output. Each is a length of 8 bytes,
big-endian, followed by a marshalled value. The first answer is READY and needs no request, so that the start does not
count as time of a query. A request is (path or URL, sql, settings). An answer is ("rows", columns, rows),
("failure", kind, message) or UNSETTLED for an SQLite database that can only be read in a copy. The process ends with
the judge, whose process id is its first argument.
"""

from __future__ import annotations

import _thread  # importing `threading` would take a tenth of the start time
import contextlib
import marshal
import math
import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal, TypedDict

FailureKind = Literal[
    "syntax",
    "no_such_column",
    "no_such_table",
    "timeout",
    "too_many_rows",
    "forbidden",
    "unknown_function",
    "unavailable",
    "other",
]
SentCell = int | float | str | bytes | tuple[str, str] | None  # (EXACT, digits) is an exact number with decimals
RowsAnswer = tuple[Literal["rows"], tuple[str, ...], list[tuple[SentCell, ...]]]
FailureAnswer = tuple[Literal["failure"], FailureKind, str]
Answer = RowsAnswer | FailureAnswer | tuple[Literal["unsettled"], str, str]
READY = "ready"
LOGS = ("-wal", "-journal")  # files next to an SQLite database that contain a part of its data
State = tuple[tuple[int, int, int] | None, ...]
UNSETTLED: Answer = ("unsettled", "", "")
EXACT = "exact"  # marks the digits of a number that marshal cannot store


class QuerySettings(TypedDict):
    """The fields of `ExecutionLimits` and `Permissions`, because this script cannot import those classes."""

    time_s: float
    rows: int
    result_bytes: int
    value_bytes: int
    memory_bytes: int
    allow_functions: Sequence[str]
    allow_privileged_accounts: bool
    allow_unchecked_servers: bool


# The actions of a query that only reads. https://sqlite.org/c3ref/c_alter_table.html
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_SCHEMA_PRAGMAS = {
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "foreign_key_list",
    "data_version",
}
_FORBIDDEN_FUNCTIONS = {"load_extension", "fts3_tokenizer", "writefile", "readfile", "edit"}
# SQLite has one code for all of these. Its messages are stable.
_KINDS: tuple[tuple[str, FailureKind], ...] = (
    ("no such column", "no_such_column"),
    ("no such table", "no_such_table"),
    ("syntax error", "syntax"),
    ("unrecognized token", "syntax"),
    ("incomplete input", "syntax"),
)
_UNREADABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_BUSY}
# The database has a log that only a process with write access can recover.
# SQLITE_READONLY_RECOVERY, _ROLLBACK, _CANTINIT and _DIRECTORY: https://sqlite.org/rescode.html
_NEEDS_WRITING = {264, 776, 1288, 1544}
_ATTEMPTS = 3  # to read a database that changes meanwhile
_WATCH_S = 0.5
_CPU_GRACE_S = 2
_STEPS_BETWEEN_CHECKS = 10_000  # SQLite instructions, which usually take well under a millisecond


def main(judge: str, address_space_bytes: str, module: str = "", *folders: str) -> None:
    """Answer requests until standard input or the process `judge` ends."""
    _thread.start_new_thread(_end_with, (int(judge),))
    _limit_process(int(address_space_bytes))
    run = run_query
    if module:
        sys.path[:] = folders
        run = import_module(module).run_query
    send(sys.stdout.buffer, READY)
    while (request := receive(sys.stdin.buffer)) is not None:
        _limit_cpu(request[2]["time_s"])
        send(sys.stdout.buffer, run(*request))


def send(pipe: IO[bytes], value: Any) -> None:
    """Write one value with its length."""
    content = marshal.dumps(value)
    pipe.write(len(content).to_bytes(8, "big") + content)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Read one value with its length. Return None at the end of the stream."""
    length = int.from_bytes(pipe.read(8), "big")
    content = pipe.read(length) if length else b""
    return marshal.loads(content) if length and len(content) == length else None  # noqa: S302 - our own two processes


def _end_with(judge: int) -> None:
    """End this process soon after the judge ends, even during a query. Engines release Python's lock.

    Linux can send a signal (PR_SET_PDEATHSIG), but it does so when the *thread* that started this process ends, and a
    judge's threads end before the judge does.
    """
    while os.getppid() == judge:
        time.sleep(_WATCH_S)
    os._exit(1)


def _limit_cpu(time_s: float) -> None:
    """Limit the CPU time of the next query, in case neither its engine nor the judge stops it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = math.ceil(time.process_time() + time_s) + _CPU_GRACE_S
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _limit_process(address_space_bytes: int) -> None:
    """Limit memory and temporary files (which sorts write) if the operating system supports it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        for name, limit in (
            (resource.RLIMIT_AS, address_space_bytes),
            (resource.RLIMIT_FSIZE, 1 << 30),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(name)[1]
            resource.setrlimit(name, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def run_query(database: str, sql: str, settings: QuerySettings) -> Answer:
    """Run one statement and fetch its rows. An error becomes a failure. Nothing is written next to the database."""
    guard, path = _Guard(settings), os.path.realpath(database)
    for _ in range(_ATTEMPTS):
        before = state(path)
        uri = _read_only_uri(path, before)
        answer = _answer(uri, sql, guard) if uri else UNSETTLED
        # A reader with locks was not disturbed, unless the writer ended before the reader got them.
        is_locked = uri is not None and "immutable" not in uri
        if state(path) == before or (is_locked and answer[1] != "unavailable"):
            return answer
    return "failure", "unavailable", "another process writes to the database while it is read. Judge on a backup."


def _answer(uri: str, sql: str, guard: _Guard) -> Answer:
    try:
        with closing(sqlite3.connect(uri, guard.wait_s, uri=True, isolation_level=None)) as connection:
            guard.protect(connection)
            return guard.fetch(connection.execute(sql))
    # A second statement is a Warning, which is not an Error. A query may contain a lone surrogate or NUL.
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
        return guard.explain(error)


def state(path: str) -> State:
    """Return inode, size and modification time of the database, its write-ahead log and its rollback journal."""
    states: list[tuple[int, int, int] | None] = []
    for end in ("", *LOGS):
        try:
            found = os.stat(path + end)  # noqa: PTH116 - creating a Path takes longer than the call
        except OSError:
            states.append(None)
        else:
            states.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(states)


def _read_only_uri(path: str, files: State) -> str | None:
    """Return a URI that opens the database without creating or changing a file next to it, or None if none does.

    ``immutable`` takes no locks and creates no -shm file, but it ignores the content of logs. ``readonly_shm`` reads a
    write-ahead log and takes locks, but it needs a writer's -shm file. A database in rollback mode needs no such file.
    """
    pending, journal = (found is not None and found[1] > 0 for found in files[1:])
    if (pending and not Path(path + "-shm").exists()) or (journal and not pending and _is_in_wal_mode(path)):
        return None
    options = "&readonly_shm=1" if pending else "" if journal else "&immutable=1"
    return f"{_uri_of(path)}?mode=ro{options}"


@lru_cache(maxsize=256)
def _uri_of(path: str) -> str:
    return Path(path).as_uri()


def _is_in_wal_mode(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(20)[18:] != b"\x01\x01"  # https://sqlite.org/fileformat.html, 1.3.3


class _Guard:
    """A guard that lets one query only read and stops it at its limits."""

    def __init__(self, settings: QuerySettings) -> None:
        self.settings = settings
        self.deadline = time.monotonic() + settings["time_s"]
        self.wait_s = settings["time_s"] / 4  # for a writer's lock, so that the rest is left for the query
        self.denied: str | None = None

    def protect(self, connection: sqlite3.Connection) -> None:
        # Undecodable bytes must neither stop the query nor become equal to each other.
        connection.text_factory = lambda data: data.decode("utf-8", errors="backslashreplace")
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self.settings["value_bytes"])
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_authorizer(self._authorize)
        connection.set_progress_handler(self._expired, _STEPS_BETWEEN_CHECKS)

    def _expired(self) -> bool:
        return time.monotonic() > self.deadline

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS:
            self.denied = f"function {second}"
        elif action == sqlite3.SQLITE_PRAGMA:
            if (first or "").lower() not in _SCHEMA_PRAGMAS:
                self.denied = f"PRAGMA {first}"
        elif action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":
            # SQLite reports this action for every virtual table (FTS, json_each) that it reads. `mode=ro` and
            # `query_only` refuse a real update, and writable_schema is off.
            return sqlite3.SQLITE_OK
        elif action not in _READING:
            self.denied = "a statement that does more than read"
        return sqlite3.SQLITE_DENY if self.denied else sqlite3.SQLITE_OK

    def fetch(self, cursor: sqlite3.Cursor) -> Answer:
        if cursor.description is None:
            return "failure", "syntax", "the query contains no statement"
        rows: list[tuple[SentCell, ...]] = []
        size = 0
        for row in cursor:
            rows.append(row)
            size += 16 * len(row) + sum(len(cell) for cell in row if isinstance(cell, str | bytes))
            if len(rows) > self.settings["rows"]:
                return "failure", "too_many_rows", f"more than {self.settings['rows']:,} rows"
            if size > self.settings["result_bytes"]:
                return "failure", "too_many_rows", f"more than {self.settings['result_bytes']:,} bytes of rows"
            if self._expired():
                return self._timeout()
        return "rows", tuple(column[0] for column in cursor.description), rows

    def _timeout(self) -> Answer:
        return "failure", "timeout", f"stopped after {self.settings['time_s']:g} s"

    def explain(self, error: Exception) -> Answer:
        message = str(error)
        if self.denied:
            return "failure", "forbidden", f"{self.denied} is not allowed, because queries may only read"
        code = getattr(error, "sqlite_errorcode", None)
        if code in _NEEDS_WRITING:
            return UNSETTLED
        if code == sqlite3.SQLITE_INTERRUPT:
            return self._timeout()
        if code in _UNREADABLE:
            hint = " (the name of a DuckDB file must end in .duckdb)" if code == sqlite3.SQLITE_NOTADB else ""
            return "failure", "unavailable", f"{message}{hint}"
        if "one statement at a time" in message:
            return "failure", "forbidden", "more than one statement"
        kind: FailureKind = next((kind for words, kind in _KINDS if words in message.lower()), "other")
        return "failure", kind, message or type(error).__name__


if __name__ == "__main__":
    main(*sys.argv[1:])
