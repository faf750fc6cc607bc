"""RowReader reads the right columns or refuses the row, with column names as people and programs write them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record
from sqlquarry.data.row_reader import RowReader
from sqlquarry.errors import RecordError


@pytest.mark.parametrize(
    ("row", "pairs"),
    [
        ({"question": "q", "schema": "s", "context": "c", "sql": "x", "answer": "x"}, ["schema", "context"]),
        ({"question": "q", "schema": "s", "context": "s", "sql": "x", "answer": "y"}, ["sql", "answer"]),
        ({"question": "q", "schema": "s", "context": "s", "sql": None, "answer": "y"}, ["sql", "answer"]),
        ({"question": "q", "schema": "s", "sql": "x", "query": "y", "db_id": "d"}, ["sql", "query"]),
        (
            {"question": "q", "schema": "s", "query": "x", "db_id": "d", "context": "c", "answer": "x"},
            ["schema", "context"],
        ),
        ({"question": "q", "tables": "s", "schema": "t", "query": "x", "db_id": "d"}, ["schema", "tables"]),
        ({"question": "q", "context": "c", "answer": "42", "sql": "SELECT 42"}, ["answer", "sql"]),
        ({"question": "q", "context": "c", "answer": "42", "query": "SELECT 42"}, ["answer", "query"]),
        ({"question": "q", "context": "c", "answer": "x", "schema": "s"}, ["context", "schema"]),
        ({"question": "q", "schema": "s", "SQL": "x", "sql": "y", "db_id": "d"}, ["SQL", "sql"]),
        ({"question": "q", "schema": "s", "SQL": "x", "db_id": "d", "database": "e"}, ["db_id", "database"]),
        ({"Question": "q", "question": "r", "schema": "s"}, ["Question", "question"]),
    ],
)
def test_columns_that_disagree_are_refused(row, pairs):
    for order in itertools.islice(itertools.permutations(row), 0, 120, 17):
        with pytest.raises(RecordError) as caught:
            RowReader().record({name: row[name] for name in order}, "i")
        assert all(repr(name) in str(caught.value) for name in pairs)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"question": "q", "schema": "s", "context": " s", "sql": "x", "answer": "[SQL] x [/SQL]"},
            Record("q", "s", "x", id="i"),
        ),
        ({"question": "q", "schema": "s", "sql": "x", "answer": "42"}, Record("q", "s", "x", id="i")),
        ({"question": "q", "schema": "s", "sql": "x", "context": "a shop"}, Record("q", "s", "x", id="i")),
        ({"question": "q", "schema": "s", "sql": "x", "db_id": "d"}, Record("q", "s", "x", "d", id="i")),
        ({"question": "q", "schema": "s", "sql": None, "db_id": "d"}, Record("q", "s", None, "d", id="i")),
        (
            {"question": "q", "query": "x", "db_id": "d", "sql": {"from": []}, "schema": "s", "tables": ["a"]},
            Record("q", "s", "x", "d", id="i"),
        ),
        ({"question": "q", "context": "c", "answer": "x", "query": "x"}, Record("q", "c", "x", id="i")),
        (
            {"question": "q", "context": "c", "answer": "x", "query": "x", "db_id": "d"},
            Record("q", "c", "x", "d", id="i"),
        ),
        ({"QUESTION": "q", " context": "c", "Answer ": "x"}, Record("q", "c", "x", id="i")),
        (
            {"Question": "q", "Schema": "s", "Sql": "x", "Dialect": "PostgreSQL"},
            Record("q", "s", "x", None, "postgres", "i"),
        ),
        ({"question": "q", "schema": "s", "id": 1.0}, Record("q", "s", id="1")),
        ({"question": "q", "schema": "s", "sql": "x", "evidence": "e"}, Record("q", "s", "x", id="i", notes="e")),
        ({"question": "q", "schema": "s", "query": "x"}, Record("q", "s", "x", id="i")),
        (
            {"question": "q", "schema": "s", "sql": float("nan"), "database": float("nan"), "id": float("nan")},
            Record("q", "s"),
        ),
    ],
)
def test_columns_that_agree_are_read(row, expected):
    for order in itertools.islice(itertools.permutations(row), 0, 120, 17):
        assert RowReader().record({name: row[name] for name in order}, "i") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, ()), ("", ()), (float("nan"), ()), (["x", "y"], ("x", "y")), (("x",), ("x",)), ('["x", "y"]', ("x", "y"))],
)
def test_alternatives_are_a_list_or_a_json_list(value, expected):
    row = {"question": "q", "schema": "s", "sql": "z", "alternatives": value}
    assert RowReader().record(row, "i").alternatives == expected


@pytest.mark.parametrize("value", ["x", '["x"', '["x", 1]', 3, {"x": 1}, [""], [None]])
def test_other_alternatives_are_refused(value):
    with pytest.raises(RecordError, match="'alternatives'"):
        RowReader().record({"question": "q", "schema": "s", "sql": "z", "alternatives": value}, "i")


def test_the_default_dialect_is_used_for_rows_without_one():
    row = {"question": "q", "schema": "s", "dialect": None}
    assert RowReader(dialect="postgres").record(row, "i").dialect == "postgres"
    assert RowReader(dialect="postgres").record(row | {"dialect": "MySQL"}, "i").dialect == "mysql"


names = st.sampled_from(
    [
        "question",
        "schema",
        "sql",
        "SQL",
        "query",
        "context",
        "answer",
        "db_id",
        "database",
        "tables",
        "evidence",
        " id",
        "x",
    ]
)


@given(st.dictionaries(names, st.sampled_from(["a", "b", "", None, 3, 1.5, float("nan"), {"from": 1}])))
def test_no_row_with_two_different_texts_for_one_field_is_read(row):
    try:
        record = RowReader().record(row, "i")
    except RecordError:
        return
    # If the row also has another complete shape, its columns contain the same texts as the record.
    for schema, sql, needs in (("schema", "sql", ()), ("context", "answer", ()), ("schema", "query", ("db_id",))):
        if all(isinstance(row.get(name), str) and row[name] for name in (schema, sql)) and all(n in row for n in needs):
            assert (record.schema, record.sql or row[sql]) == (row[schema], row[sql])


@pytest.mark.parametrize(
    "telling",
    [{"SQL": "SELECT 1"}, {"sql": "SELECT 1", "evidence": "e"}, {"sql": "SELECT 1", "question_id": 7}],
    ids=["SQL", "evidence", "question_id"],
)
def test_one_column_of_bird_is_enough_to_read_the_row_as_bird(telling):
    row = {"question": "q", "schema": "s", "tables": "s", "db_id": "d", "id": "x"} | telling
    assert RowReader().record(row, "i").id == str(telling.get("question_id", "x"))
    assert RowReader().record(row, "i").notes == ("e" if "evidence" in telling else "")
    if "question_id" not in telling:
        assert RowReader().record(row | {"question_id": 7}, "i").id == "7"
