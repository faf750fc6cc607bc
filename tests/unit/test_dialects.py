"""Names of dialects: sqlglot's, and what people call them."""

from __future__ import annotations

from contextlib import suppress

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record
from sqlquarry.dialects import _OTHERS, DIALECTS, dialect_name
from sqlquarry.errors import ConfigError, RecordError


def test_the_table_is_that_of_sqlglot():
    own = {name for name, kind in sqlglot.Dialect.classes.items() if kind.__module__.startswith("sqlglot.")}
    assert own - {""} == DIALECTS
    assert set(_OTHERS.values()) <= DIALECTS
    assert not DIALECTS & set(_OTHERS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("postgresql", "postgres"),
        ("PostgreSQL", "postgres"),
        ("pg", "postgres"),
        ("mssql", "tsql"),
        ("SQL Server", "tsql"),
        ("T-SQL", "tsql"),
        ("Spark SQL", "spark"),
        ("SQLite3", "sqlite"),
        ("PL/SQL", "oracle"),
        ("MariaDB", "mysql"),
        ("Google BigQuery", "bigquery"),
        (" DuckDB ", "duckdb"),
    ],
)
def test_usual_names(name, expected):
    assert dialect_name(name) == expected
    assert Record("q", "s", dialect=name) == Record("q", "s", dialect=expected)


@pytest.mark.parametrize(
    ("name", "meant"), [("klingon", None), ("postgress", "postgres"), ("mysq", "mysql"), ("", None)]
)
def test_unknown_names(name, meant):
    with pytest.raises(RecordError, match="snowflake") as caught:
        Record("q", "s", dialect=name, id="seven")
    assert "seven" in str(caught.value)
    assert ("Did you mean" in str(caught.value)) is bool(meant)
    assert meant is None or repr(meant) in str(caught.value)


@pytest.mark.parametrize("name", [None, 3, ["sqlite"]])
def test_what_is_no_text_is_no_dialect(name):
    with pytest.raises(RecordError):
        Record("q", "s", dialect=name)


@given(st.text())
def test_any_text_is_a_name_or_refused(name):
    with suppress(ConfigError):
        assert dialect_name(name) in DIALECTS
