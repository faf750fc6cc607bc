"""ExactGrader: the differences that it ignores, and those that count."""

import pytest

from sqlquarry import Record
from sqlquarry.judging import ExactGrader


def verdict(gold: str | None, predicted: str, dialect: str = "sqlite") -> str:
    record = Record("q", "CREATE TABLE t (a)", gold)
    object.__setattr__(record, "dialect", dialect)  # Record would refuse a dialect that sqlglot does not support
    return ExactGrader().grade(record, predicted).verdict


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
        ("SELECT a FROM t -- the a\n;", "/* a */ SELECT a FROM t", "correct"),
        ("SELECT a FROM t WHERE b != 1 AND c == 2", "SELECT a FROM t WHERE b <> 1 AND c = 2", "correct"),
        ("SELECT date FROM t", 'SELECT "date" FROM t', "correct"),
        ("SELECT Name FROM t", "SELECT name FROM t", "wrong"),
        ('SELECT a FROM t WHERE b = "1987"', "SELECT a FROM t WHERE b = 1987", "wrong"),
        ("SELECT a FROM t WHERE b = 'X'", 'SELECT a FROM t WHERE b = "X"', "wrong"),
        ("SELECT a FROM t WHERE b = '1.0'", "SELECT a FROM t WHERE b = '1'", "wrong"),
        # A parser that writes its tree back makes these equal. The right sides are not SQLite or mean something else.
        ("SELECT length(a) FROM t", "SELECT len(a) FROM t", "wrong"),
        ("SELECT random()", "SELECT rand()", "wrong"),
        ("SELECT a FROM t", "SELECT a FROM t FOR UPDATE", "wrong"),
        ("SELECT a FROM t", "SELECT a FROM t SORT BY a", "wrong"),
        ("SELECT a FROM t LIMIT 3", "SELECT a FROM t FETCH FIRST 3 ROWS ONLY", "wrong"),
        ("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE +b = 1", "wrong"),
        ("SELECT a FROM t", "SELECT a FROM t t", "wrong"),
        # Not SQL, but the same words.
        ("SELECT FROM WHERE (x  = 'A'", "select from\nwhere (x = 'A';", "correct"),
        ("SELECT FROM WHERE (x = 'A'", "SELECT FROM WHERE (x = 'a'", "wrong"),
        ("SELECT 'open", "SELECT  'open", "correct"),
        ("SELECT 'open", "select 'Open", "wrong"),
        (None, "SELECT 1", "unjudged"),
    ],
)
def test_verdict(gold, predicted, want):
    assert verdict(gold, predicted) == want


def test_dialect_decides_what_a_quote_is():
    assert verdict("SELECT 'x'", 'SELECT "x"', dialect="mysql") == "correct"
    assert verdict("SELECT 'x'", 'SELECT "x"', dialect="sqlite") == "wrong"


def test_an_unknown_dialect_is_read_as_sqlglots_own():
    assert verdict("SELECT a", "select  a;", dialect="nonesuch") == "correct"
    assert verdict("SELECT 'a'", "SELECT 'A'", dialect="nonesuch") == "wrong"
