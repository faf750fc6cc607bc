"""Execution on real SQLite files: correct answers are accepted, and hostile queries change nothing."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from judging_processes import query_processes, stopped_within
from sqlquarry.errors import ConfigError, JudgingError
from sqlquarry.judging import ComparisonOptions, ExecutionGrader
from sqlquarry.judging.execution.limits import ExecutionLimits
from sqlquarry.judging.execution.sandbox import Failure, Rows, Sandbox
from sqlquarry.records import Record

TIME_LIMIT_S = 0.3  # for queries that must be stopped, the others have the default
LONG = "printf('%.*c', 900000, 'a')"
COUNT_FOR_EVER = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)"


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("db") / "shop #1?.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE item (id INTEGER, name TEXT, price REAL)")
    connection.executemany("INSERT INTO item VALUES (?, ?, ?)", [(i, f"item {i}", i % 3 + 0.1) for i in range(1, 1001)])
    connection.execute("CREATE VIRTUAL TABLE note USING fts5(body)")
    connection.execute("INSERT INTO note VALUES ('hello world')")
    connection.execute("CREATE TABLE broken (x TEXT)")
    connection.executemany("INSERT INTO broken VALUES (CAST(? AS TEXT))", [(b"\xffA",), (b"\xfeA",)])
    connection.commit()
    connection.close()
    return path


@pytest.fixture(scope="module")
def grader(database):
    return ExecutionGrader({"shop": database})


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


def record(sql: str | None, database: str | None = "shop") -> Record:
    return Record("q", "CREATE TABLE item (id, name, price)", sql, database)


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
    monkeypatch.setattr("sqlquarry.judging.execution.sandbox_child.__file__", "/nonexistent.py")
    with pytest.raises(JudgingError, match=r"/nonexistent\.py"):
        sandbox.run(database, "SELECT 1")


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict", "reason"),  # a pattern of the values in the reason
    [
        ("SELECT id, name FROM item", "SELECT name, id FROM item ORDER BY name", "correct", "1,000"),
        ("SELECT id FROM item ORDER BY id", "SELECT id FROM item ORDER BY id DESC", "wrong", "ORDER BY"),
        ("SELECT id FROM item WHERE id < 0", "SELECT name FROM item WHERE id < 0", "correct", "empty"),
        ("SELECT id FROM item WHERE id < 0", "SELECT * FROM item WHERE id < 0", "wrong", r"\b3\b.*\b1\b"),
        ("SELECT id FROM item WHERE id < 0", "SELECT id FROM item LIMIT 1", "wrong", r"\b1\b.*\b0\b"),
        ("SELECT count(*) FROM item", "SELECT '1000'", "wrong", r"^\D+$"),
        ("SELECT id FROM item", "SELECT id, name FROM item", "wrong", r"\b2\b.*\b1\b"),
        ("SELECT id FROM item", "SELECT id FROM item LIMIT 5", "wrong", r"\b5\b.*\b1,000\b"),
        ("SELECT id FROM item LIMIT 2", "SELECT id - 1 FROM item LIMIT 2", "wrong", r"\b1\b.*\b2\b"),
        ("SELECT id FROM item LIMIT 2", "SELECT id + 1 FROM item LIMIT 2", "unjudged", "LIMIT"),
        ("SELECT id FROM item", "SELECT nope FROM item", "wrong", "no such column: nope"),
        ("SELECT id FROM item", "", "wrong", "SQL"),
        ("SELECT nope FROM item", "SELECT id FROM item", "unjudged", "gold SQL.*no such column: nope"),
        ("DROP TABLE item", "DROP TABLE item", "unjudged", "gold SQL"),
        (None, "SELECT 1", "unjudged", "gold SQL"),
    ],
)
def test_verdicts(grader, gold, predicted, verdict, reason):
    judgement = grader.grade(record(gold), predicted)
    assert judgement.verdict == verdict
    assert re.search(reason, judgement.reason)


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        # price has only three values, so each query below has hundreds of ties.
        ("SELECT id FROM item ORDER BY price", "SELECT id FROM item ORDER BY price, id DESC", "correct"),
        ("SELECT id FROM item ORDER BY price", "SELECT id FROM item ORDER BY price DESC", "wrong"),
        ("SELECT id, price AS p FROM item ORDER BY p", "SELECT price, id FROM item ORDER BY price, id DESC", "correct"),
        ("SELECT id, price FROM item ORDER BY 2", "SELECT id, price FROM item ORDER BY price, id DESC", "correct"),
        ("SELECT id, price FROM item ORDER BY 2", "SELECT id, price FROM item ORDER BY id DESC", "wrong"),
        (
            "SELECT price FROM item GROUP BY price ORDER BY count(*) > 333",
            "SELECT price FROM item GROUP BY price ORDER BY count(*) > 333, price DESC",
            "correct",
        ),
        ("SELECT DISTINCT price FROM item ORDER BY price", "SELECT price FROM item GROUP BY 1 ORDER BY 1", "correct"),
        ("SELECT 2 AS a UNION SELECT 1 ORDER BY a", "SELECT 1 UNION SELECT 2 ORDER BY 1 DESC", "wrong"),
        # Keys are found among the columns of a result, also after a star and in a set operation.
        (
            "SELECT id, price FROM item WHERE id < 9 UNION SELECT id, price FROM item WHERE id > 990 ORDER BY price",
            "SELECT id, price FROM item WHERE id < 9 OR id > 990 ORDER BY price, id DESC",
            "correct",
        ),
        ("SELECT * FROM item ORDER BY 3", "SELECT * FROM item ORDER BY price, id DESC", "correct"),
        ("SELECT * FROM item ORDER BY 3", "SELECT * FROM item ORDER BY price DESC", "wrong"),
        ("SELECT *, id % 2 AS odd FROM item ORDER BY odd", "SELECT *, id % 2 FROM item ORDER BY 4, id DESC", "correct"),
        # Only the database knows that these keys tie, because of a collation or a cast whose spelling matters.
        (
            "SELECT id FROM item ORDER BY upper(name) < 'J' COLLATE NOCASE",
            "SELECT id FROM item ORDER BY id DESC",
            "correct",
        ),
        (
            "SELECT id FROM item ORDER BY CAST(price AS DATE)",
            "SELECT id FROM item ORDER BY CAST(price AS DATE), id DESC",
            "correct",
        ),
        ("SELECT id FROM item ORDER BY CAST(price AS DATE)", "SELECT id FROM item ORDER BY -price", "wrong"),
        # Neither columns nor ranks show the keys of DISTINCT.
        ("SELECT DISTINCT price FROM item ORDER BY name", "SELECT DISTINCT price FROM item ORDER BY price", "unjudged"),
        # An ORDER BY that is not at the top level does not order the result.
        ("SELECT id FROM (SELECT id FROM item ORDER BY id)", "SELECT id FROM item ORDER BY id DESC", "correct"),
    ],
)
def test_ties_in_order_by_may_come_in_any_order(grader, gold, predicted, verdict):
    assert grader.grade(record(gold), predicted).verdict == verdict


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        # 333 or 334 items have each of the three prices 0.1, 1.1 and 2.1.
        ("SELECT id FROM item ORDER BY price LIMIT 1", "SELECT max(id) FROM item WHERE price < 1", "correct"),
        ("SELECT id FROM item ORDER BY price LIMIT 1", "SELECT max(id) FROM item WHERE price > 1", "wrong"),
        (
            "SELECT id FROM item ORDER BY price DESC LIMIT 3",
            "SELECT id FROM item WHERE price > 2 ORDER BY 1 DESC LIMIT 3",
            "correct",
        ),
        ("SELECT id FROM item ORDER BY price DESC LIMIT 3", "SELECT id FROM item WHERE price > 2 LIMIT 2", "wrong"),
        ("SELECT id FROM item ORDER BY price LIMIT 2", "SELECT 999 UNION ALL SELECT 999", "wrong"),  # one row twice
        (
            "SELECT id FROM item ORDER BY price LIMIT 1 OFFSET 900",
            "SELECT min(id) FROM item WHERE price > 2",
            "correct",
        ),
        (
            "SELECT name, price FROM item ORDER BY price LIMIT 1 OFFSET 5",
            "SELECT price, name FROM item WHERE price < 1 ORDER BY id DESC LIMIT 1",
            "correct",
        ),
        (
            "SELECT id, price FROM item ORDER BY 2, id LIMIT 1",
            "SELECT max(id), price FROM item WHERE price < 1",
            "wrong",
        ),
        # The rank of a window function, columns after a star, a set operation, and limits that are not plain numbers.
        (
            "SELECT id, rank() OVER (ORDER BY price) AS r FROM item ORDER BY r LIMIT 2",
            "SELECT id, 1 FROM item WHERE price < 1 ORDER BY id DESC LIMIT 2",
            "correct",
        ),
        (
            "SELECT * FROM item ORDER BY 3 LIMIT 2",
            "SELECT * FROM item WHERE price < 1 ORDER BY 1 DESC LIMIT 2",
            "correct",
        ),
        (
            "SELECT name, price FROM item UNION SELECT name, price FROM item ORDER BY 2 LIMIT 1",
            "SELECT name, price FROM item WHERE price < 1 ORDER BY id DESC LIMIT 1",
            "correct",
        ),
        ("SELECT id FROM item ORDER BY price LIMIT 1 + 1", "SELECT id FROM item WHERE id IN (6, 9)", "correct"),
        (
            "SELECT id FROM item ORDER BY price LIMIT -1 OFFSET 1",
            "SELECT id FROM item WHERE id <> 6 ORDER BY price",
            "correct",
        ),
        ("SELECT id FROM item ORDER BY price LIMIT 1 + 1", "SELECT id FROM item WHERE id IN (6, 7)", "wrong"),
        # Five columns with different names in a different order.
        (
            "SELECT id, name, price, id * 2, 'x' FROM item ORDER BY price LIMIT 2",
            "SELECT 'x' AS a, price AS b, id * 2 AS c, id AS d, name AS e FROM item WHERE id IN (9, 12)",
            "correct",
        ),
        (
            "SELECT id, name, price, id * 2, 'x' FROM item ORDER BY price LIMIT 2",
            "SELECT 'x' AS a, price AS b, id * 3 AS c, id AS d, name AS e FROM item WHERE id IN (9, 12)",
            "wrong",
        ),
        # The LIMIT keeps all items with higher prices and some of those that cost 0.1.
        (
            "SELECT id FROM item ORDER BY price DESC LIMIT 700",
            "SELECT id FROM item ORDER BY price DESC, id DESC LIMIT 700",
            "correct",
        ),
        ("SELECT id FROM item ORDER BY price DESC LIMIT 700", "SELECT id FROM item ORDER BY price LIMIT 700", "wrong"),
    ],
)
def test_any_choice_of_rows_that_tie_at_a_limit_is_right(grader, gold, predicted, verdict):
    judgement = grader.grade(record(gold), predicted)
    assert judgement.verdict == verdict
    assert ("LIMIT" in judgement.reason) is (verdict == "correct")


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict", "reason"),
    [
        (
            "SELECT min(id) AS low, max(id) AS high FROM item",
            "SELECT max(id) AS low, min(id) AS high FROM item",
            "wrong",
            "column",
        ),
        (
            "SELECT min(id) AS low, max(id) AS high FROM item",
            "SELECT max(id) AS high, min(id) AS low FROM item",
            "correct",
            "",
        ),
        ("SELECT min(id) AS low, max(id) AS high FROM item", "SELECT max(id), min(id) FROM item", "correct", ""),
        (
            "SELECT round(avg(id) / 9, 2) FROM item",
            "SELECT avg(id) / 9 FROM item",
            "wrong",
            r"\b2\b",
        ),
        ("SELECT round(avg(id) / 7, 3) FROM item", "SELECT avg(id) / 8 FROM item", "wrong", r"^\D+$"),
        ('SELECT AVG("pricee") FROM item', 'SELECT AVG("pricee") FROM item', "correct", '"pricee"'),
        ('SELECT id FROM item WHERE "pricee" > 1', "SELECT id FROM item", "correct", '"pricee"'),
        ('SELECT id FROM item WHERE name = "item 3"', "SELECT 3", "correct", r"\b1\b"),
    ],
)
def test_reasons_explain_differences_that_are_easy_to_miss(grader, gold, predicted, verdict, reason):
    judgement = grader.grade(record(gold), predicted)
    assert judgement.verdict == verdict
    assert re.search(reason, judgement.reason)
    assert ('"pricee"' in judgement.reason) is ("pricee" in gold)


def test_order_counts_in_the_dialect_of_the_database_not_of_the_record(grader):
    other = dataclasses.replace(record("SELECT id FROM item ORDER BY id"), dialect="oracle")
    assert grader.grade(other, "SELECT id FROM item ORDER BY id DESC").verdict == "wrong"


def test_a_comparison_that_is_too_hard_is_unjudged_but_a_wrong_answer_stays_wrong(grader, monkeypatch):
    verdicts = [False]

    def too_hard(*_, **__):
        if verdicts:
            return verdicts.pop()
        raise JudgingError("too hard")

    monkeypatch.setattr("sqlquarry.judging.execution.outcome.rows_match", too_hard)
    wrong = grader.grade(record("SELECT id FROM item ORDER BY id"), "SELECT id FROM item ORDER BY id DESC")
    unjudged = grader.grade(record("SELECT id FROM item"), "SELECT id + 1 FROM item")
    assert (wrong.verdict, unjudged.verdict, unjudged.reason) == ("wrong", "unjudged", "too hard")


def test_details_are_ready_for_json(grader):
    sql = "SELECT id, NULL, X'00ff', 9e999, printf('%.*c', 1000, 'x') FROM item"
    details = json.loads(json.dumps(grader.grade(record(sql), sql).details, allow_nan=False))
    assert details["gold"]["count"] == 1000
    assert len(details["gold"]["rows"]) == 10
    assert details["gold"]["rows"][0][:4] == [1, None, "X'00ff'", "inf"]
    assert details["gold"]["rows"][0][4] == "x" * 200 + "…"


def test_gold_results_are_cached(database, monkeypatch):
    grader = ExecutionGrader({"shop": database})
    ran = []
    run = Sandbox.run
    monkeypatch.setattr(Sandbox, "run", lambda self, database, sql: ran.append(sql) or run(self, database, sql))
    for _ in range(3):
        grader.grade(record("SELECT 1"), "SELECT 2")
    assert sorted(ran) == ["SELECT 1", "SELECT 2", "SELECT 2", "SELECT 2"]


def test_databases_are_found_in_folders_and_never_outside(tmp_path, database):
    folder = tmp_path / "folder"
    (folder / "nested").mkdir(parents=True)
    (folder / "flat.db").write_bytes(database.read_bytes())
    (folder / "nested" / "nested.sqlite").write_bytes(database.read_bytes())
    grader = ExecutionGrader(folder)
    for name, verdict in [("flat", "correct"), ("nested", "correct"), ("other", "unjudged"), (None, "unjudged")]:
        assert grader.grade(record("SELECT 1", name), "SELECT 1").verdict == verdict, name
    assert (
        grader.grade(record("SELECT 1", f"../../{database.parent.name}/{database.stem}"), "SELECT 1").verdict
        == "unjudged"
    )


def test_bad_construction_is_refused(tmp_path):
    with pytest.raises(JudgingError, match=re.escape(str(tmp_path / "nowhere"))):
        ExecutionGrader(tmp_path / "nowhere")
    with pytest.raises(JudgingError, match=r"a: .*nope\.sqlite"):
        ExecutionGrader({"a": tmp_path / "nope.sqlite"})
    with pytest.raises(ConfigError, match=r"time_s\b.*\binf\b.*\brows\b.*-1\b"):
        ExecutionLimits(time_s=math.inf, rows=-1)


def test_a_file_that_is_not_a_database_leaves_the_record_unjudged(tmp_path):
    path = tmp_path / "text.sqlite"
    path.write_text("this is not a database, whatever it is called")
    judgement = ExecutionGrader({"t": path}).grade(record("SELECT * FROM t", "t"), "SELECT * FROM t")
    assert (judgement.verdict, "not a database" in judgement.reason) == ("unjudged", True)


class Suite:
    """A source of databases with a table `t (a)` that contains the given numbers."""

    def __init__(self, folder: Path, *contents: list[int]) -> None:
        self.paths = [folder / f"{i}.sqlite" for i in range(len(contents))]
        for path, numbers in zip(self.paths, contents, strict=True):
            with contextlib.closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("CREATE TABLE t (a)")
                connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in numbers])

    def databases_for(self, _record, predicted_sql):
        if "nowhere" in predicted_sql:
            raise JudgingError("there is nowhere to run this")
        return self.paths

    def translate(self, sql, _record):
        if "untranslatable" in sql:
            raise JudgingError("cannot be said in SQLite")
        return sql.replace("ALIEN", "SELECT")

    def details(self, _record):
        return {"kill rate": 0.5}


@pytest.mark.parametrize(
    ("golds", "predicted", "verdict", "reason"),  # a pattern of the values in the reason
    [
        (["SELECT a FROM t WHERE a > 1"], "SELECT a FROM t WHERE a >= 2", "correct", r"\b3\b"),
        (["ALIEN a FROM t"], "ALIEN a FROM t WHERE 1", "correct", r"\b3\b"),
        (["SELECT a FROM t WHERE a > 9"], "SELECT a FROM t WHERE a > 8", "correct", "empty"),
        # Right only on the first database.
        (["SELECT count(*) FROM t"], "SELECT 3", "wrong", r"^\D+$"),
        (["SELECT a FROM t"], "SELECT a FROM t LIMIT 3", "wrong", r"\b3\b.*\b4\b"),
        (["SELECT a FROM t"], "SELECT nope FROM t", "wrong", "no such column"),
        # Equal to one gold on one database and to another gold on the next one, so right by neither.
        (["SELECT min(a) FROM t", "SELECT max(a) FROM t"], "SELECT iif(count(*) = 3, 1, max(a)) FROM t", "wrong", ""),
        (["SELECT min(a) FROM t", "SELECT max(a) FROM t"], "SELECT max(a) + 0 FROM t", "correct", r"\b3\b"),
        (["SELECT nope FROM t", "SELECT max(a) FROM t"], "SELECT max(a) + 0 FROM t", "correct", r"\b3\b"),
        (
            ["SELECT nope FROM t", "SELECT none FROM t"],
            "SELECT 1",
            "unjudged",
            "no such column: nope",
        ),
        (["SELECT a FROM t"], "SELECT nowhere", "unjudged", "nowhere to run"),
        (["SELECT untranslatable"], "SELECT 1", "unjudged", "cannot be said"),
    ],
)
def test_a_prediction_must_be_right_on_every_database_by_one_gold(tmp_path, golds, predicted, verdict, reason):
    grader = ExecutionGrader(Suite(tmp_path, [1, 2, 3], [3, 2, 1], [1, 2, 2, 4]))
    first, *others = golds
    judgement = grader.grade(Record("q", "s", first, alternatives=tuple(others)), predicted)
    assert judgement.verdict == verdict, judgement
    assert re.search(reason, judgement.reason), judgement
    if judgement.details:
        assert judgement.details["databases"] == 3
        assert judgement.details["kill rate"] == 0.5


def test_details_show_which_database_and_which_gold_decided(tmp_path):
    grader = ExecutionGrader(Suite(tmp_path, [1, 2, 3], [1, 2, 2, 4]))
    wrong = grader.grade(Record("q", "s", "SELECT a FROM t"), "SELECT a FROM t LIMIT 3")
    assert (wrong.details["told_apart_by"], wrong.details["gold"]["count"]) == (1, 4)
    right = grader.grade(
        Record("q", "s", "SELECT min(a) FROM t", alternatives=("SELECT max(a) FROM t",)), "SELECT max(a) FROM t"
    )
    assert (right.details["accepted_gold"], right.details["gold"]["rows"]) == (1, [[3]])
    assert "told_apart_by" not in right.details


def test_a_gold_that_cannot_be_compared_leaves_the_record_unjudged_unless_another_agrees(tmp_path, monkeypatch):
    def too_hard(gold_rows, predicted_rows, *_):
        if gold_rows == [(1,)]:
            raise JudgingError("too hard")
        return gold_rows == predicted_rows

    monkeypatch.setattr("sqlquarry.judging.execution.outcome.rows_match", too_hard)
    grader = ExecutionGrader(Suite(tmp_path, [1, 2, 3], [1, 4]))
    two_golds = Record("q", "s", "SELECT min(a) FROM t", alternatives=("SELECT max(a) FROM t",))
    assert grader.grade(two_golds, "SELECT max(a) FROM t").verdict == "correct"
    assert grader.grade(two_golds, "SELECT 3").verdict == "unjudged"


def test_a_source_without_a_database_leaves_the_record_unjudged(tmp_path):
    assert ExecutionGrader(Suite(tmp_path)).grade(record("SELECT 1"), "SELECT 1").verdict == "unjudged"


def test_the_comparison_may_be_loosened(database):
    grader = ExecutionGrader(
        {"shop": database}, comparison=ComparisonOptions(extra_columns=True, absolute_tolerance=0.2)
    )
    gold = record("SELECT id, price FROM item")
    assert grader.grade(gold, "SELECT name, price + 0.1, id FROM item").verdict == "correct"
    assert grader.grade(gold, "SELECT name, price + 0.3, id FROM item").verdict == "wrong"
    assert re.findall(r"\d+", grader.grade(gold, "SELECT id FROM item").reason) == ["1", "2"]
    empty = record("SELECT id, price FROM item WHERE id < 0")
    assert grader.grade(empty, "SELECT * FROM item WHERE id < 0").verdict == "correct"


def test_fingerprints_change_with_content_and_options(tmp_path):
    path = tmp_path / "a.sqlite"
    sqlite3.connect(path).execute("CREATE TABLE t (a)").close()
    asked = record("SELECT 1", "a")

    def fingerprint(**options):
        return ExecutionGrader(tmp_path, **options).fingerprint(asked)

    first = fingerprint()
    assert first == fingerprint()
    assert (
        len(
            {
                first,
                fingerprint(limits=ExecutionLimits(time_s=1)),
                fingerprint(comparison=ComparisonOptions(ignore_case=True)),
            }
        )
        == 3
    )
    sqlite3.connect(path).execute("CREATE TABLE u (a)").close()
    assert fingerprint() != first
    assert ExecutionGrader("postgresql://localhost/x").fingerprint(asked) is None
    assert ExecutionGrader(tmp_path).fingerprint(record("SELECT 1", "none")) is None


def test_a_file_may_be_given_as_a_url(database):
    for url in (f"sqlite:///{quote(str(database))}", f"sqlite+pysqlite:///{quote(str(database))}?timeout=1"):
        grader = ExecutionGrader({"shop": url})
        assert grader.grade(record("SELECT count(*) FROM item"), "SELECT 1000").verdict == "correct"
    folder = quote(str(database.parent))
    grader = ExecutionGrader(f"sqlite:///{folder}/{{database}}.sqlite")
    assert grader.grade(record("SELECT count(*) FROM item", database.stem), "SELECT 1000").verdict == "correct"
    assert (
        grader.grade(record("SELECT 1", f"../{database.parent.name}/{database.stem}"), "SELECT 1").verdict == "unjudged"
    )
