"""Execution on real DuckDB files: values, files, and hostile queries that change nothing and end in time."""

import hashlib
import json
import time
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from sqlquarry.errors import MissingExtraError
from sqlquarry.execution.limits import ExecutionLimits
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox
from sqlquarry.judging.execution import ExecutionGrader
from sqlquarry.records import Record

TIME_LIMIT_S = 0.5
COUNT_FOR_EVER = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)"


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("db") / "shop.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE item AS SELECT i::INTEGER AS id, 'item ' || i AS name, "
                           "(i % 3 + 0.5)::DECIMAL(8, 2) AS price FROM range(1, 1001) t(i)")  # fmt: skip
        connection.execute("CREATE SEQUENCE counter")
    return path


@pytest.fixture(scope="module")
def sandbox():
    box = Sandbox(ExecutionLimits())
    yield box
    box.close()


@pytest.fixture(scope="module")
def grader(database):
    return ExecutionGrader({"shop": database})


def record(sql: str, database: str = "shop") -> Record:
    return Record("q", "CREATE TABLE item (id, name, price)", sql, database, dialect="duckdb")


HOSTILE = [
    ("DROP TABLE item", "forbidden"),
    ("DELETE FROM item", "forbidden"),
    ("INSERT INTO item VALUES (0, 'x', 0) RETURNING id", "forbidden"),
    ("UPDATE item SET price = 0", "forbidden"),
    ("TRUNCATE item", "forbidden"),
    ("CREATE TABLE x (a INTEGER)", "forbidden"),
    ("CREATE TEMP TABLE x (a INTEGER)", "forbidden"),
    ("CREATE MACRO f() AS 1", "forbidden"),
    ("ATTACH '{folder}/new.duckdb' AS n", "forbidden"),
    ("DETACH shop", "forbidden"),
    ("USE memory", "forbidden"),
    ("COPY item TO '{folder}/copy.csv'", "forbidden"),
    ("COPY item FROM '/etc/passwd'", "forbidden"),
    ("EXPORT DATABASE '{folder}/export'", "forbidden"),
    ("IMPORT DATABASE '{folder}/export'", "forbidden"),
    ("INSTALL httpfs", "forbidden"),
    ("LOAD json", "forbidden"),
    ("SET memory_limit = '100GB'", "forbidden"),
    ("RESET threads", "forbidden"),
    ("SET VARIABLE a = 1", "forbidden"),
    ("PRAGMA memory_limit = '100GB'", "forbidden"),
    ("PRAGMA table_info('item')", "forbidden"),
    ("CALL pragma_version()", "forbidden"),
    ("CHECKPOINT", "forbidden"),
    ("VACUUM", "forbidden"),
    ("BEGIN", "forbidden"),
    ("PREPARE p AS SELECT 1", "forbidden"),
    ("EXPLAIN ANALYZE SELECT 1", "forbidden"),
    ("SELECT 1; DROP TABLE item", "forbidden"),
    ("SELECT nextval('counter')", ("forbidden", "other")),
    ("SELECT * FROM read_text('/etc/passwd')", "forbidden"),
    ("SELECT * FROM read_blob('/etc/passwd')", "forbidden"),
    ("SELECT * FROM read_csv('/etc/passwd')", "forbidden"),
    ("SELECT * FROM glob('/etc/*')", "forbidden"),
    ("FROM '/etc/passwd'", ("no_such_table", "other", "forbidden")),
    ("FROM 'https://localhost:1/x.parquet'", ("no_such_table", "other", "forbidden")),
    ("SELECT * FROM query('DROP TABLE item')", ("syntax", "other")),
    ("SELECT getenv('HOME')", ("no_such_table", "other")),
    ("SELECT * FROM sql", "no_such_table"),  # a variable of the engine's Python code
    (f"{COUNT_FOR_EVER} SELECT count(*) FROM r", "timeout"),
    (f"{COUNT_FOR_EVER} SELECT n FROM r", ("too_many_rows", "timeout", "other")),
    ("SELECT count(*) FROM item a, item b, item c, item d, item e", "timeout"),
    ("SELECT * FROM range(1000000000)", ("too_many_rows", "timeout")),
    ("SELECT a.name || b.name AS k FROM item a, item b, item c ORDER BY k", ("timeout", "other")),
    ("SELECT list(a) FROM range(1000000000) t(a)", ("timeout", "other")),
    ("SELECT repeat('x', 2000000000)", ("timeout", "other")),
    ("SELECT string_agg(repeat('x', 1000000), '') FROM item a, item b", ("timeout", "other")),
    ("SELECT repeat('x', 900000) FROM item", ("timeout", "other", "too_many_rows")),
    ("SELECT " + "(" * 5000, ("syntax", "timeout")),
    ("SELECT " + "+".join("1" * 5000), ("syntax", "other")),
    ("SELECT '\ud800'", "other"),
]  # fmt: skip


def test_hostile_queries_change_no_byte_and_end_in_time(database):
    sandbox = Sandbox(ExecutionLimits(time_s=TIME_LIMIT_S, memory_bytes=200_000_000))
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    for sql, kinds in HOSTILE:
        sandbox.run(database, "SELECT 1")  # starts a process again if the last query ended it
        start = time.monotonic()
        outcome = sandbox.run(database, sql.replace("{folder}", str(database.parent)))
        took = time.monotonic() - start
        assert isinstance(outcome, Failure), (sql[:100], outcome)
        assert outcome.kind in kinds, (sql[:100], outcome)
        assert took < TIME_LIMIT_S + 2, f"{sql[:100]} took {took:.1f} s"
        assert [path.name for path in database.parent.iterdir()] == [database.name], sql[:100]
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert sandbox.run(database, "SELECT count(*) FROM item").rows == [(1000,)]


def test_memory_is_bounded(database):
    sandbox = Sandbox(ExecutionLimits(memory_bytes=50_000_000))
    outcome = sandbox.run(database, "SELECT a FROM range(100000000) t(a) ORDER BY hash(a)")
    assert (outcome.kind, "Out of Memory" in outcome.message) == ("other", True)
    assert [path.name for path in database.parent.iterdir()] == [database.name]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT nope FROM item", "no_such_column"),
        ("SELECT item.nope FROM item", "no_such_column"),
        ("SELECT 1 FROM nope", "no_such_table"),
        ("SELECT nope.id FROM item", "no_such_table"),
        ("SELEC 1", "syntax"),
        ("SELECT (1", "syntax"),
        ("-- nothing", "syntax"),
        ("SELECT nope(1)", "other"),
        ("SELECT 'a'::INTEGER", "other"),
    ],
)
def test_failures_have_kinds(database, sandbox, sql, kind):
    assert sandbox.run(database, sql).kind == kind


@pytest.mark.parametrize(
    "sql", ["SELECT 1;", "FROM item", "VALUES (1)", "DESCRIBE item", "WITH a AS (FROM item) FROM a"]
)
def test_queries_that_only_read_are_run(database, sandbox, sql):
    assert isinstance(sandbox.run(database, sql), Rows)


def test_values_are_plain_and_canonical(database, sandbox):
    values = {
        "true": 1,
        "1.50::DECIMAL(4, 2)": Decimal("1.5"),
        "TIMESTAMP '2020-02-03'": "2020-02-03",
        "[1.0, 0.1::DOUBLE + 0.2]": "[1, 0.3]",
        "2::DECIMAL(4, 2)": 2,
        "170141183460469231731687303715884105727::HUGEINT": 2**127 - 1,
        "0.1::DOUBLE + 0.2": 0.1 + 0.2,
        "NULL": None,
        "DATE '2020-02-03'": "2020-02-03",
        "TIMESTAMP '2020-02-03 04:05:06.5'": "2020-02-03 04:05:06.500000",
        "TIMESTAMPTZ '2020-02-03 04:05:06+02'": "2020-02-03 02:05:06+00:00",
        "INTERVAL '2 days 1.5 seconds'": "P2DT1.500000S",
        "[1, NULL]": "[1, null]",
        "{'b': DATE '2020-02-03', 'a': 'x'::BLOB}": '{"a": "78", "b": "2020-02-03"}',
        "'00000000-0000-0000-0000-00000000000A'::UUID": "00000000-0000-0000-0000-00000000000a",
        "'\\x00\\xFF'::BLOB": b"\x00\xff",
    }
    [row] = sandbox.run(database, f"SELECT {', '.join(values)}").rows
    assert list(row) == list(values.values())
    assert [type(cell) for cell in row] == [type(value) for value in values.values()]


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        ("SELECT id, name FROM item", "SELECT name, id FROM item ORDER BY name", "correct"),
        ("SELECT id FROM item ORDER BY price", "SELECT id FROM item ORDER BY price, id DESC", "correct"),
        ("SELECT id FROM item ORDER BY price", "SELECT id FROM item ORDER BY price DESC", "wrong"),
        ("SELECT sum(price)::DOUBLE FROM item", "SELECT sum(price) FROM item", "correct"),
        ("SELECT nope FROM item", "SELECT 1", "unjudged"),
    ],
)
def test_verdicts(grader, gold, predicted, verdict):
    judgement = grader.grade(record(gold), predicted)
    assert judgement.verdict == verdict, judgement
    json.dumps(judgement.details, allow_nan=False)


def test_files_are_found_by_name_and_url(database):
    (database.parent / "nested").mkdir()
    copy = database.parent / "nested" / "nested.duckdb"
    other = database.parent / "other" / "nested.db"
    other.parent.mkdir()
    for path in (copy, other):
        path.write_bytes(database.read_bytes())
    for databases in (database.parent, {"nested": f"duckdb:///{other}"}, f"duckdb:///{other.parent}/{{database}}.db"):
        judgement = ExecutionGrader(databases).grade(record("SELECT count(*) FROM item", "nested"), "SELECT 1000")
        assert judgement.verdict == "correct", judgement


def test_a_changed_file_is_read_again(tmp_path, sandbox):
    path = tmp_path / "a.duckdb"
    for i in range(2):
        with duckdb.connect(tmp_path / "next") as connection:
            connection.execute(f"CREATE TABLE t AS SELECT {i} AS a")
        (tmp_path / "next").replace(path)
        assert sandbox.run(path, "SELECT a FROM t").rows == [(i,)]


def test_a_missing_package_is_reported_with_its_extra(database, monkeypatch):
    monkeypatch.setattr("sqlquarry.extras.find_spec", lambda name: None if name == "duckdb" else name)
    with pytest.raises(MissingExtraError, match=r"sqlquarry\[duckdb\]"):
        Sandbox(ExecutionLimits()).run(database, "SELECT 1")


def test_nanoseconds_are_not_lost(database):
    gold = "SELECT TIMESTAMP_NS '2020-02-03 04:05:06.123456789' AS t, 1 AS t ORDER BY 1"
    grader = ExecutionGrader({"shop": database})
    record = Record("q", "s", gold, "shop", dialect="duckdb")
    assert grader.grade(record, gold.replace(" AS t", "") + ";").verdict == "correct"
    assert grader.grade(record, gold.replace("789'", "788'")).verdict == "wrong"
