"""Duplicates and leaks are found in any spelling and order, and they agree with `Records.split`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record, Records, load_records
from sqlquarry.data.checkup import balance, contradictions, duplicates, faults, privacy
from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.duplicates import leaks
from sqlquarry.data.checkup.statistics import statistics_of
from sqlquarry.errors import ConfigError

PUB = "CREATE TABLE pub (name TEXT, beers INT)"
# Two schemas, three questions and three queries, each with its spellings.
SCHEMAS = [[PUB, 'create table "pub" (beers int, name varchar(9));'], ["CREATE TABLE inn (name TEXT, beds INT)"]]
QUESTIONS = [["Which pubs?", "which pubs", "pubs: which?"], ["Which pubs have 5 beers?"], ["Which pubs have 6 beers?"]]
QUERIES = [
    ["SELECT name FROM pub WHERE beers = 5", "select p.name from pub as p where p.beers=5;"],
    ["SELECT name FROM pub WHERE beers = 6"],
    ["SELECT COUNT(*) FROM pub"],
]
choices = st.tuples(*(st.integers(0, 2) for _ in range(6)))


def record(choice: tuple[int, ...], name: str | None = None) -> Record:
    """Return a record whose first three numbers choose what it means, and the others how it is spelled."""
    schema, question, query = (
        pool[n % len(pool)] for pool, n in zip((SCHEMAS, QUESTIONS, QUERIES), choice, strict=False)
    )
    spellings = (texts[n % len(texts)] for texts, n in zip((question, schema, query), choice[3:], strict=True))
    return Record(*spellings, id=name)


def meaning(choice: tuple[int, ...]) -> tuple[int, int, int]:
    return choice[0] % 2, choice[1], choice[2]


def groups(records: Records) -> set[frozenset[str | None]]:
    """Return the ids of duplicates in exact and near groups, joined by their common first record."""
    joined: dict[int, set[int]] = {}
    for finding in duplicates.duplicates(Checked(records=records)):
        joined.setdefault(finding.records[0], set()).update(finding.records)
    whole = {first: set().union(*(joined.get(place, {place}) for place in places)) for first, places in joined.items()}
    largest = [places for places in whole.values() if not any(places < other for other in whole.values())]
    return {frozenset(records[place].id for place in places) for places in largest}


@given(st.lists(choices, max_size=12))
def test_duplicates_are_the_records_with_one_meaning_in_any_order(rows):
    some = Records(record(choice, str(index)) for index, choice in enumerate(rows))
    expected = {
        frozenset(str(index) for index, other in enumerate(rows) if meaning(other) == meaning(choice))
        for choice in rows
    }
    assert groups(some) == {group for group in expected if len(group) > 1}
    assert groups(Records(reversed(some))) == groups(some)


@given(st.lists(choices, min_size=3, max_size=12), st.floats(0.1, 0.9))
def test_a_split_never_divides_duplicates_and_has_no_leaks(rows, share):
    some = Records(record(choice, str(index)) for index, choice in enumerate(rows))
    try:
        parts = some.split(share, group_by="query")
    except ConfigError:
        return
    ids = [{one.id for one in part} for part in parts]
    assert all(group <= ids[0] or group <= ids[1] for group in groups(some))
    assert not {found.kind for found in leaks(Checked(records=parts[0], others={"test": parts[1]}))} & {
        "leak",
        "leaked-query",
    }


@given(choices, choices)
def test_leaks_are_symmetric(one, other):
    kinds = []
    for mine, theirs in ((one, other), (other, one)):
        checked = Checked(records=[record(mine)], others={"test": [record(theirs)]})
        kinds.append([found.kind for found in leaks(checked)])
    assert kinds[0] == kinds[1]
    assert (kinds[0] == ["leak"]) == (meaning(one) == meaning(other))


def test_each_kind_of_duplicate():
    some = [
        Record("Which pubs?", PUB, "SELECT name FROM pub"),
        Record("which pubs", PUB, "SELECT name FROM pub;"),
        Record("Which pubs?", PUB, "SELECT name FROM pub"),
        Record("Which pubs have 5 beers?", PUB, "SELECT name FROM pub WHERE beers = 5"),
        Record("Which pubs have 6 beers?", PUB, "SELECT name FROM pub WHERE beers = 6"),  # only another value
        Record("Which pubs?", PUB, "SELECT name FROM pub", notes="A pub has beers."),  # what is asked differs
        Record("Which pubs?", PUB, "SELECT name FROM pub", dialect="mysql"),
        Record("Which pubs?", PUB, "SELECT name FROM pub", notes="a pub has beers"),
    ]
    found = [(one.kind, one.records) for one in duplicates.duplicates(Checked(records=some))]
    assert found == [("duplicate", (0, 2)), ("near-duplicate", (0, 1)), ("near-duplicate", (5, 7))]


def test_records_without_sql_can_be_duplicates_and_leaks():
    asked = [Record("Which pubs?", PUB), Record("which pubs", PUB)]
    answered = [Record("Which pubs?", PUB, "SELECT name FROM pub")]
    assert [one.records for one in duplicates.duplicates(Checked(records=asked))] == [(0, 1)]
    assert not list(duplicates.duplicates(Checked(records=[*asked[:1], *answered])))
    assert [one.kind for one in leaks(Checked(records=answered, others={"test": asked}))] == ["leak"]


def test_an_alternative_makes_a_duplicate():
    some = [
        Record("Which pubs?", PUB, "SELECT name FROM pub", alternatives=["SELECT name FROM pub ORDER BY 1"]),
        Record("Which pubs?", PUB, "SELECT name FROM pub ORDER BY 1"),
    ]
    assert [one.kind for one in duplicates.duplicates(Checked(records=some))] == ["near-duplicate"]


def test_a_leak_names_the_other_set_and_record():
    mine = [
        Record("Which pubs have 5 beers?", PUB, "SELECT name FROM pub WHERE beers = 5"),
        Record("Name them", PUB, "SELECT name FROM pub"),
        Record("How many?", PUB, "SELECT COUNT(*) FROM pub"),
        Record("Beers?", PUB, "SELECT beers FROM pub"),
    ]
    test = [
        Record("which pubs have 5 beers", PUB, "SELECT name FROM pub WHERE beers = 5", id="t-7"),
        Record("Which pubs are there?", PUB, "SELECT name FROM pub"),
        Record("How many?", "CREATE TABLE inn (a)", "SELECT COUNT(*) FROM inn"),
    ]
    found = list(leaks(Checked(records=mine, others={"dev": [], "test": test})))
    assert [(one.kind, one.records) for one in found] == [
        ("leak", (0,)),
        ("leaked-query", (1,)),
        ("repeated-question", (2,)),
    ]
    assert "test: record 't-7'" in found[0].detail
    assert "test: record 1 " in found[1].detail


def test_large_groups_are_divided_and_keep_their_first_record():
    same = Record("Which pubs?", PUB, "SELECT name FROM pub")
    found = list(duplicates.duplicates(Checked(records=[same] * 2_500)))
    assert len(found) > 1
    assert {one.records[0] for one in found} == {0}
    assert sorted(place for one in found for place in one.records[1:]) == list(range(1, 2_500))


def test_the_questions_of_wikisql_that_are_in_train_and_dev(shared_data: Path):
    train, dev = (
        load_records(shared_data / "sql_create_context_rebuilt" / f"wikisql_{name}.jsonl.gz")
        for name in ("train", "dev")
    )
    asked = {one.question.lower() for one in dev}
    some = [one for place, one in enumerate(train) if place % 20 == 0 or one.question.lower() in asked]  # to be fast
    found = [one.kind for one in leaks(Checked(records=dev, others={"train": some}))]
    assert found.count("repeated-question") == 14


@pytest.mark.parametrize("repeated", [True, False])
def test_work_grows_about_linearly_with_the_number_of_records(repeated: bool):
    checks = [check for part in (balance, contradictions, duplicates, faults, privacy) for check in part.CHECKS]

    def calls(count: int) -> int:
        """Return the number of functions that the checks call."""
        some = [
            Record(
                f"What is x of t{0 if repeated else n} above {n % 3}?",
                f"CREATE TABLE t{0 if repeated else n} (x INT)",
                f"SELECT x, {n if repeated else 0} FROM t{0 if repeated else n}",
            )
            for n in range(count)
        ]
        checked = Checked(records=some, others={"test": some})
        made = 0

        def count_calls(_: object, event: str, __: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        sys.setprofile(count_calls)
        try:
            for check in checks:
                list(check(checked))
            statistics_of(checked)
        finally:
            sys.setprofile(None)
        return made

    calls(100)  # fills caches
    assert calls(1_600) < 12 * calls(200)  # Linear work gives 8, quadratic work 64.
