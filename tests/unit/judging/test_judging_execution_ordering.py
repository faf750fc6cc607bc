"""When does the order of rows count, in which dialect, and which rows tie?"""

import pytest

from sqlquarry.judging.ordering import is_ordered, tied_places, with_order_keys


@pytest.mark.parametrize(
    ("sql", "dialect", "want"),
    [
        ("SELECT a FROM t ORDER BY a", "sqlite", True),
        ("select a from t order\n by a", "sqlite", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", "sqlite", False),
        ("SELECT rank() OVER (ORDER BY a) FROM t", "sqlite", False),
        ("SELECT ' ORDER BY ' FROM t -- ORDER BY a", "sqlite", False),
        ("SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", "sqlite", True),
        ("SELECT $$ ORDER BY $$ FROM t", "postgres", False),
        ("SELECT a::text FROM t ORDER BY a::int", "postgres", True),
        ("SELECT `ORDER BY` FROM t", "mysql", False),
        ("SELECT a FROM t ORDER BY ALL", "duckdb", True),
        ("SELECT a FROM t ORDER BY a", "no dialect", True),
        ("SELECT 'a", "sqlite", False),
    ],
)
def test_only_a_top_level_order_by_counts(sql, dialect, want):
    assert is_ordered(sql, dialect) is want


@pytest.mark.parametrize(
    ("sql", "dialect", "want"),
    [
        ("SELECT a FROM t ORDER BY b", "sqlite", ("SELECT a, b FROM t ORDER BY b", 1)),
        ("SELECT a AS x FROM t ORDER BY x, 1", "sqlite", ("SELECT a AS x, a, a FROM t ORDER BY x, 1", 2)),
        ("SELECT a FROM t ORDER BY b::int", "postgres", ("SELECT a, CAST(b AS INT) FROM t ORDER BY CAST(b AS INT)", 1)),
        ("SELECT * FROM t ORDER BY 1", "sqlite", None),
        ("SELECT DISTINCT a FROM t ORDER BY b LIMIT 1", "sqlite", None),
        ("SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", "sqlite", None),
        ("SELECT a FROM t ORDER BY b", "no dialect", None),
    ],
)
def test_keys_are_appended_where_that_is_simple(sql, dialect, want):
    assert with_order_keys(sql, dialect) == want


def test_rows_with_the_same_keys_share_a_place():
    assert tied_places([("x", 1, 2), ("y", 1, 2), ("z", 1, 3), ("x", 2, 3)], 2) == [0, 0, 1, 2]
