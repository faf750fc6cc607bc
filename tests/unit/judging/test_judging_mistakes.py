"""Classes of mistakes in wrong predictions."""

import pytest

from sqlquarry.answers import Judgement
from sqlquarry.judging.mistakes import MISTAKES, mistake
from sqlquarry.records import Record

GOLD = (
    "SELECT T1.name, count(*) FROM a AS T1 JOIN b AS T2 ON T1.id = T2.a_id WHERE T1.x > 5 "
    "GROUP BY T1.name ORDER BY 2 DESC"
)
RECORD = Record("q", "CREATE TABLE a (id INT)", GOLD)


def judged(verdict="wrong", error=None):
    details = {"predicted": {"error": error, "message": "no"}} if error else {"predicted": {"rows": [[1]]}}
    return Judgement("execution", verdict, details=details)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        ("syntax", "syntax"),
        ("no_such_column", "unknown column"),
        ("no_such_table", "unknown table"),
        ("timeout", "timeout"),
        ("forbidden", "forbidden"),
        ("other", "other"),
    ],
)
def test_an_error_of_the_database_decides(error, word):
    assert mistake(RECORD, "SELECT 1", judged(error=error), truncated=False) == word


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("SELECT T1.name, count(*)", "SELECT T1.name, T1.x, count(*)"), "extra column"),
        (("SELECT T1.name, count(*)", "SELECT count(*)"), "missing column"),
        (("JOIN b AS T2", "JOIN c AS T2"), "wrong join"),
        (("ON T1.id = T2.a_id", "ON T1.id = T2.id"), "wrong join"),
        (("JOIN b", "LEFT JOIN b"), "wrong join"),
        (("T1.x > 5", "T1.x > 6"), "wrong filter"),
        (("T1.x > 5", "T1.x >= 5"), "wrong filter"),
        (("WHERE T1.x > 5", ""), "wrong filter"),
        (("count(*)", "count(DISTINCT T1.x)"), "wrong aggregate"),
        (("count(*)", "max(T1.x)"), "wrong aggregate"),
        (("GROUP BY T1.name", "GROUP BY T1.id"), "wrong grouping"),
        (("GROUP BY T1.name", ""), "wrong grouping"),
        (("ORDER BY 2 DESC", "ORDER BY 2"), "wrong order"),
        (("ORDER BY 2 DESC", ""), "wrong order"),
        (("ORDER BY 2 DESC", "ORDER BY 2 DESC LIMIT 1"), "wrong order"),
        (("SELECT T1.name", "SELECT T1.nick"), "wrong column"),
        (("T1.x > 5", "5 < T1.x"), "other"),  # no part differs, so nothing explains the verdict
    ],
)
def test_the_part_that_differs_decides(change, word):
    predicted = GOLD.replace(*change)
    assert predicted != GOLD
    assert mistake(RECORD, predicted, judged(), truncated=False) == word
    assert word in MISTAKES


def test_the_first_part_that_differs_decides():
    predicted = GOLD.replace("T1.x > 5", "T1.x > 6").replace("JOIN b", "JOIN c").replace("DESC", "ASC")
    assert mistake(RECORD, predicted, judged(), truncated=False) == "wrong join"


def test_names_of_tables_and_quotes_are_ignored():
    record = Record("q", "s", "SELECT name FROM a WHERE b = 'Bob'")
    assert (
        mistake(record, 'SELECT T.NAME FROM a AS T WHERE T.b = "Bob" AND c = 1', judged(), truncated=False)
        == "wrong filter"
    )
    assert mistake(record, 'SELECT T.nick FROM a AS T WHERE T.b = "Bob"', judged(), truncated=False) == "wrong column"


def test_the_nearest_of_several_golds_is_compared():
    record = Record("q", "s", "SELECT a FROM t JOIN u WHERE c = 2", alternatives=("SELECT a FROM t WHERE c = 1",))
    assert mistake(record, "SELECT a FROM t WHERE c = 3", judged(), truncated=False) == "wrong filter"


def test_cases_that_need_no_comparison():
    assert mistake(RECORD, GOLD, judged("correct"), truncated=False) is None
    assert mistake(RECORD, GOLD, judged("correct"), truncated=True) is None
    assert mistake(RECORD, GOLD, judged("unjudged"), truncated=True) == "unjudged"
    assert mistake(RECORD, "SELECT a FR", judged(error="syntax"), truncated=True) == "truncated"
    assert mistake(RECORD, "", judged(), truncated=False) == "no SQL"
    assert mistake(RECORD, "SELECT FROM WHERE", judged(), truncated=False) == "other"
    assert mistake(RECORD, "SELECT 1", Judgement("llm", "wrong"), truncated=False) in MISTAKES
