"""The figures of a set, and findings about balance, lengths and steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record, load_records
from sqlquarry.data.checkup.balance import dominant_schemas, few_steps, rare_classes
from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.lengths import over_length
from sqlquarry.data.checkup.statistics import Steps, TokenLengths, statistics_of
from sqlquarry.data.checkup.structure import features_of
from sqlquarry.sql.features import query_features

PUB = "CREATE TABLE pub (name TEXT, beers INT); CREATE TABLE inn (pub TEXT, beds INT)"
EASY, JOIN = "SELECT name FROM pub", "SELECT name FROM pub JOIN inn ON pub.name = inn.pub WHERE beds > 3"
NESTED = "SELECT name FROM pub WHERE beers > (SELECT AVG(beers) FROM pub) AND beers < (SELECT MAX(beds) FROM inn)"


@dataclass
class SmallPlan:
    """A plan whose steps are counted as `training.planning.forecast` counts them."""

    records: int
    rows: int
    rows_per_step: int
    epochs: float

    @property
    def steps(self) -> int:
        return math.ceil(self.epochs * math.ceil(self.rows / self.rows_per_step))


def details(check, **fields):
    return [one.detail for one in check(Checked(**fields))]


def test_statistics():
    some = [
        Record("a", PUB, EASY, database="d"),
        Record("b", PUB.lower(), JOIN, database="d"),
        Record("c", "CREATE TABLE x (y)", NESTED, database="e"),
        Record("d", PUB, "not SQL"),
        Record("e", PUB),
    ]
    found = statistics_of(Checked(records=some, plan=SmallPlan(5, 4, 2, 3.0)))
    assert (found.records, found.schemas, found.databases, found.with_sql) == (5, 2, 2, 4)
    assert found.classes == {"easy": 1, "medium": 1, "hard": 0, "extra": 1, "unreadable": 1}
    assert found.shapes["joins"] == 1
    assert found.shapes["several tables"] == 2
    assert found.shapes["nested queries"] == 1
    assert found.shapes["set operations"] == 0
    assert found.tokens is None
    assert found.steps == Steps(rows_per_step=2, steps=6, epochs=3.0)


def test_token_lengths():
    some = [Record("a", PUB)] * 200
    checked = Checked(records=some, tokens=[*range(200, 0, -1)], max_length=190)
    assert statistics_of(checked).tokens == TokenLengths(1, 100, 180, 190, 198, 200, over_length=10)
    assert [one.records for one in over_length(checked)] == [(place,) for place in range(10)]
    assert "200 tokens" in next(over_length(checked)).detail
    assert not details(over_length, records=some, tokens=[500] * 200)
    unlimited = statistics_of(Checked(records=some[:1], tokens=[7])).tokens
    assert unlimited == TokenLengths(7, 7, 7, 7, 7, 7, over_length=None)


def test_an_empty_set_has_figures():
    found = statistics_of(Checked(records=[], tokens=[]))
    assert (found.records, found.schemas, found.tokens) == (0, 0, None)
    assert not details(rare_classes, records=[])
    assert not details(dominant_schemas, records=[])


@pytest.mark.parametrize("name", ["real/modal_sqlqa.nodev.jsonl", "rebuilt/wikisql_dev.jsonl.gz"])
def test_features_by_structure_are_those_of_each_query(shared_data: Path, name: str):
    some = load_records(shared_data / f"sql_create_context_{name}", limit=1000)
    for record, found in zip(some, features_of(some), strict=True):
        # sqlglot cannot parse a column named FOR, but a query with the same structure.
        assert found == (query_features(record.sql, record.dialect) or found)


def test_equal_structures_need_equal_use_of_names():
    one, other = (f"SELECT p.name FROM pub p JOIN {table} i ON p.name = i.beds" for table in ("inn", "pub"))
    tables = [found["tables"] for found in features_of([Record("a", PUB, one), Record("b", PUB, other)]) if found]
    assert tables == ["2", "1"]


def test_classes_that_dominate_are_rare_or_missing():
    some = [Record(f"q{n}", PUB, EASY) for n in range(95)] + [Record("j", PUB, JOIN)] * 3 + [Record("w", PUB)] * 50
    found = {(one.kind, one.records, one.detail) for one in rare_classes(Checked(records=some))}
    assert ("one-class", (), "95 of 98 queries are easy") in found
    assert ("rare-class", (95, 96, 97), "3 of 98 queries: medium") in found
    assert ("rare-class", (95, 96, 97), "3 of 98 queries: joins") in found
    assert ("rare-class", (), "no query is hard or extra") in found
    mixed = [Record(f"q{n}", PUB, sql) for n in range(20) for sql in (EASY, JOIN, NESTED)]
    assert "one-class" not in {one.kind for one in rare_classes(Checked(records=mixed))}
    assert not details(rare_classes, records=some[:19])


def test_a_dominant_schema_or_database():
    inn = "CREATE TABLE inn (a)"
    one = [Record("q", PUB), Record("q", PUB.lower()), Record("q", PUB), Record("q", inn)]
    assert details(dominant_schemas, records=one) == ["3 of 4 records have one schema"]
    assert not details(dominant_schemas, records=one[:3])
    assert not details(dominant_schemas, records=[*one[2:]])
    some = [Record("q", f"CREATE TABLE t{n} (a)", database="d" if n else "e") for n in range(4)]
    assert details(dominant_schemas, records=some) == ["3 of 4 records have one database 'd'"]


def test_few_steps_name_what_gives_enough():
    assert not details(few_steps, records=[])
    assert not details(few_steps, records=[], plan=SmallPlan(1_000, 100, 4, 2.0))
    (detail,) = details(few_steps, records=[], plan=SmallPlan(1_000, 100, 20, 2.0))
    assert "10 steps" in detail
    assert "records_per_step=40 " in detail
    assert "num_train_epochs" not in detail
    (detail,) = details(few_steps, records=[], plan=SmallPlan(40, 4, 4, 2.0))
    assert "records_per_step=10 and num_train_epochs=13 " in detail


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 64), st.integers(1, 4))
def test_the_advice_gives_enough_steps(rows, records_per_row, rows_per_step, epochs):
    plan = SmallPlan(rows * records_per_row, rows, min(rows, rows_per_step), float(epochs))
    for detail in details(few_steps, records=[], plan=plan):
        words = dict(word.split("=") for word in detail.split() if "=" in word)
        per_step = int(words.get("records_per_step", plan.rows_per_step * records_per_row))
        rows_then = min(rows, max(1, round(per_step * rows / plan.records)))
        assert SmallPlan(plan.records, rows, rows_then, float(words.get("num_train_epochs", epochs))).steps >= 50
