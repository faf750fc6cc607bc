"""Execution accuracy if only the DDL is known: wrong queries are caught, and right ones pass."""

import dataclasses
import importlib.util
import json
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sqlquarry.errors import ConfigError, JudgingError
from sqlquarry.judging import ExecutionGrader, ExecutionLimits
from sqlquarry.judging.synthesis import SynthesizedDatabases
from sqlquarry.records import Record

FILMS = (
    "CREATE TABLE film (title VARCHAR, year VARCHAR, gross INTEGER); CREATE TABLE actor (name VARCHAR, title VARCHAR)"
)
GOLD = 'SELECT AVG(gross) FROM film WHERE year > 1992 AND title = "the end"'


def record(sql: str | None = GOLD, schema: str = FILMS, **more) -> Record:
    return Record("q", schema, sql, **more)


@pytest.fixture(scope="module")
def databases():
    return SynthesizedDatabases()


@pytest.fixture(scope="module")
def grader(databases):
    return ExecutionGrader(databases)


WRONG = [
    ("SELECT AVG(gross) FROM film WHERE year >= 1992 AND title = 'the end'", GOLD),
    ("SELECT AVG(gross) FROM film WHERE year > 1993 AND title = 'the end'", GOLD),
    ("SELECT SUM(gross) FROM film WHERE year > 1992 AND title = 'the end'", GOLD),
    ("SELECT AVG(gross) FROM film WHERE year > 1992 OR title = 'the end'", GOLD),
    ("SELECT AVG(gross) FROM film WHERE year > 1992 AND title LIKE 'the end'", GOLD),
    ("SELECT AVG(gross) FROM film WHERE year > 1992 AND title = 'The End'", GOLD),
    ("SELECT AVG(gross) FROM film WHERE title = 'the end'", GOLD),
    # A literal that only the prediction has.
    ("SELECT AVG(gross) FROM film WHERE year > 1992 AND title IN ('the end', 'Amélie')", GOLD),
    ("SELECT AVG(gross) FROM film WHERE year > 1992 AND title = 'the end' AND gross <> 123456", GOLD),
    (
        "SELECT a.name FROM actor a LEFT JOIN film f ON a.title = f.title",
        "SELECT name FROM actor JOIN film USING (title)",
    ),
    ("SELECT DISTINCT name FROM actor", "SELECT name FROM actor"),
    ("SELECT COUNT(name) FROM actor", "SELECT COUNT(*) FROM actor"),
    ("SELECT name FROM actor", "SELECT name FROM actor ORDER BY name"),
    ("SELECT title FROM film ORDER BY gross LIMIT 1", "SELECT title FROM film ORDER BY gross DESC LIMIT 1"),
    (
        "SELECT title FROM actor GROUP BY title HAVING COUNT(*) > 6",
        "SELECT title FROM actor GROUP BY title HAVING COUNT(*) > 5",
    ),
    (
        "SELECT title FROM film UNION SELECT title FROM actor",
        "SELECT title FROM film INTERSECT SELECT title FROM actor",
    ),
    ("SELECT nothing FROM film", GOLD),
    ("", GOLD),
]
RIGHT = [
    ("select avg(f.gross) as x from film f where 'the end' = f.title and f.year > '1992'", GOLD),
    ("SELECT SUM(gross) * 1.0 / COUNT(gross) FROM film WHERE year > 1992 AND title = 'the end'", GOLD),
    ("SELECT AVG(gross) FROM film WHERE CAST(year AS INTEGER) > 1992 AND title = 'the end'", GOLD),
    ("SELECT a.name FROM film f, actor a WHERE f.title = a.title", "SELECT name FROM actor JOIN film USING (title)"),
    ("SELECT name FROM actor GROUP BY name", "SELECT DISTINCT name FROM actor"),
    (
        "SELECT title FROM film WHERE gross = (SELECT MAX(gross) FROM film)",
        "SELECT title FROM film ORDER BY gross DESC LIMIT 1",
    ),
]


@pytest.mark.parametrize(("predicted", "gold"), WRONG)
def test_wrong_queries_are_caught(grader, predicted, gold):
    assert grader.grade(record(gold), predicted).verdict == "wrong"


@pytest.mark.parametrize(("predicted", "gold"), RIGHT)
def test_right_queries_pass(grader, predicted, gold):
    judgement = grader.grade(record(gold), predicted)
    assert judgement.verdict == "correct", judgement
    assert judgement.details["killed"] > 0


def test_the_kill_rate_counts_mutants_and_lists_survivors(databases):
    rate = databases.kill_rate(record())
    assert rate.rate == 1.0
    assert rate.killed == rate.mutants > 10
    # The condition is always true, so some mutants are equivalent. They survive and are listed.
    weak = databases.kill_rate(record("SELECT MIN(gross) FROM film WHERE gross >= gross"))
    assert weak.killed + len(weak.survivors) == weak.mutants
    assert any("WHERE" not in sql for sql in weak.survivors)
    json.dumps(databases.details(record()))


@pytest.mark.parametrize(
    ("sql", "schema", "values"),
    [
        (
            'SELECT year FROM t WHERE 1987 = "a"',
            "CREATE TABLE t (tournament VARCHAR, year VARCHAR)",
            "column 1987",
        ),
        ('SELECT year FROM t WHERE "nation" = "a"', "CREATE TABLE t (year VARCHAR)", "column nation"),
        ("SELECT price FROM film", FILMS, "column price"),
        ("SELECT title FROM cinema", FILMS, "table cinema"),
        ("SELECT FROM WHERE", FILMS, 'near "FROM"'),
        ("DROP TABLE film", FILMS, "readonly database"),
        ("SELECT 1; SELECT 2", FILMS, "one statement at a time"),
        (
            "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT SUM(n) FROM r",
            FILMS,
            "1,000,000",
        ),
        (
            "SELECT random()",
            FILMS,
            "ORDER BY",
        ),
        (GOLD, "films with their years", "'films with their years'"),
    ],
)
def test_a_gold_that_cannot_be_judged_is_quarantined(sql, schema, values):
    databases = SynthesizedDatabases()
    judgement = ExecutionGrader(databases).grade(record(sql, schema), "SELECT title FROM film")
    assert judgement.verdict == "unjudged"
    assert judgement.reason.startswith("quarantined: ")
    assert values in judgement.reason
    coverage = databases.coverage()
    assert (coverage.records, coverage.quarantined) == (1, {judgement.reason: 1})


def test_coverage_counts_each_pair_once():
    databases = SynthesizedDatabases()
    for asked in (record(), dataclasses.replace(record(), question="another"), record("SELECT oops FROM film")):
        databases.kill_rate(asked)
    coverage = databases.coverage()
    assert coverage.records == 2
    assert sum(coverage.quarantined.values()) == 1
    assert coverage.killed == coverage.mutants > 0


def test_any_of_several_golds_is_right(grader):
    asked = record("SELECT title FROM film", alternatives=("SELECT title, year FROM film",))
    assert grader.grade(asked, "SELECT f.year, f.title FROM film f").verdict == "correct"
    assert grader.grade(asked, "SELECT title FROM film WHERE title <> 'x'").verdict == "wrong"


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    predicted = "SELECT AVG(gross) FROM film WHERE year > 1992 AND title = 'Amélie'"
    contents = []
    for name in ("a", "b"):
        paths = SynthesizedDatabases(tmp_path / name).databases_for(record(), predicted)
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    assert len(contents[0]) > 1
    other = SynthesizedDatabases(tmp_path / "c", seed=1).databases_for(record(), predicted)
    assert [path.read_bytes() for path in other] != contents[0]


def test_files_are_reused_and_replaced_if_damaged(tmp_path):
    first = SynthesizedDatabases(tmp_path)
    paths = first.databases_for(record(), GOLD)
    made = {path: path.stat().st_mtime_ns for path in paths}
    again = SynthesizedDatabases(tmp_path)
    assert again.databases_for(record(), GOLD) == paths
    assert {path: path.stat().st_mtime_ns for path in paths} == made
    assert again.kill_rate(record()) == first.kill_rate(record())
    content = paths[0].read_bytes()
    paths[0].write_bytes(content[:-100])
    SynthesizedDatabases(tmp_path).databases_for(record(), GOLD)
    assert paths[0].read_bytes() == content
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"]


def test_a_temporary_folder_is_removed():
    databases = SynthesizedDatabases()
    (path, *_) = databases.databases_for(record(), GOLD)
    assert path.is_file()
    del databases
    assert not path.exists()


def test_threads_may_share_an_instance():
    databases = SynthesizedDatabases()
    start = threading.Barrier(4)

    def ask(number: int) -> list[bytes]:
        start.wait()
        asked = record(f"SELECT title FROM film WHERE gross > {number % 2}")
        return [path.read_bytes() for path in databases.databases_for(asked, "SELECT title FROM film WHERE gross > 5")]

    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(ask, range(4)))
    assert contents[0] == contents[2] != contents[1] == contents[3]
    assert databases.coverage().records == 2


@pytest.mark.parametrize(
    "predicted",
    [
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT SUM(n) FROM r",
        "SELECT printf('%.*c', 900000, 'x') FROM film, film AS b, film AS c",
        "DELETE FROM film",
        "ATTACH 'stolen.db' AS x",
    ],
)
def test_hostile_predictions_end_soon_and_change_nothing(tmp_path, predicted):
    databases = SynthesizedDatabases(tmp_path)
    grader = ExecutionGrader(databases, limits=ExecutionLimits(time_s=0.3))
    paths = databases.databases_for(record(), GOLD)
    before = [path.read_bytes() for path in paths]
    start = time.monotonic()
    assert grader.grade(record(), predicted).verdict == "wrong"
    assert time.monotonic() - start < 10
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize(
    ("condition", "as_gold"),
    [
        ("gross > 99999999999999999999999", "unjudged"),
        ("gross = -9223372036854775808", "unjudged"),
        (f"gross < {'9' * 5000}", "correct"),
        ("gross < 1e999", "correct"),
        ("year = '99999999999999999999'", "correct"),
        ("year = 'inf' OR year = 'nan' OR year = '٣'", "correct"),
        ("year >= '9999-12-31' AND title < '0001-01-01'", "correct"),
        (f"title = '{'x' * 2_000_000}'", "unjudged"),
        ("title = '\ud800'", None),
        ("title = 'a\x00b' OR title LIKE '%_%' OR title = ''", "unjudged"),
        ("title IN (WITH a AS (SELECT x FROM b), b AS (SELECT x FROM a) SELECT x FROM a)", "unjudged"),
        # The depth that SQLite can parse depends on its version.
        ("title = " + "(SELECT title FROM film WHERE title = " * 60 + "'x'" + ")" * 60, "correct or unjudged"),
    ],
    ids=range(12),
)
def test_no_literal_upsets_the_search(grader, condition, as_gold):
    assert grader.grade(record(), f"SELECT AVG(gross) FROM film WHERE {condition}").verdict == "wrong"
    sql = f"SELECT title FROM film WHERE {condition}"
    if "\ud800" not in sql:  # no file can contain half of a surrogate pair, so no record can either
        assert grader.grade(record(sql), sql).verdict in as_gold.split(" or ")


POSTGRES = (
    "CREATE TABLE film (id SERIAL PRIMARY KEY, title TEXT NOT NULL, shown TIMESTAMPTZ, tags TEXT[], gross NUMERIC(9,2))"
)


def test_other_dialects_are_translated(grader):
    asked = record(
        "SELECT title FROM film WHERE title ILIKE '%end%' AND gross::INTEGER > 5", POSTGRES, dialect="postgres"
    )
    assert (
        grader.grade(
            asked, "SELECT f.title FROM film AS f WHERE f.title ILIKE '%end%' AND CAST(f.gross AS INTEGER) > 5"
        ).verdict
        == "correct"
    )
    assert grader.grade(asked, "SELECT title FROM film WHERE title ILIKE '%end%'").verdict == "wrong"
    # SQLite cannot express the first query, so nobody knows if it is right. PostgreSQL cannot parse the second either.
    assert grader.grade(asked, "SELECT title FROM film GROUP BY GROUPING SETS ((title), ())").verdict == "unjudged"
    assert grader.grade(asked, "SELECT FROM ( title").verdict == "wrong"
    unknown = record("SELECT title FROM film", POSTGRES)
    object.__setattr__(unknown, "dialect", "klingon")  # as if sqlglot were older than the list of dialects here
    assert grader.grade(unknown, "SELECT title FROM film").verdict == "unjudged"


def test_a_record_without_gold_sql_has_no_database(databases):
    with pytest.raises(JudgingError, match="gold SQL"):
        databases.databases_for(record(None), "SELECT 1")


@pytest.mark.parametrize(
    "options", [{"databases_per_record": 0}, *({"time_budget_s": float(number)} for number in ("0", "nan", "inf"))]
)
def test_numbers_are_checked(options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=rf"\b{name}\b.*\b{value!r}\b") as refused:
        SynthesizedDatabases(**options)
    assert not {"databases_per_record", "time_budget_s"} - {name} & set(str(refused.value).split())


def test_the_budget_ends_the_search(tmp_path):
    asked = record("SELECT title FROM film ORDER BY gross DESC LIMIT 1")
    hasty = SynthesizedDatabases(tmp_path / "hasty", time_budget_s=1e-9)
    patient = SynthesizedDatabases(tmp_path / "patient", time_budget_s=60.0)
    (path,) = hasty.databases_for(asked, asked.sql)
    rows = sqlite3.connect(path).execute("SELECT COUNT(*) FROM film").fetchone()[0]
    assert 0 < rows <= 60
    assert len(patient.databases_for(asked, asked.sql)) > 1
    assert hasty.kill_rate(asked).killed < patient.kill_rate(asked).killed


def test_public_records(shared_data, monkeypatch):
    """Run a sample of `benchmarks/synthesis.py`, whose complete results are in docs/synthesized-databases.md."""
    script = Path(__file__).resolve().parents[3] / "benchmarks" / "synthesis.py"
    spec = importlib.util.spec_from_file_location("synthesis_benchmark", script)
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.syspath_prepend(script.parent)  # for benchmarks/common.py
    benchmark = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, benchmark)
    spec.loader.exec_module(benchmark)
    records = [*benchmark.wikisql_records(shared_data, 15), *benchmark.spider_records(shared_data, 5)]
    score = benchmark.measure(records, 3, SynthesizedDatabases())
    assert score.wrong["wrong"] >= 0.95 * sum(score.wrong.values()) > 40
    assert score.right["wrong"] == 0, score.rejected
