"""Records that contradict each other are found, but not records that accept a common query."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record
from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.contradictions import (
    contradictions,
    contradictions_across_sets,
    repeated_ids,
    several_schemas,
)

PUB = "CREATE TABLE pub (name TEXT, beers INT)"


def pub(*golds: str, question: str = "Which pubs?", **fields) -> Record:
    return Record(question, fields.pop("schema", PUB), golds[0], alternatives=golds[1:], **fields)


def found(check, records, **others):
    return [(one.kind, one.records) for one in check(Checked(records=records, others=others))]


def test_one_question_with_two_golds():
    some = [
        pub("SELECT name FROM pub"),
        pub("SELECT p.name FROM pub AS p;", question="which pubs"),
        pub("SELECT beers FROM pub", schema='create table "pub" (beers int, name varchar(20))'),
    ]
    (finding,) = contradictions(Checked(records=some))
    assert (finding.kind, finding.records) == ("contradiction", (0, 1, 2))
    assert "SELECT name FROM pub | SELECT beers FROM pub" in finding.detail


def test_literals_contradict_but_other_questions_do_not():
    five, six = "SELECT name FROM pub WHERE beers > 5", "SELECT name FROM pub WHERE beers > 6"
    assert found(contradictions, [pub(five), pub(six)]) == [("contradiction", (0, 1))]
    for one, other in (
        ("Which pubs have more names than beers?", "Which pubs have more beers than names?"),
        ("Which pubs have 5 beers?", "Which pubs have 6 beers?"),
    ):
        assert not found(contradictions, [pub(five, question=one), pub(six, question=other)])
    assert not found(contradictions, [pub(five), pub(six, notes="Count the best beer twice.")])
    assert not found(contradictions, [pub(five), pub(six, dialect="mysql")])
    assert not found(contradictions, [pub(five), pub(six, schema="CREATE TABLE inn (a)")])


def test_overlapping_alternatives_agree_and_connect():
    a, b, c = "SELECT name FROM pub", "SELECT name FROM pub LIMIT 9", "SELECT beers FROM pub"
    assert not found(contradictions, [pub(a, b), pub(b)])
    assert not found(contradictions, [pub(a, b), pub(b, c), pub(c)])
    assert found(contradictions, [pub(a, b), pub(c)]) == [("contradiction", (0, 1))]
    assert not found(contradictions, [pub(a), Record("Which pubs?", PUB)])


def test_golds_in_another_order_are_only_a_note():
    some = [
        pub("SELECT name FROM pub WHERE beers = 1 AND name = 'x'"),
        pub("SELECT name FROM pub WHERE name = 'x' AND beers = 1"),
    ]
    assert found(contradictions, some) == [("other-wording-of-gold", (0, 1))]


def test_contradictions_with_another_set_name_it():
    a, b = "SELECT name FROM pub", "SELECT beers FROM pub"
    mine = [pub("SELECT 1", question="Why?"), pub(a), pub(a, b), pub(b)]
    test = [pub(b, a), pub(b, id="t1")]
    (finding,) = contradictions_across_sets(Checked(records=mine, others={"dev": [], "test": test}))
    assert (finding.kind, finding.records) == ("contradiction", (1,))
    assert finding.detail.startswith("test: record 't1'")
    assert not found(contradictions_across_sets, mine[1:2], test=mine[1:3])
    assert not found(contradictions, mine[1:2], test=test)


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), max_size=6))
def test_the_order_of_records_does_not_matter(golds):
    some = [pub(*(f"SELECT name FROM pub LIMIT {n}" for n in numbers)) for numbers in golds]
    forward, backward = found(contradictions, some), found(contradictions, some[::-1])
    last = len(some) - 1
    assert [set(places) for _, places in forward] == [{last - place for place in places} for _, places in backward]
    # All records concern one question, so a contradiction means that they do not all share golds, directly or not.
    connected = [set(numbers) for numbers in golds[:1]]
    rest = [set(numbers) for numbers in golds[1:]]
    while joined := [numbers for numbers in rest if connected[0] & numbers]:
        connected[0].update(*joined)
        rest = [numbers for numbers in rest if numbers not in joined]
    assert bool(forward) == bool(rest)


def test_repeated_ids_and_databases_with_several_schemas():
    some = [
        pub("SELECT 1", id="a", database="d"),
        pub("SELECT 1", id="b", database="d", schema=PUB.lower()),
        pub("SELECT 1", id="a", database="d", schema="CREATE TABLE pub (name TEXT)"),
        pub("SELECT 1", database="e"),
        pub("SELECT 1", schema="CREATE TABLE inn (a)"),
    ]
    assert found(repeated_ids, some) == [("repeated-id", (0, 2))]
    (finding,) = several_schemas(Checked(records=some))
    assert finding.records == (0, 2)
    assert "'d'" in finding.detail
    assert not found(several_schemas, some[:2])
