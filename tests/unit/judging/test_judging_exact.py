"""Text equality: what is made uniform, and what is not."""

import pytest

from sqlquarry import Record
from sqlquarry.judging import ExactGrader


def verdict(gold: str | None, predicted: str, dialect: str = "sqlite") -> str:
    return ExactGrader().grade(Record("q", "CREATE TABLE t (a)", gold, dialect=dialect), predicted).verdict


@pytest.mark.parametrize(
    ("gold", "predicted", "want"),
    [
        ("SELECT a FROM t WHERE b = 'X'", "select  a\nfrom t where b='X' ;", "correct"),
        ("SELECT a FROM t", "SELECT `a` FROM [t]", "correct"),
        ("SELECT count(*) FROM t", "SELECT COUNT( * ) FROM t", "correct"),
        ("SELECT a FROM t WHERE b = 'X'", "SELECT a FROM t WHERE b = 'x'", "wrong"),
        ('SELECT a FROM t WHERE b = "X"', 'SELECT a FROM t WHERE b = "x"', "wrong"),
        ("SELECT a FROM t WHERE b = 'a  b'", "SELECT a FROM t WHERE b = 'a b'", "wrong"),
        ("SELECT a FROM t", "SELECT b FROM t", "wrong"),
        ("SELECT a FROM t", "", "wrong"),
        # Not SQL, so compared as text.
        ("SELECT FROM WHERE (x  = 'A'", "select from\nwhere (x = 'A';", "correct"),
        ("SELECT FROM WHERE (x = 'A'", "SELECT FROM WHERE (x = 'a'", "wrong"),
        (None, "SELECT 1", "unjudged"),
    ],
)
def test_verdict(gold, predicted, want):
    assert verdict(gold, predicted) == want


def test_dialect_decides_what_a_quote_is():
    assert verdict("SELECT 'x'", 'SELECT "x"', dialect="mysql") == "correct"
    assert verdict("SELECT 'x'", 'SELECT "x"', dialect="sqlite") == "wrong"


def test_an_unknown_dialect_is_compared_as_text():
    assert verdict("SELECT a", "select  a;", dialect="nonesuch") == "correct"
    assert verdict("SELECT 'a'", "SELECT 'A'", dialect="nonesuch") == "wrong"
