"""The benchmark of data: all contenders prepare the same records, differences of ids are counted, and the tables."""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sqlquarry as sq

from conftest import tiny_tokenizer, toy_examples

ROOT = Path(__file__).resolve().parents[3]
ROWS = [{"question": one["question"], "context": one["schema"], "answer": one["sql"]} for one in toy_examples(60)]


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("data")


@pytest.fixture
def options(tiny_llama: Path, tmp_path: Path) -> argparse.Namespace:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return argparse.Namespace(base=tiny_llama, rows=rows, data=tmp_path, limit=None)


def test_all_contenders_prepare_the_same_records(
    data: ModuleType, options: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    tokenizer = tiny_tokenizer()
    found = {name: data.WORKERS[name](options) for name in data.TITLES}
    published = sq.PromptFormatter.published().bind(tokenizer)
    records = sq.load_records(options.rows)
    texts = [published.text(record) for record in records]
    tokens = sum(map(len, tokenizer(texts)["input_ids"]))
    assert found["recipe"]["tokens"] == found["recipe"]["learned"] == tokens
    assert found["recipe"]["rows"] == -(-tokens // 3072)
    encoded = sq.PromptFormatter().encode_all(records, tokenizer)
    assert found["ours"]["tokens_unshared"] == sum(len(one.input_ids) for one in encoded)
    assert found["ours"]["tokens"] < found["ours"]["tokens_unshared"]
    assert found["ours"]["learned"] == sum(label != -100 for one in encoded for label in one.labels)
    assert found["trl"]["tokens"] == found["ours"]["tokens_unshared"]
    assert found["trl"]["learned"] == found["ours"]["learned"]
    for one in found.values():
        assert one["padding"] == pytest.approx(1 - one["tokens"] / one["rows"] / one["row_tokens"])
        assert one["preparing"]["seconds"] > 0


def test_different_ids_and_labels_are_counted(
    data: ModuleType, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, records = tiny_tokenizer(), sq.load_records(options.rows)
    formatter = sq.PromptFormatter()
    right = data.differences(formatter, records, tokenizer, batch=7)
    encoded = formatter.encode_all(records, tokenizer)
    tokens = sum(len(one.input_ids) for one in encoded)
    assert right == {"records": 60, "tokens": tokens, "different": 0, "first": []}
    encoded = [*encoded]
    encoded[3] = encoded[3]._replace(labels=[-100, *encoded[3].labels[1:-1], -100])
    encoded[8] = encoded[8]._replace(input_ids=[1, *encoded[8].input_ids[1:]])
    monkeypatch.setattr(sq.PromptFormatter, "encode_all", lambda *_: encoded)
    wrong = data.differences(formatter, records, tokenizer, batch=7)
    assert (wrong["different"], wrong["first"]) == (2, [3, 8])


def test_repeated_rows_are_different_and_have_the_same_answers(data: ModuleType, tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "context": f"t{n}", "answer": f"SELECT {n}"} for n in range(3)]
    many = [*data.repeated(rows, 8)]
    assert len({row["question"] for row in many}) == 8
    assert {row["answer"] for row in many} == {"SELECT 0", "SELECT 1", "SELECT 2"}
    for ending in data.FORMATS:
        data.save(iter(many), tmp_path / f"rows.{ending}")
        loaded = sq.load_records(tmp_path / f"rows.{ending}", dialect="sqlite")
        assert [record.question for record in loaded] == [row["question"] for row in many]


def test_the_command_writes_the_table_and_json(
    data: ModuleType,
    options: argparse.Namespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "sql_create_context_rebuilt"
    folder.mkdir()
    parts = {"wikisql_train": ROWS[:40], "spider_train": ROWS[40:], "wikisql_dev": ROWS[:3]}
    for name, rows in parts.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    given = ["--limit", "20", "--data", str(tmp_path), "--base", str(options.base), "--output", str(tmp_path / "out")]
    environments: list[dict[str, str]] = []
    real = data.run_apart

    def apart(arguments: list[str], *, environment: dict[str, str]) -> Any:
        environments.append(environment)
        return real(arguments, environment=environment)

    monkeypatch.setattr(data, "run_apart", apart)
    monkeypatch.setattr(sys, "argv", ["data.py", "--only", "ours", *given])
    data.main()
    found = json.loads((tmp_path / "out" / "prepare.json").read_text(encoding="utf-8"))
    ours = found["runs"]["ours"]
    printed = capsys.readouterr().out
    assert f"| {ours['tokens']:,} | {ours['learned']:,} | {ours['rows']:,} of 2,048 |" in printed
    assert (found["limit"], found["versions"]["sqlquarry"]) == (20, sq.__version__)
    assert not {environment["HOME"] for environment in environments} & {str(Path.home())}
    # Only the table of loading is tested here.
    monkeypatch.setattr(data, "run_apart", lambda *_, **__: {"seconds": 0.25, "cpu_seconds": 0.2, "memory_mib": 1.0})
    monkeypatch.setattr(sys, "argv", ["data.py", "loading", *given])
    data.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines[2:5]] == ["jsonl", "csv", "parquet"]
    assert all("| 0.25 | 12500.0 | 10000.0 | 1 | 52,429 |" in line for line in lines[2:5])
