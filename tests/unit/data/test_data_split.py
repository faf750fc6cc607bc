"""Records.split keeps equal texts together in any spelling, is near the requested size, and reports what it did."""

from __future__ import annotations

import json
import logging
import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record, Records, load_records
from sqlquarry.data.normal_form import query_form, schema_form
from sqlquarry.errors import ConfigError

SHOP = "CREATE TABLE shop (name TEXT, town TEXT, rent INTEGER, opened INTEGER)"


def templates(records):
    return {query_form(sql, record.schema) for record in records for sql in record.golds}


def one_database(count: int) -> Records:
    """Return questions about one table, with each template three times in different spellings and with other values."""
    columns = ["name", "town", "rent", "opened"]
    return Records(
        Record(
            f"Show {columns[n % 4]} where {columns[n % 3]} is above {n} for case {n // 3}",
            SHOP,
            (
                f"SELECT {columns[n // 3 % 4]}, x{n // 3} FROM shop WHERE rent > {n}",
                f"select s.{columns[n // 3 % 4]}, s.x{n // 3} from shop as s where s.rent>{n};",
                f'SELECT "{columns[n // 3 % 4]}", x{n // 3} FROM `shop` -- all\n WHERE rent > -{n}.5',
            )[n % 3],
        )
        for n in range(count)
    )


def test_spellings_of_a_schema_stay_together():
    spellings = (
        "CREATE TABLE pub{0} (name TEXT, beers INT)",
        'create table "pub{0}"(\n  beers integer,\n  name varchar(20) NOT NULL\n);',
        "-- all pubs\nCREATE TABLE IF NOT EXISTS `pub{0}` (name text, beers int) /* small */",
    )
    some = Records(
        Record(f"q{n}", spellings[n % 3].format(n // 3), f"SELECT name FROM pub{n // 3} WHERE beers = {n}")
        for n in range(60)
    )

    train, test = split = some.split(0.2)

    assert split.report.level == "schema"
    assert split.report.groups == 20
    assert len(test) == 12
    assert not {schema_form(record.schema) for record in train} & {schema_form(record.schema) for record in test}


def test_equal_queries_on_two_schemas_stay_together():
    some = Records(
        Record(f"q{n}", f"CREATE TABLE a{n} (x)", f"SELECT x{n // 2} FROM u WHERE y = {n}") for n in range(40)
    )
    train, test = some.split(0.2)
    assert len(test) == 8
    assert not templates(train) & templates(test)


def test_records_of_one_database_stay_together():
    some = Records(
        Record(f"q{n}", f"CREATE TABLE part{n} (x)", f"SELECT y{n} FROM part{n}", database=f"d{n // 4}")
        for n in range(40)
    )
    train, test = some.split(0.1)
    assert len(test) == 4
    assert not {record.database for record in train} & {record.database for record in test}


@pytest.mark.parametrize(("share", "expected"), [(0.01, 3), (0.1, 12), (0.25, 30), (0.5, 60)])
def test_the_records_of_one_database_are_split_by_query(share, expected):
    train, test = split = one_database(120).split(share)

    assert (split.report.level, split.report.groups, len(test)) == ("template", 40, expected)
    assert not templates(train) & templates(test)


def test_near_duplicates_of_a_question_stay_together():
    questions = [
        ("List all shops of the town.", "please list shops of the town"),
        (
            "Which shops that opened before the war have a rent above the mean of their town",
            "Which of the old shops that opened before the war have a rent above the mean of their town",
        ),
    ]
    some = Records(
        Record(question, SHOP, f"SELECT a{index}{other} FROM shop")
        for index, pair in enumerate(questions)
        for other, question in enumerate(pair)
    )
    assert some.split(2).report.groups == 2
    assert some.split(2).report.repeats == 2
    # In a short question one different word makes a different question. So does a number if the query differs.
    short = [
        Record(f"List the {word} of shops in {n}", SHOP, f"SELECT {word}{n} FROM shop") for word in "ab" for n in "12"
    ]
    assert Records(short).split(1).report.groups == 4


@pytest.mark.parametrize("sql", [None, "SELECT town FROM shop WHERE rent = {}"])
def test_records_that_differ_only_in_values_can_be_split(sql):
    some = Records(Record(f"Which towns have rent {n}?", SHOP, sql and sql.format(n)) for n in range(50))
    split = some.split(0.1)
    assert (split.report.level, len(split[1])) == ("query", 5)


def test_schemas_are_divided_only_if_whole_ones_miss_the_size(caplog):
    some = Records(Record(f"q{n}", f"CREATE TABLE t{n // 40} (x)", f"SELECT c{n} FROM t{n // 40}") for n in range(120))
    with caplog.at_level(logging.INFO, "sqlquarry"):
        assert [len(part) for part in some.split(0.33)] == [80, 40]
        assert caplog.records[-1].levelno == logging.INFO
        split = some.split(0.01)
        assert caplog.records[-1].levelno == logging.WARNING
    assert (split.report.level, split.report.asked, split.report.test) == ("template", 1, 1)
    assert "40" in split.report.reason
    assert str(split.report) in caplog.text
    strict = some.split(0.01, group_by="schema")
    assert (strict.report.level, strict.report.test, bool(strict.report.reason)) == ("schema", 40, True)


def test_records_that_cannot_be_divided_are_refused():
    same = Records([Record("q", SHOP, "SELECT name FROM shop")] * 4)
    for options in ({}, {"group_by": "schema"}, {"group_by": "template"}):
        with pytest.raises(ConfigError, match=r"\b4\b.*group_by"):
            same.split(0.5, **options)
    assert [len(part) for part in same.split(0.5, group_by=None)] == [2, 2]


def test_a_split_is_a_pair_that_can_be_pickled():
    split = one_database(12).split(0.3)
    again = pickle.loads(pickle.dumps(split))
    assert again == split == (split[0], split[1])
    assert again.report == split.report


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_nothing_is_lost_and_no_group_is_divided(rows, share):
    some = Records(
        Record(f"q{index}", f"CREATE TABLE t{table} (a)", f"SELECT a{column} FROM t{table}", id=str(index))
        for index, (table, column) in enumerate(rows)
    )
    try:
        train, test = split = some.split(share)
    except ConfigError:
        return
    report = split.report
    assert (report.train, report.test) == (len(train), len(test))
    assert min(report.train, report.test) > 0
    assert sorted([*train, *test], key=lambda record: int(record.id or "")) == list(some)
    assert report.level == "query" or not templates(train) & templates(test)
    if report.level == "schema":
        assert not {record.schema for record in train} & {record.schema for record in test}
        assert abs(report.test - report.asked) <= report.asked / 4
    reversed_test = Records(reversed(some)).split(share)[1]
    assert {record.id for record in reversed_test} == {record.id for record in test}


def test_time_grows_about_linearly_with_the_number_of_records():
    def seconds(count: int) -> float:
        some = Records(
            Record(
                f"What is c{n % 7} of t{n // 5} above {n}?",
                f"CREATE TABLE t{n // 5} (c{n % 7} INT)",
                f"SELECT c FROM t{n // 5}",
            )
            for n in range(count)
        )
        start = time.process_time()
        some.split(0.1)
        return time.process_time() - start

    seconds(1000)
    assert seconds(32_000) < 16 * max(seconds(4_000), 0.01)  # Linear time gives 8, an exponent of 1.45 gives 20.


@pytest.mark.parametrize("name", ["real/modal_sqlqa.nodev.jsonl", "rebuilt/spider_train.jsonl.gz"])
def test_public_rows(shared_data: Path, name: str):
    train, test = load_records(shared_data / f"sql_create_context_{name}", limit=3000).split(0.05)
    assert len(test) == 150
    assert not templates(train) & templates(test)
    assert not {schema_form(record.schema) for record in train} & {schema_form(record.schema) for record in test}


def test_one_public_database(shared_data: Path):
    rows = map(json.loads, (shared_data / "spider_exec" / "train.jsonl").read_text().splitlines())
    some = Records(Record(r["question"], SHOP, r["gold_sql"]) for r in rows if r["db_id"] == "college_2")
    train, test = some.split(0.1)
    assert abs(len(test) - 0.1 * len(some)) < 2
    assert not templates(train) & templates(test)


def test_few_templates_are_divided_only_if_whole_ones_miss_the_size_by_far():
    rows = [
        Record(f"What {sql[7:10]} has customer {i}?", "CREATE TABLE orders (customer INT, total INT)", sql)
        for i in range(60)
        for sql in (
            f"SELECT COUNT(*) FROM orders WHERE customer = {i}",
            f"SELECT SUM(total) FROM orders WHERE customer = {i}",
        )
    ]
    few = Records(rows).split(test_size=0.1)
    assert (few.report.level, len(few[1])) == ("query", 12)
    assert "60" in few.report.reason
    assert "group_by='template'" in few.report.reason
    assert not {row.sql for row in few[0]} & {row.sql for row in few[1]}
    half = Records(rows).split(test_size=0.5)
    assert (half.report.level, len(half[1]), half.report.reason) == ("template", 60, "")
    strict = Records(rows).split(test_size=0.1, group_by="template")
    assert (strict.report.level, len(strict[1])) == ("template", 60)
