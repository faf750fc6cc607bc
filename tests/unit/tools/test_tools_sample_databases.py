"""The generated sample databases are valid, and every condition of a gold query changes its answer."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sqlquarry.data.sample import sample_databases, sample_records
from tools.sample_data.domains import DOMAINS
from tools.sample_data.generate import has_one_order
from tools.sample_data.lexicon import Domain
from tools.sample_data.rows import columns_of

by_domain = pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "new"
    sample_databases(folder)
    return folder


@pytest.fixture
def database(folder: Path, domain: Domain) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{folder / domain.name}.sqlite?mode=ro", uri=True)) as connection:
        yield connection


def queries(domain: Domain) -> set[str]:
    return {record.sql or "" for record in sample_records() if record.database == domain.name}


@by_domain
def test_the_schema_is_intact_and_all_references_exist(database: sqlite3.Connection, domain: Domain) -> None:
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert "\n".join(sql + ";" for (sql,) in database.execute("SELECT sql FROM sqlite_master")) == domain.schema


@by_domain
def test_tables_have_the_planned_number_of_rows_and_some_missing_values(
    database: sqlite3.Connection, domain: Domain
) -> None:
    gaps = 0
    for table in domain.tables:
        rows = database.execute(f"SELECT * FROM {table.name}").fetchall()
        assert 20 <= len(rows) == table.rows <= 60
        gaps += sum(value is None for row in rows for value in row)
    assert gaps >= 5


@by_domain
def test_labels_are_unique_so_that_a_label_identifies_a_row(domain: Domain) -> None:
    for table in domain.tables:
        labels = columns_of(domain)[table.name][table.label.name]
        assert len(set(labels)) == len(labels)


@by_domain
def test_every_gold_query_returns_a_value(database: sqlite3.Connection, domain: Domain) -> None:
    for sql in queries(domain):
        rows = database.execute(sql).fetchall()
        assert any(value is not None for row in rows for value in row), sql


@by_domain
def test_the_order_of_rows_never_depends_on_ties(database: sqlite3.Connection, domain: Domain) -> None:
    assert [sql for sql in queries(domain) if not has_one_order(database, sql)] == []


@by_domain
def test_the_condition_of_a_plain_query_changes_the_result(database: sqlite3.Connection, domain: Domain) -> None:
    plain = [sql for sql in queries(domain) if sql.count("SELECT") == 1 and " WHERE " in sql]
    assert len(plain) >= 15
    for sql in plain:
        without = re.sub(r" WHERE .+?(?= GROUP BY | ORDER BY |$)", "", sql)
        assert sorted(database.execute(sql), key=repr) != sorted(database.execute(without), key=repr), sql


def test_has_one_order_detects_ties() -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 5), (2, 5), (3, 7);")
        assert has_one_order(database, "SELECT a FROM t")
        assert has_one_order(database, "SELECT a FROM t ORDER BY b DESC LIMIT 1")
        assert not has_one_order(database, "SELECT a FROM t ORDER BY b LIMIT 1")
        assert not has_one_order(database, "SELECT a FROM t ORDER BY b DESC LIMIT 2")
        assert not has_one_order(database, "SELECT a FROM t ORDER BY b")
