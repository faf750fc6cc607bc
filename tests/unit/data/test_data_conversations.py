"""load_records finds schema, question and SQL again in conversations, or refuses the row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sqlquarry import PromptFormatter, Record, Records, load_records
from sqlquarry.errors import RecordError

DDL = "CREATE TABLE ship (id INT, name VARCHAR(20) DEFAULT 'a;b)')"
MORE = (
    "CREATE TEMP TABLE IF NOT EXISTS [port] (\n  id INT, -- the dock's (number\n  PRIMARY KEY (id)\n) ENGINE=X;\n\n"
    "INSERT INTO port VALUES (1), (2);\nALTER TABLE port ADD y INT;"
)
QUESTION, SQL = "How many ships' names are there?", "SELECT COUNT(*) FROM ship"


def messages(user: str, *, system: str | None = None, answer: str | None = SQL) -> dict[str, object]:
    turns = [("system", system), ("user", user), ("assistant", answer)]
    return {"messages": [{"role": role, "content": content} for role, content in turns if content is not None]}


def loaded(*rows: object, **options) -> list[tuple[str, str, str | None]]:
    return [(record.question, record.schema, record.sql) for record in load_records(rows, **options)]


@pytest.mark.parametrize("schema", [DDL, f"{DDL};", f"{DDL}\n{DDL};", MORE, f"{DDL}; {MORE}"])
@pytest.mark.parametrize(
    ("system", "user"),
    [
        (None, "{schema}\n\n{question}"),
        (None, "{question}\n{schema}"),
        (None, "{schema}\n{question}"),
        (None, "{question} Context: {schema}"),
        (None, "Question: {question}\nHere is the schema of the database:\n{schema}"),
        (None, "Tables:\n```sql\n{schema}\n```\n\nQuestion: {question}\nSQL:"),
        (
            None,
            "Use the tables. Be brief.\n\n### Schema:\n{schema}\n\n### Question:\n{question}\n\n### Response:\n",
        ),
        (None, "<schema>\n{schema}\n</schema>\n<question>{question}</question>"),
        ("You write SQL. Be brief.", "**Question:** {question}\n\n**Context**\n{schema}"),
        ("{schema}", "{question}"),
        ("Schema:\n{schema}", "Return the SQL query that answers the following question: {question}"),
        (None, "Tables:\n{schema}\n\nWrite one query that answers this question: {question}"),
        (
            "You write SQL for these tables.\n\n{schema}\n\nAnswer with SQL only.",
            "### Input:\n{question}\n\n### Response:",
        ),
    ],
)
def test_schema_and_question_are_separated(system: str | None, user: str, schema: str):
    texts = {"schema": schema, "question": QUESTION}
    row = messages(user.format(**texts), system=system and system.format(**texts))

    assert loaded(row) == [(QUESTION, schema, SQL)]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (messages(QUESTION), "CREATE TABLE.*schema="),
        (messages(QUESTION, system="Table ship has columns id and name."), "CREATE TABLE.*schema="),
        (messages(f"Be brief.\n{DDL}\nHow many?"), r"Be brief\..*formatter=PromptFormatter"),
        (messages(f"{DDL}\n\nFirst this.\n\nThen that."), "formatter=PromptFormatter"),
        (messages(f"{DDL}\nand\n{DDL}\n{QUESTION}"), "formatter=PromptFormatter"),
        (messages(f"{DDL}\n{QUESTION}", system=DDL), "formatter=PromptFormatter"),
        (messages(f"Schema: {DDL}"), "formatter=PromptFormatter"),
        (messages("", system=DDL), "formatter=PromptFormatter"),
        ({"instruction": "Write SQL.", "input": f"{DDL}\n{QUESTION}", "output": SQL}, "formatter=PromptFormatter"),
        ({"instruction": "", "input": DDL, "output": SQL}, "formatter=PromptFormatter"),
        ({"instruction": QUESTION, "input": "the fleet", "output": SQL}, "the fleet.*CREATE TABLE"),
        ({"instruction": f"{QUESTION} {DDL}", "input": "", "output": "Ten."}, "'Ten.'"),
        ({"instruction": f"{QUESTION} {DDL}", "input": "", "output": " "}, "'output'"),
        ({"instruction": QUESTION, "input": DDL, "output": SQL, "history": [["a", "b"]]}, "'history'"),
        (messages(f"{DDL}\n{QUESTION}", answer="Here you are: SELECT 1"), "'Here you are: SELECT 1'"),
        (messages(f"{DDL}\n{QUESTION}", answer="```sql\nSELECT 1\n``` or ```sql\nSELECT 2\n```"), "SELECT 1"),
        ({"messages": []}, "none"),
        ({"messages": "hello"}, "'hello' .str."),
        ({"messages": "[1"}, r"'\[1'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "'tool'"),
        ({"messages": ["x"]}, "None"),
        ({"messages": [{"role": "user", "content": 3}]}, r"\b3 \(int\)"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "image"),
        ({"messages": messages("a")["messages"] * 2}, "user, assistant, user, assistant"),
        ({"messages": messages("a", system="s")["messages"], "system": "t"}, "two system"),
        ({"conversations": [{"from": "gpt", "value": SQL}]}, "assistant"),
    ],
)
def test_other_conversations_are_refused(row: dict[str, object], error: str):
    with pytest.raises(RecordError, match=rf"(?s)row 2: .*{error}"):
        loaded(messages(f"{DDL}\n{QUESTION}"), row)


def test_a_conversation_without_an_answer_is_a_record_without_sql():
    assert loaded(messages(f"{DDL}\n{QUESTION}", answer=None)) == [(QUESTION, DDL, None)]


def test_a_formatter_describes_any_wording():
    formatter = PromptFormatter(system="Schema {schema} in {dialect}.", user="Frage: {question} ({dialect})")
    row = messages("Frage: Wie viele?  (PostgreSQL)", system="Schema ship(id) in PostgreSQL.")

    assert loaded(row, formatter=formatter, dialect="pg") == [("Wie viele?", "ship(id)", SQL)]
    with pytest.raises(RecordError, match=r"Frage: Wie viele.*formatter"):
        loaded(row, formatter=formatter)  # {dialect} is SQLite
    twice = PromptFormatter(system="", user="{schema} # {question}")
    assert loaded(messages("a # b"), formatter=twice) == [("b", "a", SQL)]
    with pytest.raises(RecordError, match="a # b # c"):
        loaded(messages("a # b # c"), formatter=twice)
    repeated = PromptFormatter(system="", user="{question} / {schema} / {question}")
    assert loaded(messages("b / a / b"), formatter=repeated) == [("b", "a", SQL)]
    with pytest.raises(RecordError, match="b / a / c"):
        loaded(messages("b / a / c"), formatter=repeated)
    alpaca = PromptFormatter(system="Write SQL.", user="{question}\n{schema}")
    for schema in (DDL, MORE, "ship (id)"):
        row = {"instruction": "Write SQL.", "input": f"{QUESTION}\n{schema}", "output": SQL}
        assert loaded(row, formatter=alpaca) == [(QUESTION, schema, SQL)]
    for schema in (f"{DDL}\n-- the end", "ship (id)\nport (id)"):
        with pytest.raises(RecordError, match=r"Write SQL|How many"):
            loaded(
                row | {"input": f"{schema}\n{QUESTION}"},
                formatter=PromptFormatter(system="Write SQL.", user="{schema}\n{question}"),
            )


text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Co"))).map(str.strip).filter(bool)
FORMATTERS = [
    PromptFormatter.published(),
    None,
    PromptFormatter(system="", user="{schema}\n-- {question}"),
    PromptFormatter(user="{question} {dialect}"),
]


@given(
    st.builds(
        Record,
        text,
        text,
        st.sampled_from([None, "SELECT 1"]),
        st.none() | text,
        st.sampled_from(["sqlite", "postgres"]),
        st.none() | text,
    ),
    st.sampled_from(FORMATTERS),
)
def test_to_messages_and_load_records_give_equal_records(tmp_path_factory, record: Record, formatter):
    path = tmp_path_factory.getbasetemp() / "messages.jsonl"
    assume("--" not in record.schema + record.question)
    records = Records([record])

    records.to_messages(path, formatter=formatter)

    assert load_records(path, formatter=formatter) == records


def test_the_messages_are_those_of_the_formatter(tmp_path: Path):
    record = Record(QUESTION, DDL, SQL, "port", "duckdb", "7", ["SELECT 2"])
    Records([record, Record("q", "s")]).to_messages(tmp_path / "a.jsonl")

    first, second = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert first == {
        "messages": PromptFormatter().messages(record),
        "alternatives": ["SELECT 2"],
        "database": "port",
        "dialect": "duckdb",
        "id": "7",
    }
    assert second == {"messages": PromptFormatter().messages(Record("q", "s")), "id": None}
    assert load_records(tmp_path / "a.jsonl")[0] == record


@given(st.text(st.sampled_from("CREATE TABLE t(a);'\"`-\n?:# Schema ")), st.sampled_from(["", DDL]))
def test_no_text_is_lost_or_read_twice(noise: str, ddl: str):
    """Whatever stands around the schema, the record has the whole schema, or there is an error."""
    try:
        ((question, schema, _),) = loaded(messages(f"{ddl}\n\n{noise}\n\nQuestion: {QUESTION}"))
    except RecordError:
        return
    assert question == QUESTION
    assert schema.startswith("CREATE")


@pytest.mark.parametrize(
    "piece", ["CREATE TABLE t (a) ", "'", "(", "--", "# ", "Schema:\n", "Question: ", "<a>", "```", "\n"]
)
def test_the_time_grows_with_the_text(piece: str):
    with pytest.raises(RecordError):
        loaded(messages(f"{piece * (50_000 // len(piece))}\n\n\nx\n\ny{DDL}\nx\n\ny"))
