"""Records that cannot be judged are unjudged by every grader, with the reason and the record's id in the summary."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from sqlquarry import Generation, Record, Report, SQLJudge
from sqlquarry.judging import EquivalenceGrader, ExecutionGrader, SynthesizedDatabases

SCHEMA = "CREATE TABLE shop (id INTEGER PRIMARY KEY, city TEXT NOT NULL, rent INTEGER)"
GOLD = "SELECT city FROM shop WHERE rent > 5"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shops.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA + "; INSERT INTO shop VALUES (1, 'Graz', 9), (2, 'Linz', 3);")
    connection.close()
    return path


def one(sql: str | None = GOLD, schema: str = SCHEMA, dialect: str = "sqlite") -> Record:
    return Record("q", schema, sql, database="shops", id="the-record", dialect=dialect)


def of_unknown_dialect(record: Record) -> Record:
    """Return the record with a dialect that the installed sqlglot does not support."""
    object.__setattr__(record, "dialect", "klingon")
    return record


def unjudged(report: Report, words: str) -> None:
    for entry in report.entries:
        for judgement in entry.judgements:
            assert judgement.verdict == "unjudged", judgement
            assert words in judgement.reason
    assert "the-record" in report.summary()
    assert words in report.summary()


def test_a_gold_that_cannot_run(database: Path) -> None:
    grader = ExecutionGrader({"shops": database})
    unjudged(SQLJudge([grader]).judge([one("SELECT town FROM shop")], [GOLD]), "no such column: town")


def test_a_prediction_of_two_megabytes(database: Path) -> None:
    graders = [ExecutionGrader({"shops": database}), EquivalenceGrader()]
    unjudged(SQLJudge(graders).judge([one()], [GOLD + " OR rent > 7" * 170_000]), "characters")


def test_a_database_that_disappears_while_judging(database: Path) -> None:
    class Remover:
        """A model that deletes the database between the first and the second question."""

        asked = 0

        def generate(self, inputs, /):
            self.asked += len(inputs)
            if self.asked > 1:
                database.unlink()
            return [Generation(GOLD) for _ in inputs]

    judge = SQLJudge([ExecutionGrader({"shops": database})], batch_size=1)
    report = judge.evaluate([one(), one(GOLD.replace("5", "4"))], Remover())
    assert report.entries[0].judgements[0].verdict == "correct"
    unjudged(Report(report.graders, report.entries[1:]), "unable to open")


@pytest.mark.parametrize(
    "grader", [ExecutionGrader(SynthesizedDatabases()), EquivalenceGrader()], ids=["made", "shown"]
)
@pytest.mark.parametrize(
    "record",
    [of_unknown_dialect(one()), one(schema="a table of shops, with city and rent")],
    ids=["a dialect that nobody knows", "a schema that cannot be read"],
)
def test_an_unknown_dialect_or_unreadable_schema_leaves_the_record_unjudged(grader, record: Record) -> None:
    report = SQLJudge([grader]).judge([record], [GOLD.replace("rent", "2 * rent")])
    assert report.entries[0].judgements[0].verdict == "unjudged"
    assert report.entries[0].judgements[0].reason
    assert "the-record" in report.summary()
