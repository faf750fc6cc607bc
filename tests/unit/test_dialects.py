"""Dialect names: sqlglot's names and the other common names for them."""

from __future__ import annotations

from contextlib import suppress

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record
from sqlquarry.dialects import ALIASES, DIALECTS, dialect_name
from sqlquarry.errors import ConfigError, RecordError


def test_the_names_are_those_of_the_installed_sqlglot():
    own = {name for name, kind in sqlglot.Dialect.classes.items() if kind.__module__.startswith("sqlglot.")}
    assert own - {""} == DIALECTS
    assert set(ALIASES.values()) <= DIALECTS
    assert not DIALECTS & set(ALIASES)


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
        ("MS SQL Server", "tsql"),
        ("SQL Server 2019", "tsql"),
        ("Oracle PL/SQL", "oracle"),
        ("Oracle 19c", "oracle"),
        ("MySQL 8.0", "mysql"),
        ("PostgreSQL v15.3", "postgres"),
        ("Snowflake SQL", "snowflake"),
        ("BigQuery Standard SQL", "bigquery"),
        ("Presto", "presto"),
        ("PrestoSQL", "trino"),
        ("Spark 2", "spark2"),
        ("Spark 3.5", "spark"),
    ],
)
def test_usual_names(name, expected):
    assert dialect_name(name) == expected
    assert Record("q", "s", dialect=name) == Record("q", "s", dialect=expected)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("klingon", None),
        ("postgress", "postgres"),
        ("mysq", "mysql"),
        ("", None),
        ("IBM DB2", None),
        ("SAP HANA", None),
    ],
)
def test_unknown_names(name, meant):
    with pytest.raises(RecordError, match="snowflake") as caught:
        Record("q", "s", dialect=name, id="seven")
    assert "seven" in str(caught.value)
    suggested = [known for known in DIALECTS if f"{known!r}?" in str(caught.value)]
    assert suggested == ([meant] if meant else [])


@pytest.mark.parametrize("name", [None, 3, ["sqlite"]])
def test_only_strings_are_dialect_names(name):
    with pytest.raises(RecordError):
        Record("q", "s", dialect=name)


@given(st.text())
def test_any_text_is_a_known_name_or_refused(name):
    with suppress(ConfigError):
        assert dialect_name(name) in DIALECTS
