"""load_records(columns=, schema=, database=): what the caller states about the rows."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record, load_records
from sqlquarry.errors import ConfigError, DataError, RecordError

DDL = "CREATE TABLE ship (id INTEGER)"
ROW = {"Frage": "Wie viele?", "DDL ": f" {DDL}", "Query": "[SQL] SELECT 1 [/SQL]", "Nr": 7.0, "note": "x"}
NAMES = {"question": "Frage", "schema": "DDL ", "sql": "Query", "id": "Nr"}
EXPECTED = Record("Wie viele?", DDL, "SELECT 1", id="7")


@pytest.mark.parametrize(
    "columns",
    [
        NAMES,
        {field.upper(): column.upper() for field, column in NAMES.items()},
        {field: column.strip() for field, column in NAMES.items()},
    ],
)
def test_columns_are_mapped_in_any_case(columns: dict[str, str]):
    assert list(load_records([ROW], columns=columns)) == [EXPECTED]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_file_with_own_names_is_divided_at_the_right_delimiter(tmp_path: Path, delimiter: str):
    path = tmp_path / "a.csv"
    path.write_text(delimiter.join(["Frage", "DDL", "Query"]) + "\n" + delimiter.join(["Wie?", DDL, "SELECT 1"]) + "\n")
    with pytest.raises(RecordError, match=r"line 2.*\(Frage, DDL, Query\).*'schema': 'DDL'.*'sql': 'Query'"):
        load_records(path)
    (record,) = load_records(path, columns={"question": "frage", "schema": "ddl", "sql": "query"})
    assert record == Record("Wie?", DDL, "SELECT 1", id="a:2")


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"questoin": "Frage"}, "'questoin'.*'question'"),
        ({"question": 3}, r"'question'.*\b3\b"),
        ({"question": ""}, "'question'.*''"),
        ({"question": "Frage", "Question ": "Query"}, "'question'"),
        (["Frage"], "Frage"),
    ],
)
def test_columns_that_can_never_fit_are_refused_before_reading(columns, error: str):
    with pytest.raises(ConfigError, match=error):
        load_records("missing.jsonl", columns=columns)


def test_a_column_that_the_file_lacks_is_an_error_with_the_nearest_one(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROW))
    with pytest.raises(RecordError, match=r"line 1: .*'Frgae'.*'question'.*Frage, DDL , Query.*'Frage'\?"):
        load_records(path, columns=NAMES | {"question": "Frgae"})
    with pytest.raises(RecordError, match=r"row 1: .*'FRAGE'"):  # either of two could be meant
        load_records([{"Frage": "a", "frage": "b", "schema": DDL}], columns={"question": "FRAGE"})
    assert load_records([{"Frage": "a", "frage": "b", "schema": DDL}], columns={"question": "frage"})[0].question == "b"


def test_the_columns_that_an_error_names_settle_what_was_ambiguous():
    row = {"question": "q", "schema": "s", "context": "c", "sql": "x", "answer": "y"}
    with pytest.raises(RecordError, match=r"'schema' and 'context'.*columns=\{'schema': 'context'\}"):
        load_records([row])
    with pytest.raises(RecordError, match=r"'sql' and 'answer'.*columns=\{'sql': 'answer'\}"):
        load_records([row], columns={"schema": "context"})
    (record,) = load_records([row], columns={"schema": "context", "sql": "answer"})
    assert (record.schema, record.sql) == ("c", "y")


def test_one_stated_column_leaves_the_others_to_the_shape():
    (record,) = load_records(
        [{"Frage": "q", "context": "c", "answer": "[SQL] x [/SQL]"}], columns={"question": "Frage"}
    )
    assert (record.question, record.schema, record.sql) == ("q", "c", "x")
    (record,) = load_records([{"question": "q", "answer": DDL, "query": "SELECT 1"}], columns={"schema": "answer"})
    assert (record.schema, record.sql) == (DDL, "SELECT 1")
    row = {"question": "q", "schema": "s", "sql": "x", "rules": "h", "db": "d", "others": '["y"]'}
    columns = {"notes": "rules", "database": "db", "alternatives": "others"}
    assert list(load_records([row], columns=columns)) == [
        Record("q", "s", "x", "d", id="row:1", alternatives=["y"], notes="h")
    ]


@given(
    st.permutations(["a", "b", "c"]),
    st.dictionaries(st.sampled_from(["question", "context", "sql", "db_id"]), st.text()),
)
def test_stated_columns_are_read_whatever_else_a_row_has(names: list[str], more: dict[str, str]):
    question, schema, sql = names
    row = {question: "Q", schema: "S", sql: "X"} | more
    (record,) = load_records([row], columns={"question": question, "schema": schema, "sql": sql})
    assert (record.question, record.schema, record.sql) == ("Q", "S", "X")


def database(path: Path, *statements: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


QUESTION = {"question": "q", "query": "SELECT 1", "db_id": "ship"}


def schema_of(schema: object, row: dict[str, str] = QUESTION, **options) -> str:
    return load_records([row], schema=schema, **options)[0].schema


def test_schemas_of_every_kind(tmp_path: Path):
    (tmp_path / "ship.sql").write_text(f"\ufeff-- ships\n{DDL};\n", encoding="utf-8")
    folder = tmp_path / "databases"
    file = database(
        folder / "ship.SQLITE", DDL, "CREATE VIEW v AS SELECT 1", "CREATE TABLE d (x INTEGER PRIMARY KEY AUTOINCREMENT)"
    )
    both = f"{DDL};\nCREATE TABLE d (x INTEGER PRIMARY KEY AUTOINCREMENT);"

    assert schema_of(DDL) == DDL
    assert schema_of(str(tmp_path / "ship.sql")) == f"-- ships\n{DDL};"
    assert schema_of(file) == both
    assert schema_of({"ship": file, "other": DDL}) == both
    assert schema_of({"ship": DDL}) == DDL
    (tmp_path / "all.json").write_text(json.dumps({"ship": DDL, "port": "x"}))
    assert schema_of(tmp_path / "all.json") == DDL
    file.rename(folder / "ship.sqlite")
    assert schema_of(folder) == both
    assert schema_of(folder, QUESTION | {"db_id": "x"}, database="ship") == both
    assert schema_of(DDL, {"question": "q", "answer": "SELECT 1"}) == DDL
    assert sorted(path.name for path in folder.iterdir()) == ["ship.sqlite"]  # SQLite leaves no files


def test_a_stated_schema_and_database_replace_those_of_the_rows():
    rows = [QUESTION | {"schema": "CREATE TABLE old (a)", "context": "c"}]
    assert list(load_records(rows, schema=DDL, database="mine")) == [Record("q", DDL, "SELECT 1", "mine", id="row:1")]
    turns = [{"role": "user", "content": "CREATE TABLE old (a)\n\nq"}, {"role": "assistant", "content": "SELECT 1"}]
    assert schema_of(DDL, {"messages": turns}) == DDL


@pytest.mark.parametrize(
    ("schema", "row", "kind", "error"),
    [
        ("missing.sql", QUESTION, ConfigError, r"missing\.sql"),
        (7, QUESTION, ConfigError, r"\b7\b"),
        ("", QUESTION, ConfigError, "''"),
        ({"ship": 3}, QUESTION, ConfigError, r"schema\['ship'\].*\b3\b"),
        ({"ship": "a.sqlite"}, QUESTION, ConfigError, r"schema\['ship'\].*a\.sqlite"),
        ({"ships": DDL, "x": DDL}, QUESTION, RecordError, r"row 1: .*'ship'.*\b2\b.*'ships'\?"),
        ({"ship": DDL}, {"question": "q", "query": "x"}, RecordError, "row 1: .*schema.*database=.*columns="),
        (None, QUESTION, RecordError, "row 1: .*'ship'.*'schema'.*schema="),
    ],
)
def test_schemas_that_cannot_be_found(schema: object, row: dict[str, str], kind: type[Exception], error: str):
    with pytest.raises(kind, match=error):
        load_records([row], schema=schema)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.sqlite", b"not a database" * 99),
        ("a.sqlite", b""),
        ("a.sql", b" "),
        ("a.sql", b"\xff\xfe"),
        ("a.json", b"{"),
    ],
)
def test_files_without_a_schema(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}"):
        schema_of(tmp_path / name)
    (tmp_path / "a.txt").write_text(DDL)
    with pytest.raises(ConfigError, match=r"a\.txt.*\.sql"):
        schema_of(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "options", [{"database": " "}, {"database": 3}, {"split": ""}, {"limit": 1.5}, {"formatter": "x"}]
)
def test_other_bad_options(options: dict[str, object]):
    (name, value) = next(iter(options.items()))
    with pytest.raises(ConfigError, match=rf"{name} .*{value!r}"):
        load_records([QUESTION], **options)  # type: ignore[arg-type] - the mistake under test


def test_a_warning_names_the_columns_that_may_have_the_sql(caplog: pytest.LogCaptureFixture):
    rows = [{"question": "q", "schema": DDL, "gold": "SELECT 1"}, {"question": "q", "schema": DDL}]
    assert [record.sql for record in load_records(rows)] == [None, None]
    (warning,) = caplog.records
    assert "gold" in warning.getMessage()
    assert "columns={'sql'" in warning.getMessage()
    caplog.clear()
    load_records([*rows, {"question": "q", "schema": DDL, "sql": "SELECT 1"}])
    load_records(rows[1:])
    load_records(rows[:1], columns={"sql": "gold"})
    assert not caplog.records


def test_other_hints(tmp_path: Path):
    (tmp_path / "a.csv").write_text(f"How many?,{DDL},SELECT 1\nHow?,{DDL},SELECT 2\n")
    with pytest.raises(RecordError, match=r"line 2.*first line"):
        load_records(tmp_path / "a.csv")
    for missing, hint in (
        ("a.xlsx", "CSV UTF-8|exist"),
        ("owner/a.zip", "exist"),
        ("https://x.org/a.jsonl", "Download"),
    ):
        with pytest.raises(DataError, match=hint):
            load_records(missing)
    with pytest.raises(DataError, match="aws s3 cp --recursive s3://b/data/ "):
        load_records("s3://b/data/")
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "hub" / "data" / "train-0.parquet").touch()
    with pytest.raises(DataError, match=r"data/train-0\.parquet.*hub/data/\*\.parquet"):
        load_records(tmp_path / "hub")
