"""load_records on public data sets that are stored next to the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlquarry import PromptFormatter, load_records
from sqlquarry.errors import RecordError

from conftest import tiny_tokenizer


def test_original_sql_create_context(shared_data: Path):
    folder = shared_data / "sql_create_context_real"
    spider, wikisql = load_records(folder / "modal_sqlqa.nodev.jsonl"), load_records(folder / "punica_15.jsonl")

    assert (len(spider), len(wikisql)) == (3957, 15)
    assert spider[0].sql == "SELECT COUNT(*) FROM head WHERE age > 56"
    assert spider[0].id == "modal_sqlqa.nodev:1"
    assert not any("SQL]" in (record.sql or "") for record in spider + wikisql)
    assert all(record.sql == (record.sql or "").strip() for record in spider)


def test_original_rows_become_prompts(shared_data: Path):
    records = load_records(shared_data / "sql_create_context_real" / "punica_15.jsonl")
    formatter = PromptFormatter().bind(tiny_tokenizer())

    for record in records:
        prompt = formatter.prompt(record)
        assert f"for context: {record.schema}\n\nHuman: " in prompt
        assert prompt.endswith("\n\nAssistant:")
        assert formatter.completion(record) == f" {record.sql}<|im_end|>"


@pytest.mark.parametrize("name", ["wikisql_train", "wikisql_dev", "spider_train"])
def test_rebuilt_sql_create_context(shared_data: Path, name: str):
    records = load_records(shared_data / "sql_create_context_rebuilt" / f"{name}.jsonl.gz", limit=1000)
    train, test = records.split(0.1)

    assert len(records) == 1000
    assert records[999].id == f"{name}:1000"
    assert len(test) == 100
    assert not {record.schema for record in train} & {record.schema for record in test}


def test_rows_of_an_unknown_shape(shared_data: Path):
    with pytest.raises(RecordError, match=r"\b6735 .*\b6735 .*\n  line 1: .*\(db_id, question, gold_sql"):
        load_records(shared_data / "spider_exec" / "train.jsonl")
