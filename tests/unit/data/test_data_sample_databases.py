"""The sample databases: valid, repeatable, and every gold query gives an answer that its conditions shape."""

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sqlquarry.data.sample import sample_databases, sample_records
from sqlquarry.data.sample.domains import DOMAINS
from sqlquarry.data.sample.generate import has_one_order
from sqlquarry.data.sample.lexicon import Domain
from sqlquarry.data.sample.rows import columns_of
from sqlquarry.errors import DataError

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


def test_one_file_for_each_domain(folder: Path) -> None:
    paths = sample_databases(folder)
    assert set(paths) == {record.database for record in sample_records()}
    assert sorted(paths.values()) == sorted(folder.iterdir())


@by_domain
def test_integrity(database: sqlite3.Connection, domain: Domain) -> None:
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert "\n".join(sql + ";" for (sql,) in database.execute("SELECT sql FROM sqlite_master")) == domain.schema


@by_domain
def test_rows_are_as_many_as_said_and_some_values_are_missing(database: sqlite3.Connection, domain: Domain) -> None:
    gaps = 0
    for table in domain.tables:
        rows = database.execute(f"SELECT * FROM {table.name}").fetchall()
        assert 20 <= len(rows) == table.rows <= 60
        gaps += sum(value is None for row in rows for value in row)
    assert gaps >= 5


@by_domain
def test_labels_are_unique_so_that_groups_by_label_are_rows(domain: Domain) -> None:
    for table in domain.tables:
        labels = columns_of(domain)[table.name][table.label.name]
        assert len(set(labels)) == len(labels)


@by_domain
def test_every_gold_query_returns_a_value(database: sqlite3.Connection, domain: Domain) -> None:
    for sql in queries(domain):
        rows = database.execute(sql).fetchall()
        assert any(value is not None for row in rows for value in row), sql


@by_domain
def test_no_ties_decide_an_order(database: sqlite3.Connection, domain: Domain) -> None:
    assert [sql for sql in queries(domain) if not has_one_order(database, sql)] == []


@by_domain
def test_the_condition_of_a_plain_query_matters(database: sqlite3.Connection, domain: Domain) -> None:
    plain = [sql for sql in queries(domain) if sql.count("SELECT") == 1 and " WHERE " in sql]
    assert len(plain) >= 15
    for sql in plain:
        without = re.sub(r" WHERE .+?(?= GROUP BY | ORDER BY |$)", "", sql)
        assert sorted(database.execute(sql), key=repr) != sorted(database.execute(without), key=repr), sql


def test_has_one_order_sees_ties() -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 5), (2, 5), (3, 7);")
        assert has_one_order(database, "SELECT a FROM t")
        assert has_one_order(database, "SELECT a FROM t ORDER BY b DESC LIMIT 1")
        assert not has_one_order(database, "SELECT a FROM t ORDER BY b LIMIT 1")
        assert not has_one_order(database, "SELECT a FROM t ORDER BY b DESC LIMIT 2")
        assert not has_one_order(database, "SELECT a FROM t ORDER BY b")


def test_a_second_call_leaves_files_alone_and_completes_what_is_missing(tmp_path: Path) -> None:
    first = sample_databases(tmp_path)
    kept, lost = first["gym"], first["bakery"]
    before = kept.stat().st_mtime_ns, hashlib.sha256(lost.read_bytes()).hexdigest()
    lost.unlink()
    (tmp_path / "own.txt").write_text("mine")
    assert sample_databases(str(tmp_path)) == first
    assert (kept.stat().st_mtime_ns, hashlib.sha256(lost.read_bytes()).hexdigest()) == before
    assert (tmp_path / "own.txt").read_text() == "mine"


@pytest.mark.parametrize("stale", ["other rows", "no database"])
def test_a_file_of_other_content_is_refused(tmp_path: Path, stale: str) -> None:
    path = sample_databases(tmp_path)["gym"]
    if stale == "other rows":
        with closing(sqlite3.connect(path)) as database:
            database.execute("DELETE FROM members WHERE member_id = 1")
            database.commit()
    else:
        path.write_text("not a database")
    with pytest.raises(DataError, match=r"gym\.sqlite is not the sample database of this version: delete it"):
        sample_databases(tmp_path)
