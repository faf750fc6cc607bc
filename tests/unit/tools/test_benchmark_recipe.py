"""The benchmark of the published recipe: the notebook's served prompt, and the tables of judged answers."""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

import sqlquarry as sq

ROOT = Path(__file__).resolve().parents[3]
ROWS = [
    {"question": f"How old is person {n}?", "context": f"CREATE TABLE t{n} (age INTEGER, name VARCHAR)"}
    | {"answer": f'SELECT age FROM t{n} WHERE name = "p{n}"'}
    for n in range(200)
]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("recipe")


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    folder = tmp_path / "sql_create_context_rebuilt"
    folder.mkdir()
    parts = {"wikisql_train": ROWS[:150], "spider_train": ROWS[150:197], "wikisql_dev": ROWS[197:]}
    for name, rows in parts.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return argparse.Namespace(data=tmp_path, output=tmp_path, limit=None)


def test_the_served_prompt_is_that_of_the_notebook(recipe: ModuleType) -> None:
    record = sq.Record("How many?", "CREATE TABLE t (a INT)", "SELECT COUNT(*) FROM t")
    assert recipe.served_prompt(sq.PromptFormatter.published(), record) == (
        "<s>[INST] <<SYS>>You are a powerful text-to-SQL model. Your job is to answer questions about a database."
        "You can use the following table schema for context: CREATE TABLE t (a INT)<</SYS>>\n\n"
        "[INST]Human: Return the SQL query that answers the following question: How many?[/INST]\n\nAssistant:"
    )


def test_one_percent_is_held_out(recipe: ModuleType, options: argparse.Namespace) -> None:
    train, questions = recipe.read_records(options)
    assert [len(train), len(questions["held_out"]), len(questions["wikisql_dev"])] == [195, 2, 3]
    assert not {record.question for record in questions["held_out"]} & {record.question for record in train}


def test_both_systems_are_judged_on_the_same_questions(
    recipe: ModuleType, options: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    _, questions = recipe.read_records(options)
    run = {"duration_s": 150, "tokens_per_second": 80_000, "peak_memory_bytes": 2**31}
    about = {"records": 195, "digests": {kind: found.digest for kind, found in questions.items()}, "run": run}
    about |= {"seconds": {"training": 222, "merge": 3, "answers as served": 20}, "gpu": "G", "date": "", "versions": {}}
    right = {kind: [(record.sql, "stop") for record in found] for kind, found in questions.items()}
    wrong = {kind: [("SELECT 1", "length")] * len(found) for kind, found in questions.items()}
    for name, answers in (("published", wrong), ("ours", right)):
        answered = {"system": name, "answers": {"as served": answers}, **about}
        (options.output / f"{name}.json").write_text(json.dumps(answered), encoding="utf-8")
    recipe.judge(options)
    printed = capsys.readouterr().out
    assert (
        "| SQLQuarry, as served | 3 WikiSQL dev | 100.0% | 100.0% [43.9%, 100.0%] | 100.0% [43.9%, 100.0%] | 0 | 0 |"
        in printed
    )
    assert "| published recipe, as served | 3 WikiSQL dev | 0.0% |" in printed
    assert "| SQLQuarry | 222 | 150 | 80,000 | 2.0 | 3 | 20 |" in printed
    found = json.loads((options.output / "recipe.json").read_text(encoding="utf-8"))
    assert list(found["differences"]["held_out"]) == ["published recipe, as served"]

    (options.output / "ours.json").write_text(
        json.dumps(
            {"system": "ours", "answers": {"as served": right}, **about, "digests": dict.fromkeys(questions, "0")}
        )
    )
    with pytest.raises(SystemExit, match="held_out"):
        recipe.judge(options)
