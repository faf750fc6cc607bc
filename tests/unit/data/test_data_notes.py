"""Notes of records: read from columns, written by all writers, and shown once in prompts and to judges."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sqlquarry import PromptFormatter, Record, Records, load_records
from sqlquarry.errors import RecordError
from sqlquarry.judging.llm.prompt_rubric import PromptRubric
from sqlquarry.judging.llm.prompts import question as judge_question
from sqlquarry.records import json_lines

SCHEMA, SQL, RULE = "CREATE TABLE t (a)", "SELECT a FROM t", "An adult is over 17"
RECORD = Record("How many adults?", SCHEMA, SQL, id="x", notes=RULE)
BARE = dataclasses.replace(RECORD, notes="")
LABELED = PromptFormatter(user="{question}\nNotes: {notes}")


def user(formatter: PromptFormatter, record: Record) -> str:
    return formatter.messages(record.asked)[-1]["content"]


@pytest.mark.parametrize("column", ["notes", "Evidence", "hint", " Hints "])
def test_notes_are_read_from_their_usual_columns(column: str):
    row = {"id": "x", "question": RECORD.question, "schema": SCHEMA, "sql": SQL}
    assert [*load_records([row | {column: RULE}])] == [RECORD]
    assert [*load_records([row | {column: None}])] == [*load_records([row | {column: ""}])] == [BARE]
    assert [*load_records([row | {"rules": RULE}], columns={"notes": "rules"})] == [RECORD]
    with pytest.raises(RecordError, match="7"):
        load_records([row | {column: 7}])


def test_white_space_is_kept_in_rows_of_our_own_shape_only():
    row = {"question": " q", "schema": "s", "sql": "x"}
    (own,), (other,) = load_records([row | {"notes": " n"}]), load_records([row | {"evidence": " n"}])
    assert (own.question, own.notes, other.question, other.notes) == (" q", " n", "q", "n")


def test_two_different_notes_are_refused():
    row = {"id": "x", "question": RECORD.question, "schema": SCHEMA, "sql": SQL, "notes": RULE}
    assert load_records([row | {"evidence": RULE}])[0].notes == RULE
    with pytest.raises(RecordError, match="'notes' and 'evidence'"):
        load_records([row | {"evidence": "An adult is over 20"}])
    assert load_records([row | {"hint": "other"}], columns={"notes": "hint"})[0].notes == "other"


def test_notes_must_be_text():
    with pytest.raises(RecordError, match="None"):
        Record("q", "s", notes=None)  # type: ignore[arg-type]  # what the test is about


def test_writers_keep_notes(tmp_path: Path):
    records = Records([RECORD, BARE, dataclasses.replace(RECORD, notes=" two\nlines ")])
    records.to_jsonl(tmp_path / "r.jsonl")
    records.to_parquet(tmp_path / "r.parquet")
    assert load_records(tmp_path / "r.jsonl") == load_records(tmp_path / "r.parquet") == records
    assert load_records(records.to_dataset()) == records
    (tmp_path / "lines.jsonl").write_text(json_lines(records))
    assert load_records(tmp_path / "lines.jsonl") == records


@pytest.mark.parametrize(
    "formatter",
    [PromptFormatter(), LABELED, PromptFormatter(system="Rules: {notes}\n{schema}"), PromptFormatter.published()],
)
def test_messages_keep_notes_apart_from_the_question(tmp_path: Path, formatter: PromptFormatter):
    records = Records([RECORD, BARE, dataclasses.replace(RECORD, notes="other (b)")])
    records.to_messages(tmp_path / "m.jsonl", formatter=formatter)
    assert load_records(tmp_path / "m.jsonl", formatter=formatter) == records


def test_messages_whose_text_lacks_the_notes_are_read():
    row = {"id": "x", "messages": PromptFormatter().messages(BARE), "evidence": RULE}
    assert [*load_records([row])] == [*load_records([row], formatter=PromptFormatter())] == [RECORD]


def test_records_without_notes_have_the_digest_and_the_lines_of_older_versions():
    record = Record("q", "s", "x", id="i")
    assert Records([record]).digest == "a24ac9592994018767f45776b5faac6395c4b296f6951af942e29319f3e2687c"
    assert json_lines([record]) == (
        '{"question": "q", "schema": "s", "sql": "x", "database": null, "dialect": "sqlite", "id": "i", '
        '"alternatives": []}\n'
    )
    assert Records([dataclasses.replace(record, notes="n")]).digest != Records([record]).digest


def test_a_prompt_has_the_notes_once():
    default = PromptFormatter()
    asked = "Return the SQL query that answers the following question: How many adults?"
    assert user(default, RECORD) == f"{asked} ({RULE})"
    assert user(default, BARE) == user(default, dataclasses.replace(BARE, notes=" \n")) == asked
    assert user(LABELED, RECORD) == f"How many adults?\nNotes: {RULE}"
    in_system = PromptFormatter(system="{notes}\n{schema}", user="{question}")
    assert in_system.messages(RECORD.asked)[0]["content"] == f"{RULE}\n{SCHEMA}"
    assert user(in_system, RECORD) == "How many adults?"
    assert user(PromptFormatter(user="{question} {{notes}}"), RECORD) == f"How many adults? ({RULE}) {{{{notes}}}}"


@pytest.mark.parametrize(
    ("wording", "expected"),
    [
        ("{question}\nNotes: {notes}", "How many adults?"),
        ("{question}\n\nNotes: {notes}\n", "How many adults?"),
        ("Notes: {notes}\n\n{question}", "How many adults?"),
        ("{dialect}\n\n<notes>{notes}</notes>\n\n{question}\n", "SQLite\n\nHow many adults?\n"),
        ("{question}\n\n", "How many adults?\n\n"),
        ("{question} Notes: {notes}", "How many adults? Notes: "),
    ],
)
def test_without_notes_a_line_that_has_only_them_is_left_out(wording: str, expected: str):
    assert user(PromptFormatter(user=wording), BARE) == expected


def test_a_system_message_with_only_notes_is_left_out_if_there_are_none():
    formatter = PromptFormatter(system="Rules: {notes}", user="{schema}\n{question}")
    assert [message["role"] for message in formatter.messages(RECORD.asked)] == ["system", "user"]
    assert [message["role"] for message in formatter.messages(BARE.asked)] == ["user"]


def test_judges_see_the_notes_with_the_question():
    appended = dataclasses.replace(BARE, question=f"{BARE.question} ({RULE})")
    rubric = PromptRubric("own", "{question} {candidate} <SCORE>")
    assert judge_question(RECORD, SQL) == judge_question(appended, SQL)
    assert rubric.question(RECORD, SQL) == rubric.question(appended, SQL)
