"""What engines share, and the one for servers that have no engine of their own."""

import datetime as dt
import math
import sqlite3
import time
import uuid
from decimal import Decimal
from pathlib import Path

import pytest

from sqlquarry.errors import JudgingError
from sqlquarry.judging.engines import engine_of, file_of
from sqlquarry.judging.engines.answers import fetched, plain, shown_url, without_secrets
from sqlquarry.judging.engines.sqlalchemy import _refused, run_query
from sqlquarry.judging.sandbox import Limits

LIMITS = Limits(row_limit=10, value_bytes_limit=100, result_bytes_limit=1000)
LIMITS_BY_NAME = {name: getattr(LIMITS, name) for name in vars(LIMITS)}


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (True, 1),
        (Decimal("2.00"), 2),
        (Decimal("1e30"), 10**30),
        (Decimal("0.1"), ("exact", "0.1")),
        (Decimal("1234567890123456.789"), ("exact", "1234567890123456.789")),
        (Decimal("1e5000"), ("exact", "1E+5000")),
        (dt.datetime(2020, 2, 3), "2020-02-03"),
        (Decimal("Infinity"), math.inf),
        (dt.date(2020, 2, 3), "2020-02-03"),
        (dt.time(4, 5), "04:05:00"),
        (dt.datetime(2020, 2, 3, 4, 5), "2020-02-03 04:05:00"),
        (dt.datetime(2020, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(hours=2))), "2020-02-03 02:00:00+00:00"),
        (dt.timedelta(days=2, milliseconds=1500), "P2DT1.500000S"),
        (uuid.UUID(int=10), "00000000-0000-0000-0000-00000000000a"),
        (memoryview(b"a"), b"a"),
        ([1, Decimal("1.5"), dt.date(2020, 2, 3), b"\xff", None], '[1, 1.5, "2020-02-03", "ff", null]'),
        ({"b": 1, "a": (True,)}, '{"a": [true], "b": 1}'),
        ([1.0, 0.1 + 0.2, Decimal("2.50"), Decimal("1.00000000000000000001")], "[1, 0.3, 2.5, 1.00000000000000000001]"),
        ("é", "é"),
    ],
)
def test_values_become_plain(value, want):
    assert (plain(value), type(plain(value))) == (want, type(want))


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        ([(1, "a")] * 10, ("rows", ("x", "y"), [(1, "a")] * 10)),
        ([(1, "a")] * 11, "more than 10 rows"),
        ([(1, "a" * 101)], "a value of more than 100 bytes"),
        ([(1, "a" * 99)] * 10, "more than 1,000 bytes of rows"),
    ],
)
def test_limits_end_the_fetch(rows, outcome):
    answer = fetched(["x", "y"], [rows], LIMITS_BY_NAME, time.monotonic() + 10)
    assert answer == outcome or outcome in answer[2]


def test_the_deadline_ends_the_fetch():
    assert fetched(["x"], [[(1,)]], LIMITS_BY_NAME, time.monotonic() - 1)[1] == "timeout"


@pytest.mark.parametrize(
    ("database", "name", "dialect"),
    [
        (Path("a.sqlite"), "SQLite", "sqlite"),
        ("a.db", "SQLite", "sqlite"),
        (Path("a.DuckDB"), "DuckDB", "duckdb"),
        ("sqlite:///a.duckdb", "SQLite", "sqlite"),
        ("duckdb:///a.db", "DuckDB", "duckdb"),
        ("postgresql+psycopg2://h/d", "PostgreSQL", "postgres"),
        ("mariadb+pymysql://h/d", "mariadb", "mysql"),
        ("mssql+pyodbc://h/d", "mssql", "tsql"),
    ],
)
def test_a_database_has_one_engine(database, name, dialect):
    engine = engine_of(database)
    assert (engine.name, engine.dialect) == (name, dialect)


def test_files_have_paths_and_servers_do_not():
    assert file_of("sqlite:////tmp/a%20b.db?x=1") == Path("/tmp/a b.db")
    assert file_of("a/b.db") == Path("a/b.db")
    assert file_of("postgresql://h/d") is None


@pytest.mark.parametrize("url", ["mysql://u:se/cret@h/d", "mysql://u:se#cret@h/d", "mysql://u:p@[h/d"])
def test_a_url_whose_password_is_unclear_is_refused_without_showing_it(url):
    with pytest.raises(JudgingError, match="mysql:// URL cannot be read") as caught:
        engine_of(url)
    assert "cret" not in str(caught.value)


def test_messages_hold_no_secrets():
    url = "mysql://u:p%40ss@h:1/d?password=hush&x=more"
    error = ValueError("cannot use p@ss or p%40ss with password=hush&x=more, hush or more\nsecond line")
    assert without_secrets(error, url) == "cannot use *** or *** with ***, *** or ***"
    assert shown_url(url) == "mysql://h:1/d"


REFUSED = [
    "DROP TABLE t",
    "INSERT INTO t VALUES (1)",
    "REPLACE INTO t VALUES (1)",
    "SET GLOBAL x = 1",
    "CALL f()",
    "LOAD DATA INFILE '/etc/passwd' INTO TABLE t",
    "SELECT a INTO OUTFILE '/tmp/x' FROM t",
    "SELECT a FROM t FOR UPDATE",
    "SELECT LOAD_FILE('/etc/passwd')",
    "SELECT load_file ('/etc/passwd') FROM t",
    "SELECT SLEEP(1000)",
    "SELECT BENCHMARK(1000000000, MD5('a'))",
    "SELECT GET_LOCK('a', 1)",
    "SELECT 1; DROP TABLE t",
    "SELECT a FROM (SELECT SLEEP(9) AS a) b",
    "WITH a AS (SELECT 1) DELETE FROM t",
    "HANDLER t OPEN",
    "LOCK TABLES t READ",
    "PREPARE p FROM 'DROP TABLE t'",
    "SHOW TABLES",
    "",
    "SELECT (",
    "SELECT a FROM t /*!50000 INTO OUTFILE '/tmp/x' */",
    "SELECT /*! SLEEP(9) */ a FROM t",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_what_may_do_more_than_read_is_refused(sql):
    refused = _refused(sql, "mysql")
    assert refused is not None
    assert refused[1] in ("forbidden", "syntax")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t",
        "(SELECT 1) UNION SELECT 2",
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
        "SELECT 'DROP TABLE t'",
    ],
)
def test_what_only_reads_is_not_refused(sql):
    assert _refused(sql, "mysql") is None


@pytest.fixture
def url(tmp_path) -> str:
    path = tmp_path / "a.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a, b)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(i, f"{i}%") for i in range(9)])
    connection.close()
    return f"sqlite:///{path}"


def test_any_sqlalchemy_database_can_be_asked(url):
    # SQLite has an engine of its own; here it stands for the servers that have none.
    assert run_query(url, "SELECT a, b FROM t WHERE b LIKE '1%'", LIMITS_BY_NAME) == ("rows", ("a", "b"), [(1, "1%")])
    for sql, kind in [
        ("SELECT nope FROM t", "no_such_column"),
        ("SELECT a FROM nope", "no_such_table"),
        ("SELECT t.a FROM t, t AS u", "too_many_rows"),
        ("DELETE FROM t", "forbidden"),
        ("SELECT a FROM t WHERE", "syntax"),
    ]:
        assert run_query(url, sql, LIMITS_BY_NAME)[:2] == ("failure", kind), sql
    assert run_query(url, "SELECT count(*) FROM t", LIMITS_BY_NAME)[2] == [(9,)]


def test_a_missing_driver_or_server_is_no_fault_of_the_query():
    answer = run_query("mysql+nodriver://u:hush@localhost:1/d", "SELECT 1", LIMITS_BY_NAME)
    assert answer[1] == "unavailable"
    assert "hush" not in answer[2]
