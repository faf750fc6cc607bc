"""`Records.check`: its arguments, what it runs, and what it counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import sqlquarry as sq
from sqlquarry.data.checkup.run import CHECKS, KINDS
from sqlquarry.errors import ConfigError, JudgingError, MissingExtraError

SCHEMA = "CREATE TABLE loan (id INTEGER, name TEXT)"
RECORDS = sq.Records(
    [
        sq.Record("How many loans are there?", SCHEMA, "SELECT COUNT(*) FROM loan", "library", id="count"),
        sq.Record("Who has the book?", SCHEMA, "SELECT nobody FROM loan", "library", id="column"),
        sq.Record("Which loans are of Ann?", SCHEMA, "SELECT id FROM loan WHERE name = 'Ann'", "library", id="empty"),
        sq.Record("How many loans are there?", SCHEMA, "SELECT COUNT(*) FROM loan", "library", id="twice"),
    ]
)


@dataclass
class Plan:
    """What a check-up reads of a training plan."""

    records: int = 4
    rows: int = 2
    rows_per_step: int = 2
    steps: int = 1
    epochs: float = 1.0


class Words:
    """A tokenizer of words, as far as a bound formatter needs one."""

    bos_token, eos_token, bos_token_id, eos_token_id, chat_template = "<s>", "</s>", 1, 2, None

    @dataclass
    class Special:
        """A special token."""

        text: str
        special: bool = True

        def __str__(self) -> str:
            return self.text

    added_tokens_decoder: Mapping[int, Special] = {1: Special("<s>"), 2: Special("</s>")}

    def __call__(
        self, text: str | Sequence[str], *, add_special_tokens: bool = True
    ) -> dict[str, list[int] | list[list[int]]]:
        if isinstance(text, str):
            return {"input_ids": [1] * add_special_tokens + [7] * len(text.split())}
        return {"input_ids": [self(one, add_special_tokens=add_special_tokens)["input_ids"] for one in text]}

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return {"<s>": 1, "</s>": 2}.get(token)


@pytest.fixture
def databases(tmp_path: Path) -> Path:
    folder = tmp_path / "databases"
    folder.mkdir()
    with sqlite3.connect(folder / "library.sqlite") as connection:
        connection.execute(SCHEMA)
        connection.execute("INSERT INTO loan VALUES (1, 'Bo')")
    connection.close()
    return folder


def test_without_databases_only_texts_are_checked() -> None:
    found = RECORDS.check()
    assert found.ids("column-missing") == ["column"]
    assert found.of("duplicate")[0].records == (0, 3)
    assert not found.ok
    assert found.statistics.records == 4
    assert {kind.needs for kind in found.skipped.values()} == {
        "databases",
        "others",
        "tokenizer",
        "max_length",
        "plan",
    }
    assert "gold-fails" in found.skipped


@pytest.mark.parametrize("kind", [Path, str, lambda folder: {"library": folder / "library.sqlite"}])
def test_queries_run_on_all_forms_of_databases(databases: Path, kind: Callable[[Path], object]) -> None:
    found = RECORDS.check(kind(databases), concurrency=2)  # type: ignore[arg-type] - every form is allowed
    assert found.ids("gold-fails") == ["column"]
    assert "nobody" in found.of("gold-fails")[0].detail
    assert found.ids("gold-empty") == ["empty"]
    assert "gold-fails" not in found.skipped


def test_databases_may_come_from_a_source_of_one_s_own(databases: Path) -> None:
    class Source:
        def databases_for(self, record: sq.Record, predicted_sql: str) -> Sequence[Path | str]:  # noqa: ARG002 - the protocol's
            return [databases / f"{record.database}.sqlite"]

        def translate(self, sql: str, record: sq.Record) -> str:  # noqa: ARG002 - the protocol's
            return sql

    assert RECORDS.check(Source()).ids("gold-empty") == ["empty"]


def test_other_sets_are_searched_for_the_same_records() -> None:
    found = RECORDS[1:].check(others={"test": RECORDS[:1]})
    assert found.ids("leak") == ["twice"]
    assert "leak" not in found.skipped


def test_a_plan_gives_the_optimizer_steps() -> None:
    found = RECORDS.check(plan=Plan())
    assert found.statistics.steps is not None
    assert found.statistics.steps.steps == 1
    assert found.counts["few-steps"] == 1
    assert "1 optimizer step of 2 rows" in str(found)


def test_a_tokenizer_counts_tokens_of_prompt_and_answer() -> None:
    odd = sq.Record("Which name ends the text?", SCHEMA, "SELECT id FROM loan WHERE name = '</s>'", id="special")
    records = RECORDS + sq.Records([odd, sq.Record("How many?", SCHEMA, id="no sql")])
    formatter = sq.PromptFormatter(system="", user="{schema} {question}")
    found = records.check(tokenizer=Words(), formatter=formatter)
    assert found.ids("special-token") == ["special"]
    encoded = formatter.bind(Words()).encode_all(RECORDS, Words())
    tokens = found.checked.tokens
    assert tokens is not None
    assert tokens[:4] == [len(one.input_ids) for one in encoded]
    assert 0 < tokens[5] < tokens[0], "a record without SQL counts with its prompt"
    assert found.statistics.tokens is not None
    assert found.statistics.tokens.max == max(tokens)
    limit = sorted(tokens)[-2]
    assert len(records.check(tokenizer=Words(), formatter=formatter, max_length=limit).of("over-length")) == 1


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"databases": 7}, "7"),
        ({"databases": RECORDS}, "DatabaseSource"),
        ({"others": RECORDS}, "others"),
        ({"others": {"test": "rows.jsonl"}}, "others"),
        ({"others": {"test": [1]}}, "Record"),
        ({"formatter": "chat"}, "'chat'"),
        ({"max_length": 512}, "512"),
        ({"max_length": 0, "tokenizer": Words()}, "max_length is 0"),
        ({"tokenizer": "o/n"}, "'o/n'"),
        ({"plan": 3}, "plan is 3"),
        ({"limits": 3}, "limits is 3"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"concurrency": "4"}, "concurrency is '4'"),
    ],
)
def test_a_wrong_argument_is_an_error_before_the_work_starts(
    options: dict[str, object], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlquarry.data.checkup.run.run_checks", lambda _: pytest.fail("the work has started"))
    with pytest.raises(ConfigError, match=value):
        RECORDS.check(**options)  # type: ignore[arg-type] - wrong on purpose


def test_all_wrong_arguments_are_in_one_error() -> None:
    with pytest.raises(ConfigError, match=r"limits is 3.*concurrency is 0"):
        RECORDS.check(limits=3, concurrency=0)  # type: ignore[arg-type] - wrong on purpose


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JudgingError, match="no-such"):
        RECORDS.check(tmp_path / "no-such")


def test_a_missing_extra_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlquarry.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"sqlquarry\[judge\]"):
        RECORDS.check()


def test_records_may_be_empty_or_without_sql() -> None:
    assert sq.Records().check().ok
    assert sq.Records([RECORDS[0].asked]).check().statistics.with_sql == 0


def test_kinds_have_unique_names_and_full_sentences() -> None:
    assert len(KINDS) > 20
    assert len(set(CHECKS)) == len(CHECKS)
    for name, kind in KINDS.items():
        assert name == kind.name == name.lower().replace(" ", "-")
        assert not kind.title.endswith(".")
        assert kind.advice.endswith(".")
    titles = [kind.title for kind in KINDS.values()]
    assert len(set(titles)) == len(titles)
