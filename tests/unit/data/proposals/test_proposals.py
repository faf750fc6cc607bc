"""Proposed records are worth learning: they run, differ, have one answer, and cover the database."""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

import sqlquarry as sq
from sqlquarry.data.database import Database
from sqlquarry.data.proposals import Proposals
from sqlquarry.errors import ConfigError, DatabaseError

_CITIES = ("Oslo", "Rome", "Paris", "Lima")
_BREEDS = ("beagle", "collie", "poodle")
_SCHEMA = """
CREATE TABLE owners (owner_id INTEGER PRIMARY KEY, full_name TEXT, city TEXT, joined_on DATE, email TEXT);
CREATE TABLE pets (pet_id INTEGER PRIMARY KEY, pet_name TEXT, breed TEXT, weight REAL, birth_year INTEGER,
    owner_id INTEGER REFERENCES owners(owner_id));
CREATE TABLE vets (vet_id INTEGER PRIMARY KEY, title TEXT);
CREATE TABLE treats (vet_id INTEGER REFERENCES vets(vet_id), pet_id INTEGER REFERENCES pets(pet_id),
    PRIMARY KEY (vet_id, pet_id));
CREATE TABLE unfilled (id INTEGER PRIMARY KEY, name TEXT);
"""


def _fill(path: Path, *, backwards: bool = False) -> Path:
    owners = [
        (i, f"Owner {chr(64 + i)}", _CITIES[i % 4], f"20{10 + i % 9}-0{1 + i % 8}-1{i % 9}", f"o{i}@example.org")
        for i in range(1, 25)
    ]
    pets = [
        (i, f"Pet{i * 7919 % 101}", _BREEDS[i % 3], 3.5 + i * 37 % 83, 2005 + i % 13, 1 + i * i % 20)
        for i in range(1, 61)
    ]
    vets = [(1, "Dr. Grey"), (2, "Dr. Black"), (3, "Dr. Green")]
    treats = [(1 + i % 2, i) for i in range(1, 31)]
    step = -1 if backwards else 1
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_SCHEMA)
        filled: dict[str, Sequence[tuple[object, ...]]] = {
            "owners": owners,
            "pets": pets,
            "vets": vets,
            "treats": treats,
        }
        for table, rows in filled.items():
            places = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows[::step])
        connection.commit()
    return path


@pytest.fixture(scope="module")
def shelter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(_fill(tmp_path_factory.mktemp("shelter") / "shelter.sqlite"))
    yield database
    database.close()


@pytest.fixture(scope="module")
def proposals(shelter: Database) -> Proposals:
    return sq.propose_records(shelter, 120)


def test_every_query_runs_and_returns_something(shelter: Database, proposals: Proposals) -> None:
    for record in proposals:
        assert record.sql is not None
        rows = shelter.run(record.sql).rows
        assert any(cell not in (None, 0, "") for row in rows for cell in row), record.sql


def test_records_are_about_the_database(shelter: Database, proposals: Proposals) -> None:
    assert {(record.database, record.dialect, record.schema) for record in proposals} == {
        ("shelter", "sqlite", shelter.schema_text())
    }
    assert len({record.id for record in proposals}) == len(proposals) == 120


def test_nothing_is_repeated(proposals: Proposals) -> None:
    assert len({record.sql for record in proposals}) == len(proposals)
    assert len({record.question.lower() for record in proposals}) == len(proposals)


def test_levels_are_balanced_and_the_database_is_covered(proposals: Proposals) -> None:
    report = proposals.report
    assert (report.asked, report.made) == (120, 120)
    assert all(25 <= count <= 35 for count in report.by_hardness.values()), report.by_hardness
    assert sum(report.by_hardness.values()) == sum(report.by_template.values()) == 120
    assert report.tables == 1
    assert report.columns >= 0.95, report.unused
    assert any("unfilled" in note for note in report.notes)
    assert len(report.by_template) > 25


def test_limits_leave_one_answer(shelter: Database, proposals: Proposals) -> None:
    limited = [record.sql for record in proposals if record.sql and re.search(r" LIMIT \d+$", record.sql)]
    assert limited
    for sql in limited:
        size = int(sql.rsplit(" ", 1)[1])
        key = re.search(r" ORDER BY (.+?)(?: DESC)? LIMIT", sql)
        assert key is not None
        query = re.sub(r"SELECT .+? FROM", f"SELECT {key[1]} FROM", sql, count=1)
        keys = shelter.run(query.replace(f"LIMIT {size}", f"LIMIT {size + 1}")).rows
        assert len({*keys}) == len(keys), sql


def test_questions_contain_no_personal_values(proposals: Proposals) -> None:
    assert not [record.question for record in proposals if "@example.org" in record.question]
    assert not [record.sql for record in proposals if record.sql and "Owner " in record.sql]
    assert any("email" in (record.sql or "") for record in proposals)


def test_questions_mention_the_values_of_their_queries(proposals: Proposals) -> None:
    for record in proposals:
        for value in re.findall(r"= '([^']+)'", record.sql or ""):
            assert value in record.question


def test_same_content_and_seed_give_the_same_records(tmp_path: Path, proposals: Proposals) -> None:
    with closing(Database(_fill(tmp_path / "shelter.sqlite", backwards=True))) as database:
        assert sq.propose_records(database, 120) == proposals
        assert sq.propose_records(database, 120, seed=7) != proposals


def test_fewer_records_than_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "small.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t (name TEXT); INSERT INTO t VALUES ('Ann'), ('Bo');")
    with closing(Database(path)) as database:
        found = sq.propose_records(database, 1000)
    assert 0 < len(found) < 50
    assert found.report.asked == 1000
    assert "1000" in caplog.text


@pytest.mark.parametrize("script", ["", "CREATE TABLE t (a INTEGER);"])
def test_empty_database(tmp_path: Path, script: str) -> None:
    path = tmp_path / "empty.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script or "CREATE TABLE t (a); DROP TABLE t;")
    with pytest.raises(DatabaseError, match="empty"):
        sq.propose_records(Database(path), 10)


def test_names_in_any_script(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    rows = ", ".join(f"({i}, '品{i}', '色{i % 3}', {i * 37 % 101})" for i in range(1, 31))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            'CREATE TABLE "商品" (id INTEGER PRIMARY KEY, "名前" TEXT, "色 x" TEXT, "order" INTEGER);'
            f'INSERT INTO "商品" VALUES {rows};'
        )
    with closing(Database(path)) as database:
        found = sq.propose_records(database, 30)
    assert len(found) == 30
    assert found.report.columns == 1


@pytest.mark.parametrize("options", [{"n": 0}, {"n": True}, {"n": 5, "time_s": 0}, {"n": 5, "model_share": 2.0}])
def test_invalid_options(shelter: Database, options: dict[str, object]) -> None:
    name = [*options][-1]
    with pytest.raises(ConfigError, match=name):
        sq.propose_records(shelter, **options)  # type: ignore[arg-type] # invalid on purpose


def test_rephrasing_needs_a_model(shelter: Database) -> None:
    with pytest.raises(ConfigError, match="generator"):
        sq.propose_records(shelter, 5, rephrase=True)


def test_tables_are_joined_along_keys_that_are_not_declared(tmp_path: Path) -> None:
    path = tmp_path / "school.sqlite"
    teachers = ", ".join(f"({i}, 'T{chr(64 + i)}x', 'subject {i % 3}')" for i in range(1, 13))
    courses = ", ".join(f"({i}, 'Course{i}', {i * 37 % 53}, {1 + i % 7})" for i in range(1, 41))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE teachers (id INTEGER PRIMARY KEY, title TEXT, subject TEXT);"
            "CREATE TABLE courses (id INTEGER PRIMARY KEY, title TEXT, hours INTEGER, teacher_id INTEGER);"
            f"INSERT INTO teachers VALUES {teachers}; INSERT INTO courses VALUES {courses};"
        )
    with closing(Database(path)) as database:
        found = sq.propose_records(database, 60)
    joined = [record.sql for record in found if record.sql and " JOIN " in record.sql]
    assert joined
    assert all("courses.teacher_id = teachers.id" in sql for sql in joined)


def test_duckdb(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "farm.duckdb"
    rows = ", ".join(f"({i}, 'Cow{i}', '{_BREEDS[i % 3]}', DATE '2020-01-01' + {i * 31 % 900})" for i in range(1, 41))
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            'CREATE TABLE cows (id INTEGER PRIMARY KEY, name VARCHAR, "group" VARCHAR, born DATE);'
            f"INSERT INTO cows VALUES {rows}"
        )
    with closing(Database(path)) as database:
        found = sq.propose_records(database, 40)
        assert len(found) == 40
        assert found.report.columns == 1
        assert {record.dialect for record in found} == {"duckdb"}
        assert any("EXTRACT(YEAR" in (record.sql or "") or "BETWEEN '20" in (record.sql or "") for record in found)
