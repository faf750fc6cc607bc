"""Parts that all engines share, and the engine for servers without an engine of their own."""

import datetime as dt
import math
import re
import sqlite3
import time
import uuid
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from sqlquarry.errors import JudgingError
from sqlquarry.execution.engines import engine_of, file_of
from sqlquarry.execution.engines.answers import collect_rows, shown_url, without_secrets
from sqlquarry.execution.engines.sqlalchemy import restrict, run_query
from sqlquarry.execution.engines.values import plain_value
from sqlquarry.execution.limits import ExecutionLimits, Permissions
from sqlquarry.execution.sandbox import settings_of
from sqlquarry.judging.execution import ExecutionGrader
from sqlquarry.records import Record

LIMITS = ExecutionLimits(rows=10, value_bytes=100, result_bytes=1000)
SETTINGS = settings_of(LIMITS, Permissions(allow_unchecked_servers=True))


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (True, 1),
        (Decimal("2.00"), 2),
        (Decimal("1e30"), 10**30),
        (Decimal("0.1"), ("exact", "0.1")),
        (Decimal("1234567890123456.789"), ("exact", "1234567890123456.789")),
        (Decimal("1e150000"), ("exact", "1E+150000")),
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
    assert (plain_value(value), type(plain_value(value))) == (want, type(want))


@pytest.mark.parametrize(
    ("rows", "kind", "limit"),
    [
        ([(1, "a")] * 11, "too_many_rows", "10"),
        ([(1, "a" * 101)], "other", "100"),
        ([(1, "a" * 99)] * 10, "too_many_rows", "1,000"),
    ],
)
def test_limits_end_the_fetch(rows, kind, limit):
    failure, found, message = collect_rows(["x", "y"], [rows], SETTINGS, time.monotonic() + 10)
    assert (failure, found, re.findall(r"[\d,]+", message)) == ("failure", kind, [limit])


def test_rows_within_the_limits_are_returned():
    rows = [(1, "a")] * 10
    assert collect_rows(["x", "y"], [rows], SETTINGS, time.monotonic() + 10) == ("rows", ("x", "y"), rows)


def test_the_deadline_ends_the_fetch():
    assert collect_rows(["x"], [[(1,)]], SETTINGS, time.monotonic() - 1)[1] == "timeout"


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
    with pytest.raises(JudgingError, match=r"mysql://.*%2F %23 %3F %40") as caught:
        engine_of(url)
    assert "cret" not in str(caught.value)


def test_messages_contain_no_secrets():
    url = "mysql://u:p%40ss@h:1/d?password=hush&x=more"
    error = ValueError("cannot use p@ss or p%40ss with password=hush&x=more, hush or more\nsecond line")
    assert without_secrets(error, url) == "cannot use *** or *** with ***, *** or ***"
    assert shown_url(url) == "mysql://h:1/d"


def answer(dialect, sql, allowed=()):
    """Return the kind of the engine's answer. A query that is not refused needs the missing driver: "unavailable"."""
    settings = settings_of(LIMITS, Permissions(allow_functions=allowed, allow_unchecked_servers=True))
    return run_query(f"{dialect}+nodriver://h/d", sql, settings)[1]


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
    assert answer("mysql", sql) in ("forbidden", "syntax", "unknown_function")


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("mysql", "SELECT SOURCE_POS_WAIT('a', 1)"),
        ("mysql", "SELECT RELEASE_ALL_LOCKS()"),
        ("mysql", "SELECT LAST_INSERT_ID(5)"),
        ("mysql", "SELECT sys.ps_kill(1)"),
        ("mysql", "SELECT `sleep`(9)"),
        ("mysql", "SELECT @a := 1"),
        ("mysql", "SELECT /*+ SET_VAR(max_execution_time = 0) */ a FROM t"),
        ("mysql", "SELECT a FROM t LOCK IN SHARE MODE"),
        ("mysql", "SELECT NEXT VALUE FOR s"),
        ("mysql", "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE SLEEP(9) = b)"),
        ("mysql", "WITH a AS (SELECT GET_LOCK('x', 1) AS b) SELECT 1"),
        ("redshift", "SELECT pg_terminate_backend(1)"),
        ("redshift", "SELECT pg_sleep(9)"),
        ("redshift", "SELECT pg_catalog.pg_cancel_backend(1)"),
        ("oracle", "SELECT utl_http.request('http://x') FROM dual"),
        ("oracle", "SELECT dbms_pipe.receive_message('a', 9) FROM dual"),
        ("oracle", "SELECT my_package.lower('a') FROM dual"),
        ("oracle", "SELECT httpuritype('http://x').getclob() FROM dual"),
        ("oracle", "SELECT s.NEXTVAL FROM dual"),
        ("oracle", "SELECT a FROM t@other"),
        ("oracle", "SELECT a FROM t FOR UPDATE"),
        ("tsql", "SELECT NEXT VALUE FOR dbo.s"),
        ("tsql", "SELECT * FROM OPENQUERY(s, 'DROP TABLE t')"),
        ("tsql", "SELECT * FROM OPENDATASOURCE('x', 'y').a.b.c"),
        ("tsql", "SELECT * FROM other.shop.dbo.t"),
        ("tsql", "SELECT * FROM sys.fn_xe_file_target_read_file('c:\\a', NULL, NULL, NULL)"),
        ("tsql", "SELECT dbo.len(a) FROM t"),
        ("tsql", "SELECT a INTO u FROM t"),
        ("tsql", "EXEC xp_cmdshell 'dir'"),
        ("tsql", "WAITFOR DELAY '0:0:9'"),
        ("tsql", "SELECT a FROM t EXEC('DROP TABLE t')"),
        ("tsql", "SELECT a FROM t EXECUTE (b)"),
        ("tsql", "SELECT 1 SHUTDOWN"),
        ("tsql", "SELECT a FROM t COMMIT"),
        ("tsql", "SELECT 1 DROP TABLE t"),
        ("tsql", "SELECT a FROM t WITH (TABLOCKX)"),
        ("snowflake", "SELECT SYSTEM$WAIT(9)"),
        ("snowflake", "SELECT system$cancel_query('a')"),
        ("snowflake", "SELECT $1 FROM @stage/a"),
        ("snowflake", "SELECT * FROM TABLE(my_function(1))"),
        ("snowflake", "SELECT s.nextval"),
        ("snowflake", "SELECT SNOWFLAKE.CORTEX.COMPLETE('a', 'b')"),
        ("snowflake", "CALL p()"),
        ("clickhouse", "SELECT * FROM url('http://x', CSV, 'a Int8')"),
        ("clickhouse", "SELECT * FROM file('/etc/passwd')"),
        ("clickhouse", "SELECT * FROM executable('x.sh', CSV, 'a Int8')"),
        ("clickhouse", "SELECT * FROM remote('h', db, t)"),
        ("clickhouse", "SELECT * FROM s3('https://x')"),
        ("clickhouse", "SELECT sleep(3)"),
        ("clickhouse", "SELECT a FROM t SETTINGS max_execution_time = 0"),
        ("clickhouse", "SELECT a FROM t INTO OUTFILE 'x'"),
        ("trino", "SELECT * FROM TABLE(mysql.system.query(query => 'DROP TABLE t'))"),
        ("trino", "CALL system.runtime.kill_query('a')"),
        ("athena", "USING EXTERNAL FUNCTION f(x INT) RETURNS INT LAMBDA 'y' SELECT f(1)"),
        ("athena", "UNLOAD (SELECT 1) TO 's3://x'"),
        ("bigquery", "SELECT * FROM EXTERNAL_QUERY('c', 'DROP TABLE t')"),
        ("bigquery", "SELECT * FROM ML.PREDICT(MODEL m, TABLE t)"),
        ("bigquery", "SELECT NET.HOST('x')"),
        ("databricks", "SELECT * FROM parquet.`s3://x/y`"),
        ("databricks", "SELECT ai_query('m', 'p')"),
        ("spark", "SELECT TRANSFORM(a) USING 'cat' FROM t"),
        ("spark", "SELECT java_method('java.lang.System', 'exit', 1)"),
        ("hive", "SELECT reflect('java.lang.System', 'exit', 1)"),
        ("duckdb", "SELECT * FROM read_csv('/etc/passwd')"),
        ("nobody_knows", "SELECT my_function(1)"),
        ("nobody_knows", "SELECT '\\'' , f(), '"),
    ],
)
def test_what_may_reach_outside_is_refused_in_all_dialects(dialect, sql):
    assert answer(dialect, sql) in ("forbidden", "syntax", "unknown_function")


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("mysql", "SELECT a FROM t"),
        ("mysql", "(SELECT 1) UNION SELECT 2"),
        ("mysql", "WITH a AS (SELECT 1 AS x) SELECT x FROM a"),
        ("mysql", "SELECT 'DROP TABLE t', 'sleep(1)' AS sleep"),
        ("mysql", "SELECT YEAR(d), DATE_FORMAT(d, '%Y'), IFNULL(a, 1), GROUP_CONCAT(a), FIND_IN_SET('a', b) FROM t"),
        ("mysql", "SELECT rank() OVER (ORDER BY a), JSON_EXTRACT(j, '$.a'), a DIV 2, CONCAT(a, b), COUNT(*) FROM t"),
        ("mysql", "VALUES ROW(1, 2)"),
        ("tsql", "SELECT TOP 5 DATEADD(day, 1, d), ISNULL(a, 1), GETDATE(), LEN(a), PATINDEX('%a%', b) FROM dbo.t"),
        ("tsql", "SELECT [open], [close] FROM t WITH (NOLOCK)"),
        ("tsql", "SELECT [a], STRING_AGG(b, ',') FROM shop.dbo.t CROSS APPLY STRING_SPLIT(c, ',') GROUP BY [a]"),
        ("oracle", "SELECT NVL(a, 1), TO_CHAR(d, 'YYYY'), TRUNC(d), DECODE(a, 1, 2), SYSDATE FROM t WHERE ROWNUM < 3"),
        ("redshift", "SELECT NVL(a, 1), DATEADD(day, 1, d), LISTAGG(a, ','), JSON_EXTRACT_PATH_TEXT(j, 'a') FROM s.t"),
        ("snowflake", "SELECT IFF(a > 1, 1, 2), OBJECT_CONSTRUCT('a', 1) FROM t QUALIFY RANK() OVER (ORDER BY b) = 1"),
        ("snowflake", "SELECT f.value FROM t, LATERAL FLATTEN(input => t.a) f"),
        ("clickhouse", "SELECT sumIf(a, b), quantile(0.5)(a), uniqExact(a), toYear(d), arrayJoin(x) FROM t FINAL"),
        ("trino", "SELECT date_diff('day', a, b), element_at(m, 'a'), from_unixtime(a) FROM t CROSS JOIN UNNEST(x)"),
        ("bigquery", "SELECT SAFE_DIVIDE(a, b), FORMAT_DATE('%Y', d), ARRAY_AGG(a) FROM `p-x.d.t`, UNNEST(b) AS c"),
        ("nobody_knows", "SELECT sum(a), upper(b), CASE WHEN a > 1 THEN 2 END FROM t GROUP BY b"),
    ],
)  # fmt: skip
def test_what_only_reads_is_not_refused(dialect, sql):
    assert answer(dialect, sql) == "unavailable"


def test_the_user_may_allow_more_functions():
    sql = "SELECT tax(a), shop.net(a) FROM t"
    assert answer("mysql", sql) == "unknown_function"
    assert answer("mysql", sql, ["TAX"]) == "unknown_function"
    assert answer("mysql", sql, ["tax", "shop.*"]) == "unavailable"


def test_a_server_that_is_not_checked_must_be_allowed(url):
    refused = run_query(url, "SELECT 1", settings_of(LIMITS, Permissions()))
    assert refused[1] == "unavailable"
    grader = ExecutionGrader({"shop": "mysql+nodriver://u:hush@localhost:1/d"})
    judgement = grader.grade(Record("q", "CREATE TABLE t (a)", "SELECT 1", "shop"), "SELECT 1")
    assert judgement.verdict == "unjudged"
    assert "hush" not in judgement.reason


@pytest.fixture
def url(tmp_path) -> str:
    path = tmp_path / "a.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a, b)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(i, f"{i}%") for i in range(9)])
    connection.close()
    return f"sqlite:///{path}"


def test_any_sqlalchemy_database_can_run_queries(url):
    # SQLite has its own engine. Here it replaces a server without one.
    assert run_query(url, "SELECT a, b FROM t WHERE b LIKE '1%'", SETTINGS) == ("rows", ("a", "b"), [(1, "1%")])
    for sql, kind in [
        ("SELECT nope FROM t", "no_such_column"),
        ("SELECT a FROM nope", "no_such_table"),
        ("SELECT t.a FROM t, t AS u", "too_many_rows"),
        ("DELETE FROM t", "forbidden"),
        ("SELECT a FROM t WHERE", "syntax"),
    ]:
        assert run_query(url, sql, SETTINGS)[:2] == ("failure", kind), sql
    assert run_query(url, "SELECT count(*) FROM t", SETTINGS)[2] == [(9,)]


def test_a_missing_driver_or_server_is_not_the_fault_of_the_query():
    _, kind, message = run_query("mysql+nodriver://u:hush@localhost:1/d", "SELECT 1", SETTINGS)
    assert kind == "unavailable"
    assert "hush" not in message


@pytest.mark.parametrize(
    ("name", "is_mariadb", "words"),
    [
        ("mysql", False, "max_execution_time = 1500"),
        ("mysql", True, "max_statement_time = 1.5"),
        ("mariadb", True, "max_statement_time = 1.5"),
        ("postgresql", None, "statement_timeout TO 1500"),
        ("oracle", None, ""),
    ],
)
def test_sessions_are_limited_in_the_words_of_the_server(name: str, is_mariadb: bool | None, words: str):
    connection = Mock()
    connection.dialect = SimpleNamespace(name=name) if is_mariadb is None else Mock(is_mariadb=is_mariadb)
    connection.dialect.name = name
    restrict(connection, 1.5)
    assert words in " ".join(call.args[0] for call in connection.exec_driver_sql.call_args_list)
    assert bool(words) == connection.exec_driver_sql.called
