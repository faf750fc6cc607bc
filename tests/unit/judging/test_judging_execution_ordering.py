"""Order of rows: queries for which it counts, rows that tie, and rows that a LIMIT cuts off."""

import pytest

from sqlquarry.results.ordering import around_order_keys, is_ordered, limit_of, tied_places, with_order_keys


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
        # The text of the key is kept, although sqlglot would spell it differently.
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
        ("SELECT (a)FROM t ORDER BY b", "sqlite", "SELECT (a), {}(ORDER BY b)FROM t ORDER BY b"),
        ("SELECT ALL a FROM t ORDER BY b", "sqlite", "SELECT ALL a, {}(ORDER BY b) FROM t ORDER BY b"),
        ("SELECT a, b FROM t ORDER BY 2", "sqlite", "SELECT a, b, {}(ORDER BY (b)) FROM t ORDER BY 2"),
        ("SELECT a, * FROM t ORDER BY 1", "sqlite", "SELECT a, *, {}(ORDER BY (a)) FROM t ORDER BY 1"),
        # The number of a column behind a star, and numbers without a column.
        ("SELECT a, * FROM t ORDER BY 2", "sqlite", None),
        ("SELECT a FROM t ORDER BY 2", "sqlite", None),
        ("SELECT a FROM t ORDER BY 0", "sqlite", None),
        ("SELECT * FROM t ORDER BY 1", "sqlite", None),
        ("SELECT DISTINCT a FROM t ORDER BY b LIMIT 1", "sqlite", None),
        ("SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b", "postgres", None),
        ("SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", "sqlite", None),
        ("SELECT a FROM t ORDER BY b", "no dialect", None),
        ("SELECT a FROM t", "sqlite", None),
    ],
)
def test_the_rank_is_appended_to_a_plain_select(sql, dialect, want):
    found = with_order_keys(sql, dialect)
    assert found == (want and (want.format("DENSE_RANK() OVER "), 1))


@pytest.mark.parametrize(
    ("sql", "names", "want"),
    [
        ("SELECT * FROM t ORDER BY 2, a", ["a", "b"], "c2, c1"),
        ("SELECT a FROM t UNION SELECT b FROM u ORDER BY A DESC", ["a"], "c1 DESC"),
        (
            "SELECT * FROM t ORDER BY (2) COLLATE NOCASE, (a) NULLS LAST -- ;",
            ["a", "b"],
            "c2 COLLATE NOCASE, c1 NULLS LAST",
        ),
        ("SELECT * FROM t JOIN u ORDER BY a", ["a", "a"], None),
        ("SELECT * FROM t ORDER BY a + 1", ["a"], None),
        ("SELECT * FROM t ORDER BY 3", ["a"], None),
    ],
)
def test_keys_are_found_among_the_columns_of_the_result(sql, names, want):
    found = around_order_keys(sql, names)
    assert (found and found.sql.partition("OVER (ORDER BY ")[2].partition(") FROM")[0]) == want


@pytest.mark.parametrize(
    ("sql", "want"),
    [
        ("SELECT a FROM t ORDER BY b LIMIT 3", ("SELECT a FROM t ORDER BY b", 0)),
        ("SELECT a FROM t ORDER BY b LIMIT 2, 3", ("SELECT a FROM t ORDER BY b", 2)),
        ("SELECT a FROM t ORDER BY b LIMIT 3 OFFSET 4", ("SELECT a FROM t ORDER BY b", 4)),
        (
            "SELECT a FROM t UNION SELECT b FROM t ORDER BY 1 LIMIT 3",
            ("SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", 0),
        ),
        ("SELECT a FROM t ORDER BY b LIMIT 1 + 1", ("SELECT a FROM t ORDER BY b", 0)),
        ("SELECT a FROM t ORDER BY b LIMIT -1 OFFSET 2", ("SELECT a FROM t ORDER BY b", 2)),
        ("SELECT a FROM t LIMIT 3", ("SELECT a FROM t", 0)),
        ("SELECT a FROM t ORDER BY b LIMIT 3 OFFSET 1 + 1", None),
        ("SELECT a FROM t ORDER BY (SELECT b FROM u LIMIT 1)", None),
        ("SELECT a FROM t ORDER BY b", None),
    ],
)
def test_a_limit_is_cut_off_and_its_offset_is_read(sql, want):
    assert limit_of(sql) == want


def test_rows_with_the_same_keys_share_a_place():
    assert tied_places([("x", 1, 2), ("y", 1, 2), ("z", 1, 3), ("x", 2, 3)], 2) == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("sql", "dialect", "want"),
    [
        ("(SELECT a FROM t ORDER BY a)", "duckdb", True),
        ("((SELECT a FROM t) ORDER BY a)", "postgres", True),
        ("(SELECT a FROM t ORDER BY a) UNION (SELECT b FROM t)", "postgres", False),
        ("SELECT a FROM t ORDER /* by */ BY a", "sqlite", True),
    ],
)
def test_brackets_and_comments_do_not_hide_an_order(sql, dialect, want):
    assert is_ordered(sql, dialect) is want


@pytest.mark.parametrize(
    ("sql", "dialect", "key"),
    [
        # SQLite reads these as a column's number or alias, also in brackets and with a collation (resolve.c).
        ("SELECT a, b AS c FROM t ORDER BY (2) DESC", "sqlite", "(b) DESC"),
        ("SELECT a, b AS c FROM t ORDER BY 2 COLLATE NOCASE", "sqlite", "(b) COLLATE NOCASE"),
        ("SELECT a, b AS c FROM t ORDER BY ((c) COLLATE RTRIM) ASC", "sqlite", "(b) COLLATE RTRIM ASC"),
        ("SELECT a, b AS c FROM t ORDER BY (c) NULLS LAST", "postgres", "(b) NULLS LAST"),
        # Columns that have the name of a direction or a clause.
        ("SELECT a FROM t ORDER BY t.last", "sqlite", "t.last"),
        ("SELECT a FROM t ORDER BY t.first DESC NULLS LAST, b", "sqlite", "t.first DESC NULLS LAST, b"),
        ('SELECT a FROM t ORDER BY t."desc"', "sqlite", 't."desc"'),
        ("SELECT a FROM t ORDER BY t.offset, a", "sqlite", "t.offset, a"),
        ("(SELECT a FROM t ORDER BY b)", "duckdb", "b"),
    ],
)
def test_keys_have_the_same_meaning_as_in_the_database(sql, dialect, key):
    found = with_order_keys(sql, dialect)
    assert found is not None
    assert f", DENSE_RANK() OVER (ORDER BY {key}) FROM" in found.sql


@pytest.mark.parametrize("key", ["+2", "1 + 1", "-1"])
def test_keys_without_a_name_are_not_ranked(key):
    assert with_order_keys(f"SELECT a, b FROM t ORDER BY {key}") is None


def test_fetch_first_is_cut_off_like_a_limit():
    query = "SELECT a FROM t ORDER BY b"
    assert limit_of(f"{query} OFFSET 2 ROWS FETCH FIRST 3 ROWS ONLY", "postgres") == (query, 2)
    assert limit_of(f"({query} LIMIT 3)", "postgres") == (query, 0)
