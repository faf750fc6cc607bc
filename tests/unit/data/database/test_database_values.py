"""The values that a question mentions are found in their stored form, and few others."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import sqlquarry as sq
from sqlquarry.data.database.value_index import ValueIndex

CITIES = ["New York City", "Paris", "Saint-Étienne", "IN", "M", "Los Angeles", "東京", "yes", "Paris Saint-Germain"]
PARTS = ["Factory Comparator", "Steel Bolt", "Main Street North", "Main Street South", "Pumps"]


@pytest.fixture
def index() -> ValueIndex:
    return ValueIndex([("city", "name", city) for city in CITIES] + [("part", "kind", part) for part in PARTS])


@pytest.mark.parametrize(
    ("question", "values"),
    [
        ("Who lives in new york city?", ["New York City"]),
        ("Who lives in new york?", ["New York City"]),
        ("Who lives in PARIS?", ["Paris"]),
        ("How many fans has paris saint germain?", ["Paris Saint-Germain"]),
        ("Shops in saint etienne's center", ["Saint-Étienne"]),
        ("How many steel bolts are there?", ["Steel Bolt"]),
        ("Price of each pump", ["Pumps"]),
        ("Price of the Factory Compatator", ["Factory Comparator"]),
        ("Price of the Factory Comperator", ["Factory Comparator"]),
        ("東京に何人が住んでいますか", ["東京"]),
        ("Schools in IN", ["IN"]),
        ("Schools in Paris", ["Paris"]),
        ("I'm in class m", []),
        ("Sizes 'M' only", ["M"]),
        ("What is the size of each city?", []),
        ("", []),
    ],
)
def test_values_are_found_in_their_stored_form(index: ValueIndex, question: str, values: list[str]) -> None:
    assert [match.value for match in index.find(question, most=5)] == values


def test_a_part_is_found_in_all_values_that_have_it(index: ValueIndex) -> None:
    found = index.find("Who lives in main street?", most=5)
    assert [(match.table, match.column, match.value, match.text) for match in found] == [
        ("part", "kind", "Main Street North", "main street"),
        ("part", "kind", "Main Street South", "main street"),
    ]
    assert len(index.find("Who lives in main street?", most=1)) == 1


def test_a_part_that_many_values_have_is_not_specific() -> None:
    index = ValueIndex([("road", "name", f"Main Street {letter}") for letter in ("A", "B", "C", "D", "E", "F", "G")])
    assert index.find("Who lives in main street?", most=9) == ()
    assert [match.value for match in index.find("Who lives in main street c?", most=9)] == ["Main Street C"]


def test_the_column_that_the_question_names_comes_first() -> None:
    index = ValueIndex([("team", "color", "Orange"), ("team", "sponsor", "Orange"), ("fruit", "name", "Orange")])
    assert index.find("Which sponsor is Orange?", most=3)[0].column == "sponsor"
    assert index.find("Which fruits are orange?", most=3)[0].table == "fruit"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT, note)")
        rows = [(f"Ann Olson {i}", f"Old Town {i}", f"call +49 30 1234{i:04}") for i in range(200)]
        connection.executemany("INSERT INTO customers (name, city, note) VALUES (?, ?, ?)", rows)
        connection.commit()
    return path


def test_values_are_in_the_schema_of_a_record(shop: Path) -> None:
    database = sq.Database(shop)
    question = "How many customers live in OLD TOWN 150?"
    record = database.record(question, values=True)
    assert "city TEXT /* 'Old Town 150', … */" in record.schema
    assert "Old Town" not in database.record(question).schema
    assert record == sq.Database(shop).record(question, values=True)
    assert "/* 'Old Town 150', 'Old Town 0', … */" in database.schema_text(question=question, values=True, examples=1)


def test_personal_values_are_found_only_if_asked_for(shop: Path) -> None:
    question = "What does Ann Olson 7 note?"
    assert sq.Database(shop).values_for(question) == ()
    assert [match.value for match in sq.Database(shop, personal=True).values_for(question)] == ["Ann Olson 7"]


def test_values_are_read_again_when_the_file_changes(shop: Path) -> None:
    database = sq.Database(shop)
    assert database.values_for("Who lives in Newville Heights?") == ()
    with closing(sqlite3.connect(shop)) as connection:
        connection.execute("INSERT INTO customers (city) VALUES ('Newville Heights')")
        connection.executemany("INSERT INTO customers (city) VALUES (?)", [("x" * 40,)] * 500)
        connection.commit()
    assert [match.value for match in database.values_for("Who lives in newville heights?")] == ["Newville Heights"]
