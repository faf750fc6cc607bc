"""Records: the values that they accept and store, and the part of them that a model sees."""

from __future__ import annotations

from typing import Any

import pytest

from sqlquarry import Generation, Record
from sqlquarry.errors import RecordError

SCHEMA = "CREATE TABLE t (a)"


@pytest.mark.parametrize("field", ["question", "schema", "sql"])
@pytest.mark.parametrize("value", ["", " \n", 3])
def test_texts_must_be_strings_that_are_not_blank(field: str, value: object) -> None:
    values: dict[str, Any] = {"question": "q", "schema": "s", "sql": "x", "id": "r1"}
    with pytest.raises(RecordError, match=rf"r1: {field} .*{value!r}".replace("\\", "\\\\")):
        Record(**values | {field: value})


@pytest.mark.parametrize("field", ["id", "database"])
def test_names_must_be_strings(field: str) -> None:
    names: dict[str, Any] = {field: 4711}
    with pytest.raises(RecordError, match="4711"):
        Record("q", SCHEMA, **names)


def test_sql_is_optional() -> None:
    assert Record("q", "s").sql is None


def test_alternatives_come_after_the_gold_query_and_a_model_never_sees_them() -> None:
    record = Record("q", SCHEMA, "SELECT 1", alternatives=["SELECT 2"])
    assert record.golds == ("SELECT 1", "SELECT 2")
    assert record.asked == Record("q", SCHEMA)
    assert Record("q", "s").golds == ()


def test_alternatives_from_json_are_stored_as_a_tuple() -> None:
    given = ["SELECT 2"]
    record = Record("q", SCHEMA, "SELECT 1", alternatives=given)
    given.append("SELECT 3")  # the caller's list stays the caller's
    assert record.alternatives == ("SELECT 2",)
    assert hash(record) == hash(Record("q", SCHEMA, "SELECT 1", alternatives=("SELECT 2",)))


@pytest.mark.parametrize(
    "options",
    [
        {"sql": "SELECT 1", "alternatives": "SELECT 2"},
        {"alternatives": ("SELECT 2",)},
        {"sql": "x", "alternatives": (" ",)},
    ],
    ids=str,
)
def test_alternatives_need_sql_and_must_be_a_list_of_queries(options: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="alternatives"):
        Record("q", "s", **options)


def test_a_generation_counts_as_stopped_unless_it_says_otherwise() -> None:
    assert Generation("SELECT 1").stop_reason == "stop"
