"""What the check-up says about gold queries that run on databases."""

import json
import sqlite3
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from sqlquarry.data.checkup import gold
from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.sample import sample_databases, sample_records
from sqlquarry.execution.databases import NamedDatabases
from sqlquarry.execution.limits import ExecutionLimits
from sqlquarry.records import Record

SCHEMA = "CREATE TABLE t (a INT, b TEXT)"
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
MISSING_NAMES = {"table-missing", "column-missing", "column-ambiguous", "gold-syntax", "gold-refused"}


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    directory = tmp_path_factory.mktemp("databases")
    with closing(sqlite3.connect(directory / "d.sqlite")) as connection:
        connection.executescript(f"{SCHEMA}; INSERT INTO t VALUES (1, 'x'), (1, 'y'), (2, NULL)")
    return NamedDatabases(directory)


def run(databases, *queries, database="d", dialect="sqlite", **limits):
    records = [Record("q", SCHEMA, sql, database=database, dialect=dialect) for sql in queries]
    (*_, check_runs) = gold.CHECKS
    checked = Checked(records=records, databases=databases, limits=ExecutionLimits(**limits))
    return [(one.kind, one.records, one.detail) for one in check_runs(checked)]


SLOW = "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT COUNT(*) FROM x"


@pytest.mark.parametrize(
    ("sql", "kind", "part"),
    [
        ("SELECT c FROM t", "gold-fails", "no such column: c"),
        ("SELECT a FROM u", "gold-fails", "no such table: u"),
        ("SELECT a FRM t", "gold-fails", "syntax error"),
        ("SELECT a FROM t WHERE a > 5", "gold-empty", ""),
        ("SELECT b FROM t WHERE a = 2", "gold-only-null", "1 row"),
        ("SELECT MAX(a) FROM t WHERE a > 5", "gold-only-null", "1 row"),
        ("SELECT b FROM t ORDER BY a LIMIT 1", "limit-cuts-tie", "2 rows tie"),
    ],
)
def test_results_worth_a_look_are_found(databases, sql, kind, part):
    ((found, places, detail),) = run(databases, sql)
    assert (found, places) == (kind, (0,))
    assert part in detail


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t",
        "SELECT b FROM t",
        "SELECT a FROM t ORDER BY a LIMIT 1",  # the rows that tie are equal
        "SELECT b FROM t ORDER BY a LIMIT 2",  # no tie at the cut
        "SELECT b FROM t ORDER BY a, b LIMIT 1",
        "DROP TABLE t",  # not run at all
        "SELECT 1; SELECT 2",
    ],
)
def test_results_without_doubt_have_no_finding(databases, sql):
    assert run(databases, sql) == []


def test_slow_and_large_queries_are_not_errors(databases):
    found = run(databases, SLOW, "SELECT x.a FROM t AS x, t AS y", "SELECT a FROM t", time_s=0.3, rows=5)
    assert [(kind, places) for kind, places, _ in found] == [("gold-timeout", (0,)), ("gold-too-large", (1,))]


def test_a_missing_database_is_one_finding_for_all_its_records(databases):
    found = run(databases, "SELECT a FROM t", "SELECT b FROM t", database="other")
    assert [(kind, places) for kind, places, _ in found] == [("database-missing", (0, 1))]
    assert "other" in found[0][2]
    assert [kind for kind, *_ in run(databases, "SELECT a FROM t", database=None)] == ["database-missing"]


def test_sqlglot_only_decides_if_no_database_can(databases):
    sql = "SELECT a FROM t WHERE ((a = 1"
    assert [kind for kind, *_ in run(databases, sql, dialect="mysql")] == ["gold-fails"]
    assert [kind for kind, *_ in run(databases, sql, dialect="mysql", database="no")] == [
        "database-missing",
        "gold-unparsed",
    ]


def test_no_database_means_no_finding():
    (*_, check_runs) = gold.CHECKS
    assert list(check_runs(Checked(records=[Record("q", SCHEMA, "SELECT c FROM t", database="d")]))) == []


def test_a_reader_that_stops_early_ends_the_other_queries(databases):
    (*_, check_runs) = gold.CHECKS
    queries = ("SELECT c FROM t", *(f"{SLOW} -- {number}" for number in range(30)))
    records = [Record("q", SCHEMA, sql, database="d") for sql in queries]
    checked = Checked(records=records, databases=databases, limits=ExecutionLimits(time_s=0.3), concurrency=1)
    findings = check_runs(checked)
    assert next(findings).kind == "gold-fails"
    start = time.monotonic()
    findings.close()  # as after Ctrl-C
    assert time.monotonic() - start < 5  # all queries would take 9 s


@pytest.mark.skipif(find_spec("duckdb") is None, reason="DuckDB is not installed")
def test_queries_run_on_other_databases(tmp_path):
    import duckdb

    with closing(duckdb.connect(tmp_path / "d.duckdb")) as connection:
        connection.execute(f"{SCHEMA}; INSERT INTO t VALUES (1, 'x'), (1, 'y')")
    source = NamedDatabases(tmp_path)
    queries = (
        "SELECT a FROM t",
        "FROM t SELECT a",
        'SELECT a FROM t WHERE b = "x"',
        "SELECT b FROM t ORDER BY a LIMIT 1",
    )
    found = run(source, *queries, dialect="duckdb")
    assert [(kind, places) for kind, places, _ in found] == [("gold-fails", (2,)), ("limit-cuts-tie", (3,))]


def test_the_bundled_databases_have_no_bad_query(tmp_path):
    records = [record for record in sample_records() if record.database][::7]
    databases = NamedDatabases(sample_databases(tmp_path))
    (*_, check_runs) = gold.CHECKS
    found = {one.kind for one in check_runs(Checked(records=records, databases=databases))}
    assert found <= {"limit-cuts-tie"}
    assert len(records) > 100


@pytest.mark.skipif(not (SHARED / "spider_exec").is_dir(), reason="the shared records are not here")
def test_queries_that_run_on_spider_use_only_names_of_the_schema():
    schemas = json.loads((SHARED / "spider_exec/schemas_train.json").read_text())
    lines = (SHARED / "spider_exec/train.jsonl").read_text().splitlines()[::12]
    rows = [json.loads(line) for line in lines]
    records = [Record(row["question"], schemas[row["db_id"]], row["gold_sql"], database=row["db_id"]) for row in rows]
    checked = Checked(records=records, databases=NamedDatabases(SHARED / "spider_sqlite"))
    found = [one for check in gold.CHECKS for one in check(checked)]
    assert not {one.kind for one in found} & (MISSING_NAMES | {"gold-fails"})
    empty = {one.records[0] for one in found if one.kind == "gold-empty"}
    known = [place for place, row in enumerate(rows) if (SHARED / f"spider_sqlite/{row['db_id']}.sqlite").is_file()]
    assert empty == {place for place in known if rows[place]["n_rows"] == 0} != set()
