"""The inspection of servers works with any dialect of SQLAlchemy, and its answers become tables."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from sqlquarry.data.database.reader import Reader
from sqlquarry.data.database.sampling import sample_query, with_values
from sqlquarry.data.database.server_catalog import read_server
from sqlquarry.data.database.server_inspection import run_query
from sqlquarry.data.database.tables import Catalog, DatabaseColumn, DatabaseTable
from sqlquarry.execution.limits import DEFAULT_LIMITS, NO_PERMISSIONS
from sqlquarry.execution.sandbox import Failure, settings_of

SETTINGS = settings_of(DEFAULT_LIMITS, NO_PERMISSIONS)
# As MariaDB 10.11 answers through its inspection.
COLUMN = {"nullable": True, "comment": "", "generated": False, "values": []}
TABLE = {"schema": None, "rows": 50, "is_view": False, "comment": "", "primary_key": [], "foreign_keys": []}
KEY = {"schema": None, "table": "customer", "targets": ["id"]}
ENUM = {"name": "order", "type": "enum('a','b')", "comment": "kind", "values": ["a", "b"]}
MARIADB = {
    "tables": [
        TABLE
        | {"name": "customer", "rows": 30289, "comment": "people", "primary_key": ["id"]}
        | {"columns": [COLUMN | {"name": "id", "type": "int(10) unsigned"}, COLUMN | ENUM]},
        TABLE
        | {"name": "item", "schema": "sales", "primary_key": ["o", "hidden"]}
        | {"columns": [COLUMN | {"name": "o", "type": "int(10) unsigned", "generated": True}]}
        | {"foreign_keys": [KEY | {"columns": ["o"]}, KEY | {"columns": ["hidden"]}]},
    ],
    "unreadable": ["secret", "item (hidden)"],
}


class Recorded:
    """A reader that gives one recorded answer."""

    def __init__(self, answer: str | Failure) -> None:
        self.answer = answer

    def inspect(self, module: str, question: str) -> str | Failure:
        assert (module, question) == ("sqlquarry.data.database.server_inspection", "null")
        return self.answer


def read(answer: str | Failure) -> Catalog | Failure:
    return read_server(cast("Reader", Recorded(answer)), None)


def test_a_recorded_answer_becomes_tables() -> None:
    catalog = read(json.dumps(MARIADB))
    assert isinstance(catalog, Catalog)
    customer, item = catalog.tables["customer"], catalog.tables["sales.item"]
    assert customer.by_name["order"] == DatabaseColumn("order", "enum('a','b')", comment="kind", values=("a", "b"))
    assert (customer.primary_key, customer.comment, customer.rows) == (("id",), "people", 30289)
    assert [(key.columns, key.table, key.targets) for key in item.foreign_keys] == [(("o",), "customer", ("id",))]
    assert item.primary_key == ()  # one of its columns cannot be read
    assert item.by_name["o"].generated
    assert ["secret" in note or "item (hidden)" in note for note in catalog.notes] == [True, True]


def test_a_failure_is_passed_on() -> None:
    failure = Failure("unavailable", "the server is down")
    assert read(failure) is failure


@pytest.fixture
def url(tmp_path: Path) -> str:
    with closing(sqlite3.connect(tmp_path / "any.db")) as connection:
        connection.executescript(
            "CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a (id), n VARCHAR(5) NOT NULL, "
            "g INT AS (a + 1));"
            "CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b (id));"
            "CREATE VIEW v AS SELECT n FROM b;"
        )
    return f"sqlite:///{tmp_path / 'any.db'}"


def inspected(url: str, schemas: str = "null") -> dict[str, list[dict[str, object]]]:
    kind, _, rows = run_query(url, schemas, SETTINGS)
    assert kind == "rows", rows
    return dict(json.loads(str(rows[0][0])))


def test_any_dialect_is_inspected_in_the_order_of_names(url: str) -> None:
    catalog = read(json.dumps(inspected(url)))
    assert isinstance(catalog, Catalog)
    assert list(catalog.tables) == ["a", "b", "v"]
    b = catalog.tables["b"]
    assert [(column.name, column.type, column.nullable) for column in b.columns[:3]] == [
        ("id", "INTEGER", True),
        ("a", "INTEGER", True),
        ("n", "VARCHAR(5)", False),
    ]
    assert b.foreign_keys[0].table == "a"
    assert b.by_name["g"].generated
    assert catalog.tables["v"].is_view


def test_one_broken_view_does_not_hide_the_tables(url: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.executescript("CREATE VIEW broken AS SELECT absent FROM nowhere;")
    found = inspected(url)
    assert [table["name"] for table in found["tables"]] == ["a", "b", "v"]
    assert found["unreadable"] == ["broken"]


def test_an_unknown_schema_is_named(url: str) -> None:
    assert inspected(url, '["sales"]')["missing"] == ["sales"]


@pytest.mark.parametrize(
    "url", ["mysql+nodriver://a:hunter2@host/x", "nosuch://a:hunter2@host/x", "sqlite:////none/x.db"]
)
def test_drivers_that_fail_are_reported_without_secrets(url: str) -> None:
    kind, reason, message = run_query(url, "null", SETTINGS)
    assert (kind, reason) == ("failure", "unavailable")
    assert "hunter2" not in str(message)


@pytest.mark.parametrize(
    ("dialect", "rows", "words"),
    [
        ("postgres", 100_000_000, "TABLESAMPLE SYSTEM (0.015000) REPEATABLE (0)"),
        ("duckdb", 100_000_000, "rowid > 90000000 AND rowid <= 100000000 ORDER BY rowid LIMIT 1000"),
        ("sqlite", 100_000_000, "rowid > 90000000 AND rowid <= 100000000 ORDER BY rowid LIMIT 1000"),
        ("mysql", 100_000_000, "LIMIT 10000"),
        ("redshift", None, "LIMIT 10000"),
        ("postgres", 9_000, "FROM t LIMIT 10000"),
    ],
)
def test_large_tables_are_sampled(dialect: str, rows: int | None, words: str) -> None:
    table = DatabaseTable("t", (DatabaseColumn("a", "text"),), rows=rows)
    query = sample_query(table, ["a"], dialect)
    assert words in query
    assert ("TABLESAMPLE" in query) == ("TABLESAMPLE" in words)


def test_a_sample_without_rows_is_read_again_from_the_start() -> None:
    """After deletions the estimated number of rows is too high."""
    queries: list[str] = []

    class Emptied:
        def rows(self, sql: str) -> list[tuple[str]]:
            queries.append(sql)
            return [] if "TABLESAMPLE" in sql else [("x",), ("x",)]

    table = DatabaseTable("t", (DatabaseColumn("a", "text"),), rows=100_000_000)
    found = with_values(cast("Reader", Emptied()), Catalog({"t": table}), "postgres", personal=False)
    assert found.tables["t"].by_name["a"].values == ("x",)
    assert queries[1:] == ["SELECT a FROM t LIMIT 10000"]
