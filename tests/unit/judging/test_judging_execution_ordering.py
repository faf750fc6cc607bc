"""When does the order of rows count, in which dialect, and which rows tie?"""

import pytest

from sqlquarry.judging.ordering import is_ordered, key_columns, limit_of, tied_places, with_order_keys


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
        ("SELECT a FROM t ORDER BY b", "sqlite", "SELECT a, {}(ORDER BY b) FROM t ORDER BY b"),
        ("SELECT a FROM t ORDER BY b LIMIT 3", "sqlite", "SELECT a, {}(ORDER BY b) FROM t ORDER BY b LIMIT 3"),
        (
            "SELECT a AS x FROM t ORDER BY x DESC, 1",
            "sqlite",
            "SELECT a AS x, {}(ORDER BY (a) DESC, (a)) FROM t ORDER BY x DESC, 1",
        ),
        (
            "SELECT count(*) n FROM t ORDER BY n",
            "sqlite",
            "SELECT count(*) n, {}(ORDER BY (count(*))) FROM t ORDER BY n",
        ),
        # The key's own text, which sqlglot would write in another way.
        (
            "SELECT a FROM t ORDER BY CAST(b AS DATE)",
            "sqlite",
            "SELECT a, {}(ORDER BY CAST(b AS DATE)) FROM t ORDER BY CAST(b AS DATE)",
        ),
        ("SELECT a FROM t ORDER BY b::int", "postgres", "SELECT a, {}(ORDER BY b::int) FROM t ORDER BY b::int"),
        (
            "SELECT a FROM t ORDER BY b NULLS LAST FETCH FIRST 1 ROW ONLY",
            "postgres",
            "SELECT a, {}(ORDER BY b NULLS LAST) FROM t ORDER BY b NULLS LAST FETCH FIRST 1 ROW ONLY",
        ),
        (
            "SELECT f(a, b), c FROM t ORDER BY g(a, b), c",
            "sqlite",
            "SELECT f(a, b), c, {}(ORDER BY g(a, b), c) FROM t ORDER BY g(a, b), c",
        ),
        (
            "WITH x AS (SELECT 1 ORDER BY 1) SELECT a FROM x ORDER BY a",
            "sqlite",
            "WITH x AS (SELECT 1 ORDER BY 1) SELECT a, {}(ORDER BY a) FROM x ORDER BY a",
        ),
        (
            "SELECT DISTINCT a FROM t ORDER BY a LIMIT 1",
            "sqlite",
            "SELECT DISTINCT a, {}(ORDER BY a) FROM t ORDER BY a LIMIT 1",
        ),
        ("SELECT * FROM t ORDER BY b", "sqlite", "SELECT *, {}(ORDER BY b) FROM t ORDER BY b"),
        ("SELECT * FROM t ORDER BY 1", "sqlite", None),
        ("SELECT DISTINCT a FROM t ORDER BY b LIMIT 1", "sqlite", None),
        ("SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b", "postgres", None),
        ("SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", "sqlite", None),
        ("SELECT a FROM t ORDER BY b", "no dialect", None),
        ("SELECT a FROM t", "sqlite", None),
    ],
)
def test_the_rank_is_appended_where_that_is_simple(sql, dialect, want):
    found = with_order_keys(sql, dialect)
    assert found == (want and (want.format("DENSE_RANK() OVER "), 1))


@pytest.mark.parametrize(
    ("sql", "names", "want"),
    [
        ("SELECT * FROM t ORDER BY 2, a", ["a", "b"], [1, 0]),
        ("SELECT a FROM t UNION SELECT b FROM u ORDER BY A DESC", ["a"], [0]),
        ("SELECT * FROM t JOIN u ORDER BY a", ["a", "a"], None),
        ("SELECT * FROM t ORDER BY a + 1", ["a"], None),
        ("SELECT * FROM t ORDER BY 3", ["a"], None),
    ],
)
def test_keys_are_found_among_the_columns_of_the_result(sql, names, want):
    assert key_columns(sql, names) == want


@pytest.mark.parametrize(
    ("sql", "want"),
    [
        ("SELECT a FROM t ORDER BY b LIMIT 3", ("SELECT a FROM t ORDER BY b", 0, 3)),
        ("SELECT a FROM t ORDER BY b LIMIT 2, 3", ("SELECT a FROM t ORDER BY b", 2, 3)),
        ("SELECT a FROM t ORDER BY b LIMIT 3 OFFSET 4", ("SELECT a FROM t ORDER BY b", 4, 3)),
        (
            "SELECT a FROM t UNION SELECT b FROM t ORDER BY 1 LIMIT 3",
            ("SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", 0, 3),
        ),
        ("SELECT a FROM t ORDER BY (SELECT b FROM u LIMIT 1)", None),
        ("SELECT a FROM t ORDER BY b LIMIT 1 + 1", None),
        ("SELECT a FROM t LIMIT 3", None),
        ("SELECT a FROM t ORDER BY b", None),
    ],
)
def test_where_a_limit_cuts(sql, want):
    assert limit_of(sql) == want


def test_rows_with_the_same_keys_share_a_place():
    assert tied_places([("x", 1, 2), ("y", 1, 2), ("z", 1, 3), ("x", 2, 3)], 2) == [0, 0, 1, 2]
