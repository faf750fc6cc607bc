"""Queries on real SQLite files in the sandbox: kinds of failures, and hostile queries that change nothing."""

import hashlib
import os
import re
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from judging_shop import create_shop
from processes import query_processes, stopped_within
from sqlquarry.errors import JudgingError
from sqlquarry.execution.limits import ExecutionLimits
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox

TIME_LIMIT_S = 0.3  # for queries that must be stopped, the others have the default
LONG = "printf('%.*c', 900000, 'a')"
COUNT_FOR_EVER = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)"


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return create_shop(tmp_path_factory.mktemp("db"))


@pytest.fixture
def sandbox():
    box = Sandbox(ExecutionLimits())
    yield box
    box.close()


def child_of(sandbox: Sandbox, database: Path) -> int:
    """Let a new sandbox start its child process, and return its id."""
    before = query_processes()
    sandbox.run(database, "SELECT 1")
    (child,) = query_processes() - before
    return child


HOSTILE = [
    ("DROP TABLE item", "forbidden"),
    ("DELETE FROM item", "forbidden"),
    ("INSERT INTO item VALUES (0, 'x', 0)", "forbidden"),
    ("UPDATE item SET price = 0", "forbidden"),
    ("UPDATE sqlite_master SET sql = ''", "other"),
    ("CREATE TABLE x (a)", "forbidden"),
    ("CREATE TEMP TABLE x (a)", "forbidden"),
    ("CREATE VIRTUAL TABLE x USING fts5(a)", "forbidden"),
    ("ATTACH '{folder}/new.sqlite' AS n", "forbidden"),
    ("VACUUM", "forbidden"),
    ("VACUUM INTO '{folder}/copy.sqlite'", "forbidden"),
    ("PRAGMA writable_schema = ON", "forbidden"),
    ("PRAGMA query_only = OFF", "forbidden"),
    ("PRAGMA journal_mode = WAL", "forbidden"),
    ("PRAGMA user_version = 7", "forbidden"),
    ("BEGIN IMMEDIATE", "forbidden"),
    ("SELECT load_extension('{folder}/x.so')", "forbidden"),
    ("SELECT writefile('{folder}/x', 'y')", "other"),
    ("SELECT 1; DROP TABLE item", "forbidden"),
    (f"{COUNT_FOR_EVER} SELECT count(*) FROM r", "timeout"),
    (f"{COUNT_FOR_EVER} SELECT n FROM r", ("too_many_rows", "timeout")),
    ("SELECT count(*) FROM item a, item b, item c, item d", "timeout"),
    ("SELECT a.name || b.name AS k FROM item a, item b, item c ORDER BY k", "timeout"),
    ("SELECT group_concat(a.name) FROM item a, item b, item c", ("other", "timeout")),
    ("SELECT randomblob(1000000000)", "other"),
    ("SELECT zeroblob(2000000000)", "other"),
    ("SELECT randomblob(900000) FROM item", ("too_many_rows", "timeout")),
    # SQLite cannot interrupt a call of a built-in function, so the process is killed.
    ("SELECT printf('%.*c', 1000000000, 'x')", "timeout"),
    (f"SELECT instr({LONG}, substr({LONG}, 1, 450000) || 'b')", "timeout"),
    (f"SELECT count(*) FROM item WHERE instr({LONG} || name, substr({LONG}, 1, 450000) || 'b')", "timeout"),
    ("SELECT " + "(" * 5000, ("syntax", "other")),
    ("SELECT " + "+".join("1" * 5000), "other"),
    ("SELECT \ud800", "other"),
    ("SELECT 'a\0b'", "other"),
]


def test_hostile_queries_change_no_byte_and_end_in_time(database, sandbox):
    sandbox.limits = ExecutionLimits(time_s=TIME_LIMIT_S)
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    for sql, kinds in HOSTILE:
        start = time.monotonic()
        outcome = sandbox.run(database, sql.replace("{folder}", str(database.parent)))
        took = time.monotonic() - start
        assert isinstance(outcome, Failure), sql[:100]
        assert outcome.kind in kinds, (sql[:100], outcome)
        assert took < TIME_LIMIT_S + 1.5, f"{sql[:100]} took {took:.1f} s"
        assert [path.name for path in database.parent.iterdir()] == [database.name], sql[:100]
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert sandbox.run(database, "SELECT count(*) FROM item") == Rows(("count(*)",), [(1000,)])


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT nope FROM item", "no_such_column"),
        ("SELECT 1 FROM nope", "no_such_table"),
        ("SELEC 1", "syntax"),
        ("SELECT (1", "syntax"),
        ("SELECT 'a", "syntax"),
        ("-- nothing", "syntax"),
        ("SELECT abs(-9223372036854775808)", "other"),
    ],
)
def test_failures_have_kinds(database, sandbox, sql, kind):
    assert sandbox.run(database, sql).kind == kind


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;",
        "SELECT 1 -- a comment; here",
        "PRAGMA table_info(item)",
        "SELECT name FROM pragma_table_info('item')",
        "SELECT value FROM json_each('[1, 2]')",
        "SELECT body FROM note WHERE note MATCH 'hello'",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT sum(n) FROM r",
        'SELECT name FROM item WHERE name = "item 1"',  # a string literal, as in sql-create-context
    ],
)
def test_queries_that_only_read_are_run(database, sandbox, sql):
    assert isinstance(sandbox.run(database, sql), Rows)


def test_different_undecodable_texts_stay_different(database, sandbox):
    assert sandbox.run(database, "SELECT x FROM broken").rows == [("\\xffA",), ("\\xfeA",)]


def test_a_database_with_a_write_ahead_log_is_read_in_full(tmp_path, sandbox):
    path = tmp_path / "wal.sqlite"
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (a)")
    writer.execute("INSERT INTO t VALUES (1)")
    writer.commit()
    assert sandbox.run(path, "SELECT a FROM t") == Rows(("a",), [(1,)])
    writer.close()


def test_a_query_that_ends_its_process_is_a_failure_and_the_next_one_runs(database, sandbox):
    child = child_of(sandbox, database)
    threading.Timer(0.2, os.kill, (child, signal.SIGKILL)).start()
    outcome = sandbox.run(database, f"{COUNT_FOR_EVER} SELECT count(*) FROM r")
    assert outcome.kind == "other"
    assert re.search(r"\bSQLite\b.*-9\b", outcome.message), "engine and exit status"
    assert sandbox.run(database, "SELECT 1").rows == [(1,)]


def test_a_process_that_ended_between_two_queries_is_replaced(database, sandbox):
    child = child_of(sandbox, database)
    os.kill(child, signal.SIGKILL)
    assert stopped_within(child, 10)
    assert sandbox.run(database, "SELECT 1").rows == [(1,)]


def test_several_threads_run_queries_at_the_same_time(database, sandbox):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: sandbox.run(database, f"SELECT {i}").rows, range(100)))
    assert results == [[(i,)] for i in range(100)]


def test_a_process_that_does_not_start_is_an_error_not_a_verdict(database, sandbox, monkeypatch):
    monkeypatch.setattr("sqlquarry.execution.sandbox_child.__file__", "/nonexistent.py")
    with pytest.raises(JudgingError, match=r"/nonexistent\.py"):
        sandbox.run(database, "SELECT 1")
