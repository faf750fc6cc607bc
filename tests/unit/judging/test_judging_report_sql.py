"""SQL in coloured pieces: nothing is lost, and marks stand where the queries differ."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.judging.report.sql_pieces import diffed, pieces

QUERY = "SELECT count(*), \"my col\" /* c */ FROM t WHERE a <> 'it''s' AND b IN (1.5) -- end"


def text(found) -> str:
    return "".join(piece.text for piece in found)


def marked(found) -> list[str]:
    return [piece.text for piece in found if piece.changed]


def test_kinds():
    kinds = {piece.text: piece.kind for piece in pieces(QUERY, "sqlite") if piece.text.strip()}
    assert kinds["SELECT"] == kinds["IN"] == kinds["AND"] == "k"
    assert (kinds["count"], kinds["1.5"], kinds["'it''s'"], kinds['"my col"'], kinds["a"]) == ("f", "n", "s", " ", " ")
    assert kinds[" /* c */ "] == kinds[" -- end"] == "c"


@given(
    st.text(max_size=80) | st.lists(st.sampled_from(["SELECT", "a", "'x'", '"', "--", "(", "1", "\n"])).map(" ".join)
)
def test_no_character_is_lost(sql):
    assert text(pieces(sql, "sqlite")) == sql
    gold, predicted = diffed(sql, QUERY, "sqlite")
    assert (text(gold), text(predicted)) == (sql, QUERY)


@given(st.text(max_size=60))
def test_a_query_does_not_differ_from_itself(sql):
    assert marked(diffed(sql, sql, "sqlite")[0]) == []


def test_marks_are_the_words_that_differ():
    gold, predicted = diffed(
        "SELECT name FROM users WHERE age > 30 ORDER BY name", "select NAME, id from users where age >= 30", "sqlite"
    )
    assert marked(gold) == [">", "ORDER BY", "name"]
    assert marked(predicted) == [",", "id", ">="]
    assert marked(diffed("SELECT 'a'", "SELECT 'A'", "sqlite")[1]) == ["'A'"], "the case of strings counts"
    assert {piece.coded for piece in predicted if piece.changed} == {"_,", "_id", "_>="}


@pytest.mark.parametrize("sql", ["SELECT 'open", "SELECT \x00", ""])
def test_what_cannot_be_cut_is_shown_as_it_is(sql):
    gold, predicted = diffed("SELECT 1", sql, "sqlite")
    assert text(predicted) == sql
    assert text(gold) == "SELECT 1"


def test_an_unknown_dialect_and_a_huge_query_are_no_error():
    assert text(pieces("SELECT 1", "klingon")) == "SELECT 1"
    huge = "SELECT " + ", ".join(map(str, range(3000)))
    assert marked(diffed(huge, "SELECT 1", "sqlite")[0]) == [], "too long to be compared word by word"
