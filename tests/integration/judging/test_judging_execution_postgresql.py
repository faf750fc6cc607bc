"""Execution on a real PostgreSQL server as a superuser, where hostile queries change nothing and end in time."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import psutil
import psycopg
import pytest

from judging_postgresql import PASSWORD, throwaway_server
from processes import query_processes
from sqlquarry.errors import JudgingError
from sqlquarry.execution.limits import ExecutionLimits, Permissions
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox
from sqlquarry.judging import ComparisonOptions, Report, SQLJudge, write_html, write_junit, write_markdown
from sqlquarry.judging.execution import ExecutionGrader
from sqlquarry.records import Record

TIME_LIMIT_S = 0.5
AS_SUPERUSER = Permissions(allow_privileged_accounts=True, allow_functions=["public.dearest"])
COUNT_FOR_EVER = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)"
SETUP = """
    CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price NUMERIC(8, 2), made DATE, tags TEXT[], more JSONB);
    INSERT INTO item SELECT i, 'item ' || i, i % 3 + 0.5, DATE '2020-01-01' + i, ARRAY[i, i + 1],
        jsonb_build_object('b', i, 'a', NULL) FROM generate_series(1, 1000) i;
    CREATE SEQUENCE counter;
    CREATE FUNCTION bump() RETURNS int LANGUAGE sql AS 'DELETE FROM item RETURNING 1';
    CREATE FUNCTION dearest() RETURNS numeric LANGUAGE sql STABLE AS 'SELECT max(price) FROM item';
    CREATE FUNCTION odd$name() RETURNS int LANGUAGE sql AS 'DELETE FROM item RETURNING 1';
    CREATE EXTENSION dblink;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with throwaway_server() as url:
        with psycopg.connect(f"{url}/postgres", autocommit=True) as admin:
            admin.execute("CREATE DATABASE shop")
            admin.execute("CREATE DATABASE other")
        for name in ("shop", "other"):
            with psycopg.connect(f"{url}/{name}") as admin:
                admin.execute(SETUP)
        with psycopg.connect(f"{url}/other") as admin:
            admin.execute("UPDATE item SET price = id")
        yield url


@pytest.fixture(scope="module")
def shop(server):
    return f"{server}/shop"


@pytest.fixture(scope="module")
def sandbox():
    box = Sandbox(ExecutionLimits(), AS_SUPERUSER)
    yield box
    box.close()


@pytest.fixture(scope="module")
def grader(shop):
    return ExecutionGrader({"shop": shop}, allow_privileged_accounts=True)


def record(sql: str, database: str | None = "shop", **fields) -> Record:
    return Record("q", "CREATE TABLE item (id, name, price)", sql, database, dialect="postgres", **fields)


def content(url: str) -> list:
    with psycopg.connect(url) as admin:
        return [
            admin.execute(query).fetchall()
            for query in (
                "SELECT * FROM item ORDER BY id",
                "SELECT relname FROM pg_class ORDER BY 1",
                "SELECT datname FROM pg_database ORDER BY 1",
                "SELECT proname FROM pg_proc ORDER BY oid",
                "SELECT oid FROM pg_largeobject_metadata",
                "SELECT last_value, is_called FROM counter",
                "SELECT name, setting FROM pg_settings WHERE name IN ('work_mem', 'statement_timeout') ORDER BY 1",
                "SELECT setdatabase FROM pg_db_role_setting",
            )
        ]


HOSTILE = [
    ("DROP TABLE item", "forbidden"),
    ("DELETE FROM item", "forbidden"),
    ("INSERT INTO item (id) VALUES (0)", "forbidden"),
    ("UPDATE item SET price = 0 RETURNING id", "forbidden"),
    ("TRUNCATE item", "forbidden"),
    ("CREATE TABLE x (a int)", "forbidden"),
    ("CREATE TEMP TABLE x (a int)", "forbidden"),
    ("SELECT * INTO x FROM item", "forbidden"),
    ("WITH gone AS (DELETE FROM item RETURNING *) SELECT * FROM gone", "forbidden"),
    ("SELECT * FROM item FOR UPDATE", "forbidden"),
    ("LOCK TABLE item", "forbidden"),
    ("COPY item TO '{folder}/copy'", "forbidden"),
    ("COPY (SELECT 1) TO PROGRAM 'touch {folder}/program'", "forbidden"),
    ("COPY item FROM '/etc/passwd'", "forbidden"),
    ("SELECT 1; DROP TABLE item", "forbidden"),
    ("SELECT 1; COPY (SELECT 1) TO '{folder}/copy'", "forbidden"),
    ("COMMIT; DROP TABLE item", "forbidden"),
    ("DO $$ BEGIN DELETE FROM item; END $$", "forbidden"),
    ("SET statement_timeout = 0", "forbidden"),
    ("SET ROLE judge", "forbidden"),
    ("ALTER SYSTEM SET work_mem = '1GB'", "forbidden"),
    ("ALTER DATABASE shop SET work_mem = '1GB'", "forbidden"),
    ("COMMIT", "forbidden"),
    ("VACUUM", "forbidden"),
    ("LISTEN x", "forbidden"),
    ("PREPARE p AS DELETE FROM item", "forbidden"),
    ("EXPLAIN ANALYZE DELETE FROM item", "forbidden"),
    ("LOAD '{folder}/x.so'", "forbidden"),
    ("CREATE EXTENSION file_fdw", "forbidden"),
    ("SELECT set_config('statement_timeout', '0', false)", "forbidden"),
    ("SELECT nextval('counter')", "forbidden"),
    ("SELECT setval('counter', 99)", "forbidden"),
    ("SELECT bump()", "unknown_function"),
    ("SELECT pg_sleep(1000)", "forbidden"),
    ("SELECT pg_read_file('/etc/passwd')", "forbidden"),
    ("SELECT PG_READ_FILE /* ( */ ('/etc/passwd')", "forbidden"),
    ("SELECT \"pg_read_file\"('/etc/passwd')", "forbidden"),
    ("SELECT ('/etc/passwd'::text).pg_read_file", "forbidden"),
    ("SELECT U&\"\\0070g_read_file\"('/etc/passwd')", "forbidden"),
    ("SELECT u&\"!0070g_read_file\" UESCAPE '!' ('/etc/passwd')", "forbidden"),
    ("SELECT $$'$$, pg_read_file('/etc/passwd')", "forbidden"),
    ("SELECT $a$x$a$pg_read_file('/etc/passwd')", "syntax"),
    ("SELECT odd$name()", "unknown_function"),
    ("SELECT * FROM pg_ls_dir('/')", "forbidden"),
    ("SELECT lo_import('/etc/passwd')", "forbidden"),
    ("SELECT lo_create(0)", "forbidden"),
    ("SELECT lo_export(1, '{folder}/lo')", "forbidden"),
    ("SELECT * FROM dblink('dbname=shop', 'DROP TABLE item') AS t (a text)", "unknown_function"),
    ("SELECT query_to_xml('SELECT bump()', true, true, '')", "forbidden"),
    ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity", "forbidden"),
    ("SELECT pg_reload_conf()", "forbidden"),
    ("SELECT pg_advisory_lock(1)", "forbidden"),
    ("SELECT pg_notify('a', 'b')", "forbidden"),
    (f"{COUNT_FOR_EVER} SELECT count(*) FROM r", "timeout"),
    (f"{COUNT_FOR_EVER} SELECT n FROM r", ("too_many_rows", "timeout")),
    ("SELECT count(*) FROM item a, item b, item c, item d", "timeout"),
    ("SELECT a.id FROM item a, item b, item c", ("too_many_rows", "timeout")),
    ("SELECT a.id FROM item a, item b, item c ORDER BY md5(b.name || c.name)", "timeout"),
    ("SELECT repeat('x', 1000000000)", ("other", "timeout")),
    ("SELECT string_agg(repeat('x', 1000000), '') FROM item a, item b", ("other", "timeout")),
    ("SELECT repeat('x', 900000) FROM item", ("too_many_rows", "timeout")),
    ("SELECT " + "(" * 5000, ("syntax", "other")),
    ("SELECT " + "+".join("1" * 50000), ("other", "timeout")),
    ("SELECT '\ud800'", "other"),
    ("SELECT 'a\0b'", ("syntax", "other")),
]


def test_hostile_queries_change_nothing_and_end_in_time(shop, tmp_path):
    sandbox = Sandbox(ExecutionLimits(time_s=TIME_LIMIT_S), AS_SUPERUSER)
    tmp_path.chmod(0o777)
    before = content(shop)
    for sql, kinds in HOSTILE:
        sandbox.run(shop, "SELECT 1")  # starts a process again if the last query ended it
        start = time.monotonic()
        outcome = sandbox.run(shop, sql.replace("{folder}", str(tmp_path)))
        took = time.monotonic() - start
        assert isinstance(outcome, Failure), (sql[:100], outcome)
        assert outcome.kind in kinds, (sql[:100], outcome)
        assert took < TIME_LIMIT_S + 2, f"{sql[:100]} took {took:.1f} s"
        assert PASSWORD not in outcome.message
    assert not list(tmp_path.iterdir())
    assert content(shop) == before
    assert sandbox.run(shop, "SELECT count(*) FROM item") == Rows(("count",), [(1000,)])


def test_the_server_stops_a_query_that_the_client_gave_up(shop):
    sandbox = Sandbox(ExecutionLimits(time_s=TIME_LIMIT_S), AS_SUPERUSER)
    assert sandbox.run(shop, "SELECT count(*) FROM item a, item b, item c, item d").kind == "timeout"
    with psycopg.connect(shop) as admin:
        active = (
            "SELECT query FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid() AND query ~ 'item'"
        )
        assert admin.execute(active).fetchall() == []


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT nope FROM item", "no_such_column"),
        ("SELECT 1 FROM nope", "no_such_table"),
        ("SELEC 1", "syntax"),
        ("SELECT (1", "syntax"),
        ("SELECT 'a", "syntax"),
        ("-- nothing", "syntax"),
        ("/* nothing */ ;", "syntax"),
        ("SELECT nope(1)", "other"),
        ("SELECT 1 / 0", "other"),
        ("SELECT $1", "other"),
        ("SELECT 1\0", "other"),
        ("SELECT * FROM item a FULL JOIN item b ON a.id < b.id", "other"),
    ],
)
def test_failures_have_kinds(shop, sandbox, sql, kind):
    assert sandbox.run(shop, sql).kind == kind


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;",
        "SELECT 1 -- a comment; here",
        "(SELECT 1) UNION (SELECT 2)",
        "VALUES (1), (2)",
        "TABLE item",
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
        "SELECT name FROM item WHERE name LIKE '%1%' AND id % 2 = 0",
        "SELECT random() < 2, dearest(), now() IS NOT NULL",
        "SELECT 'select 1; drop table item'",
        "SELECT $a$;$a$",
    ],
)
def test_queries_that_only_read_are_run(shop, sandbox, sql):
    assert isinstance(sandbox.run(shop, sql), Rows)


def test_values_are_plain_and_canonical(shop, sandbox):
    values = {
        "1::int8": 1,
        "TRUE": 1,
        "1.50::numeric": Decimal("1.50"),
        "2.00::numeric": 2,
        "12345678901234567890::numeric": 12345678901234567890,
        "0.1::float8 + 0.2": 0.1 + 0.2,
        "NULL::date": None,
        "DATE '2020-02-03'": "2020-02-03",
        "DATE 'infinity'": "infinity",
        "TIMESTAMP '2020-02-03 04:05:06.5'": "2020-02-03 04:05:06.5",
        "TIMESTAMPTZ '2020-02-03 04:05:06+02'": "2020-02-03 02:05:06+00",
        "TIMESTAMP '2020-02-03'": "2020-02-03",
        "INTERVAL '1 month 2 days'": "P32DT0.000000S",
        "INTERVAL '-1 day -01:30:00.5'": "P-2DT80999.500000S",
        "'ab'::char(6)": "ab",
        "ARRAY[1, NULL]": "{1,NULL}",
        """'{"b": 1, "a": [true]}'::json""": '{"a": [true], "b": 1}',
        "'[1.0, 1.00000000000000000001]'::jsonb": "[1, 1.00000000000000000001]",
        "'00000000-0000-0000-0000-00000000000A'::uuid": "00000000-0000-0000-0000-00000000000a",
        "'\\x00ff'::bytea": b"\x00\xff",
    }
    [row] = sandbox.run(shop, f"SELECT {', '.join(values)}").rows
    assert list(row) == list(values.values())
    assert [type(cell) for cell in row] == [type(value) for value in values.values()]


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        ("SELECT id, made FROM item", "SELECT made, id FROM item ORDER BY name", "correct"),
        ("SELECT count(*) FROM item WHERE made > '2021-01-01'", "SELECT count(*) FROM item", "wrong"),
        # price has only three values, so there are hundreds of ties.
        ("SELECT id FROM item ORDER BY price", "SELECT id FROM item ORDER BY price, id DESC", "correct"),
        ("SELECT id FROM item ORDER BY price", "SELECT id FROM item ORDER BY price DESC", "wrong"),
        ("SELECT id FROM item WHERE name ILIKE 'ITEM 1%' ORDER BY price::int", "SELECT id FROM item", "wrong"),
        ("SELECT sum(price)::float8 FROM item", "SELECT sum(price) FROM item", "correct"),
        ("SELECT nope FROM item", "SELECT 1", "unjudged"),
    ],
)
def test_verdicts(grader, gold, predicted, verdict):
    judgement = grader.grade(record(gold), predicted)
    assert judgement.verdict == verdict, judgement
    json.dumps(judgement.details, allow_nan=False)


def test_the_url_may_contain_the_name_of_the_database(server):
    grader = ExecutionGrader(
        server.replace("postgresql://", "postgresql+psycopg://") + "/{database}", allow_privileged_accounts=True
    )
    right, wrong = "SELECT count(*) FROM item WHERE price > 900", "SELECT count(*) FROM item WHERE price > 901"
    assert grader.grade(record(right, "shop"), wrong).verdict == "correct"
    assert grader.grade(record(right, "other"), wrong).verdict == "wrong"
    for bad in ("../shop", None):
        assert grader.grade(record(right, bad), right).verdict == "unjudged"
    assert (
        ExecutionGrader(f"{server}/other", allow_privileged_accounts=True).grade(record(right, None), wrong).verdict
        == "wrong"
    )


def test_several_threads_run_queries_at_the_same_time(shop, sandbox):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: sandbox.run(shop, f"SELECT {i}").rows, range(40)))
    assert results == [[(i,)] for i in range(40)]


def test_a_server_that_does_not_answer_leaves_records_unjudged_and_its_secrets_hidden(server):
    wrong = server.replace(PASSWORD[:2], "no") + "/shop?sslpassword=hush"
    for url in (wrong, "postgresql://judge:hush@127.0.0.1:1/shop"):
        judgement = ExecutionGrader(url).grade(record("SELECT 1"), "SELECT 1")
        assert judgement.verdict == "unjudged"
        assert "127.0.0.1:" in judgement.reason
        assert not any(secret in str(judgement) for secret in ("hush", "no3cr", "cr%40t", "cr@t"))
    with pytest.raises(JudgingError, match="%2F") as caught:
        ExecutionGrader("postgresql://judge:hu/sh@127.0.0.1:1/shop")
    assert "hu/sh" not in str(caught.value)


def test_a_connection_that_the_server_ended_is_opened_again(grader, shop):
    assert grader.grade(record("SELECT 7"), "SELECT 7").verdict == "correct"
    with psycopg.connect(shop, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert grader.grade(record("SELECT 7"), "SELECT 7").verdict == "correct"


def test_no_process_shows_the_password(shop, sandbox):
    sandbox.run(shop, "SELECT 1")
    children = query_processes()
    assert children
    for child in children:
        process = psutil.Process(child)
        assert "s3cr" not in str([process.cmdline(), process.environ()])


def test_text_may_be_compared_more_loosely(shop):
    grader = ExecutionGrader(
        {"shop": shop},
        comparison=ComparisonOptions(ignore_case=True, ignore_whitespace=True),
        allow_privileged_accounts=True,
    )
    assert grader.grade(record("SELECT name FROM item"), "SELECT upper(name) || ' ' FROM item").verdict == "correct"


def test_a_number_of_thousands_of_digits_is_judged_and_can_be_saved(grader, tmp_path) -> None:
    huge = "SELECT 10^5000::numeric, ARRAY[-10::numeric^4400], 'NaN'::numeric, 'infinity'::float8"
    judge = SQLJudge([grader], journal=tmp_path / "journal")
    report = judge.judge([record(huge), record(huge)], [huge, huge.replace("5000", "4999")])
    assert [entry.judgements[0].verdict for entry in report.entries] == ["correct", "wrong"]
    report.to_json(tmp_path / "r.json")
    again = Report.from_json(tmp_path / "r.json")
    write_html(again, tmp_path / "r.html")
    write_markdown(again, tmp_path / "r.md")
    assert write_junit(again, tmp_path / "r.xml")
    assert again.entries[0].judgements[0].details["gold"]["rows"][0][0] == "10000000000000000000… (5,001 digits)"


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        ("INTERVAL '36 hours'", "INTERVAL '1 day 12:00'", "correct"),
        ("INTERVAL '2 months'", "INTERVAL '59 days'", "wrong"),
        ("'xy'::char(5)", "'xy'", "correct"),
        ("DATE '2021-05-06'", "TIMESTAMP '2021-05-06 00:00'", "correct"),
        ("DATE '2021-05-06'", "TIMESTAMP '2021-05-06 00:00:01'", "wrong"),
        ("'{\"n\": 2.0}'::jsonb", "'{\"n\": 2}'::json", "correct"),
        ("'[2.00000000000000000003]'::jsonb", "'[2.0]'::jsonb", "wrong"),
        ("98765.43::numeric", "98766.53::numeric", "wrong"),
        ("avg(x)", "sum(x) / count(x)::numeric(30, 6)", "correct"),
        ("avg(x)", "avg(x)::float8", "correct"),
        ("sum(x) / 3.0", "sum(x) / 3.0 + 0.000001", "wrong"),
    ],
)
def test_values_are_equal_if_the_server_says_so(shop, gold, predicted, verdict):
    source = "(VALUES (1::numeric), (2), (4), (7)) AS v(x)"
    grouped = "x" in gold
    query = "SELECT {} FROM " + source if grouped else "SELECT {}"
    record = Record("q", "s", query.format(gold), "shop", dialect="postgres")
    grader = ExecutionGrader({"shop": shop}, allow_privileged_accounts=True)
    assert grader.grade(record, query.format(predicted)).verdict == verdict
