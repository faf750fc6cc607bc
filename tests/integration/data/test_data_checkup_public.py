"""The check-up finds every known quirk of public data sets, and a repair of them is proved and final."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sqlquarry import Record, Records, load_records

WIKISQL = "sql_create_context_rebuilt/wikisql_{}.jsonl.gz"


def wording(record: Record) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", record.question.lower()))


@pytest.fixture(scope="module")
def genuine(shared_data: Path) -> Records:
    """Return the genuine rows of sql-create-context, of its Spider and its WikiSQL part."""
    folder = shared_data / "sql_create_context_real"
    return load_records(folder / "modal_sqlqa.nodev.jsonl", limit=1000) + load_records(folder / "punica_15.jsonl")


def test_quirks_of_sql_create_context(genuine: Records):
    report = genuine.check()
    counts = report.counts
    # Literals in double quotes
    assert counts["string-in-double-quotes"] == 207
    # Columns that the CREATE TABLE lacks
    assert counts["column-missing"] == 29
    assert "catalog_level_number" in report.of("column-missing")[0].detail
    # [SQL] … [/SQL] around answers is removed while rows are read.
    assert counts["wrapped-answer"] == 0
    repair = genuine.repair()
    assert repair.counts["double-quoted-text"] == 207
    assert repair.records.check().counts["string-in-double-quotes"] == 0
    assert repair.records.repair().changes == ()


def test_markup_that_a_user_kept(shared_data: Path):
    path = shared_data / "sql_create_context_real" / "modal_sqlqa.nodev.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()[:50]]
    records = Records(Record(row["question"], row["context"], row["answer"]) for row in rows)
    assert records.check().counts["wrapped-answer"] == 50
    loaded = load_records(path, limit=50).repair().records
    assert [record.sql for record in records.repair().records] == [record.sql for record in loaded]


def test_a_column_whose_name_is_a_number_is_reported_and_not_repaired():
    record = Record("Which year?", "CREATE TABLE t (b VARCHAR)", 'SELECT b FROM t WHERE 1987 = "a"')
    assert Records([record]).check().of("literals-compared")[0].detail == '1987 = "a"'
    assert Records([record]).repair().changes == ()


def test_numbers_in_quotes_and_questions_in_two_splits_of_wikisql(shared_data: Path):
    train, dev = (load_records(shared_data / WIKISQL.format(part)) for part in ("train", "dev"))
    assert dev[:500].check().counts["number-stored-as-text"] > 20
    both = {wording(record) for record in train} & {wording(record) for record in dev}
    train, dev = (Records(record for record in part if wording(record) in both) for part in (train, dev))
    assert dev.check(others={"train": train}).counts["repeated-question"] == 14


def test_golds_run_and_repaired_golds_return_the_same_rows(shared_data: Path):
    lines = (shared_data / "spider_exec" / "dev_share.jsonl").read_text().splitlines()
    rows = [{**row, "query": row["gold_sql"]} for row in map(json.loads, lines)]
    databases = shared_data / "spider_sqlite"
    records = load_records(rows, schema=databases)
    report = records.check(databases)
    assert report.ok
    # Rows of a database whose white space was cleaned no longer match the literal of a query.
    assert report.counts["gold-empty"] == sum(row["n_rows"] == 0 for row in rows)
    repair = records.repair(databases)
    assert repair.counts["double-quoted-text"] == 18
    assert repair.counts["letter-case"] > 100
    after = repair.records.check(databases)
    assert after.ids("gold-empty") == report.ids("gold-empty")
