"""Sources of databases for ExecutionGrader: folders, mappings, URLs, several databases, and fingerprints."""

import contextlib
import math
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest

from judging_shop import create_shop, record
from sqlquarry.errors import ConfigError, JudgingError
from sqlquarry.execution.limits import ExecutionLimits
from sqlquarry.judging import ComparisonOptions, ExecutionGrader
from sqlquarry.records import Record


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return create_shop(tmp_path_factory.mktemp("db"))


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
        (["SELECT count(*) FROM t"], "SELECT 3", "wrong", r"^\D*\brow$"),
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
