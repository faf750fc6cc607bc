"""Common mistakes of users raise a typed error with the value and the next step, not an AttributeError."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sqlquarry as sq
from sqlquarry.aws import aws_client
from sqlquarry.errors import AdoptionError, ConfigError, DataError, IncompleteArtifactError, JudgingError, RecordError

RECORDS = sq.Records(
    sq.Record(f"How many {name}?", f"CREATE TABLE {name} (a)", f"SELECT COUNT(*) FROM {name}", id=name)
    for name in ("cats", "dogs", "owls")
)
judge = sq.SQLJudge([sq.ExactGrader()])


@pytest.mark.parametrize(
    ("call", "error", "value"),
    [
        (lambda: sq.load_records(7), ConfigError, "7"),
        (lambda: sq.load_records(["a.csv", "b.csv"]), ConfigError, "load_records(a) + load_records(b)"),
        (lambda: RECORDS.split(test_size="a third"), ConfigError, "'a third'"),
        (lambda: RECORDS.split(test_size=None), ConfigError, "None"),
        (lambda: RECORDS.split(test_size=1, group_by="schemas"), ConfigError, "'schema'"),
        (lambda: sq.Record("", "CREATE TABLE t (a)"), RecordError, "question is ''"),
        (lambda: sq.LocalModel(7), ConfigError, "MergedModel"),
        (lambda: sq.LocalModel(7), ConfigError, "AdapterCheckpoint"),
        (lambda: sq.AdapterCheckpoint.load("runs/no-such-adapter"), IncompleteArtifactError, "runs/no-such-adapter"),
        (lambda: sq.adopt_adapter(7, base_model="a"), ConfigError, "7"),
        (lambda: sq.adopt_adapter("a", base_model="b", output_dir="s3://b/c"), ConfigError, "s3://b/c"),
        (lambda: sq.adopt_adapter("no-adapter", base_model="b"), AdoptionError, "'no-adapter'"),
        (lambda: aws_client("s3", "my-profile"), ConfigError, "'my-profile'"),
        (lambda: sq.SQLJudge([sq.ExecutionGrader]), ConfigError, "ExecutionGrader"),
        (lambda: judge.evaluate(RECORDS, "model-1"), JudgingError, "'model-1'"),
        (lambda: judge.evaluate("model-1", RECORDS), JudgingError, "<Records: 3>"),
        (lambda: judge.judge(["SELECT 1"] * 3, RECORDS), JudgingError, "predictions"),
        (lambda: sq.Report.from_json("no-such.json"), JudgingError, "no-such.json"),
        (lambda: sq.ExecutionLimits(time_s=0), ConfigError, "time_s is 0"),
        (lambda: sq.QLoRAFSDPTrainer("Llama-3-8B").plan(RECORDS), sq.SQLQuarryError, "owner/name"),
        (lambda: sq.QLoRAFSDPTrainer("o/n").plan("a.csv"), RecordError, "load_records('a.csv')"),
    ],
)
def test_the_error_contains_the_value_or_the_next_step(
    call: Callable[[], Any], error: type[Exception], value: str
) -> None:
    with pytest.raises(error) as caught:
        call()
    assert value in str(caught.value)


def test_the_error_for_a_spreadsheet_recommends_csv(tmp_path: Path) -> None:
    (tmp_path / "questions.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError) as caught:
        sq.load_records(tmp_path / "questions.xlsx")
    assert "CSV UTF-8" in str(caught.value)


def test_rows_in_the_format_of_sql_create_context_keep_their_database(tmp_path: Path) -> None:
    row = {"question": "How many?", "context": "CREATE TABLE t (a)", "answer": "SELECT COUNT(*) FROM t"}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row | {"database": "shop", "dialect": "pg"}) + "\n")
    (record,) = sq.load_records(file)
    assert (record.database, record.dialect) == ("shop", "postgres")
    file.write_text(json.dumps(row | {"database": "shop", "db_id": "zoo"}) + "\n")
    with pytest.raises(RecordError):
        sq.load_records(file)
