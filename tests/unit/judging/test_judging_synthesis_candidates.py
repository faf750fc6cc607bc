"""The inputs of candidate databases and their rows: schemas, hints, mutants and values."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlquarry.errors import JudgingError
from sqlquarry.judging.synthesis.candidate_database import CandidateDatabase, GoldVariants
from sqlquarry.judging.synthesis.candidate_rows import CandidateRows
from sqlquarry.judging.synthesis.determinacy import other_choices
from sqlquarry.judging.synthesis.hint_reader import gather_hints
from sqlquarry.judging.synthesis.mutants import mutants
from sqlquarry.sql.portable_ddl import schema_in_sqlite
from sqlquarry.sql.resolver import read_query

SHOP = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name VARCHAR(8) NOT NULL, email TEXT UNIQUE, city TEXT);
CREATE TABLE purchase (
    id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer (id),
    twin INTEGER REFERENCES purchase (id),
    price REAL CHECK (price > 0), status TEXT CHECK (status IN ('open', 'paid')), day DATE,
    UNIQUE (customer_id, day)
);
"""


def texts_of(sql: str, schema: str = SHOP) -> list[str]:
    found = read_query(sql, schema_in_sqlite(schema, "sqlite"))
    assert found is not None
    return mutants(*found)


def test_a_schema_has_the_kinds_and_constraints_of_its_columns():
    schema = schema_in_sqlite(SHOP, "sqlite")
    assert list(schema.tables) == ["customer", "purchase"]
    customer, purchase = schema.tables.values()
    assert [(c.name, c.kind, c.required, c.unique, c.length) for c in customer.columns.values()] == [
        ("id", "integer", True, True, None),
        ("name", "text", True, False, 8),
        ("email", "text", False, True, None),
        ("city", "text", False, False, None),
    ]
    assert {(key.columns, key.table, key.targets) for key in purchase.foreign_keys} == {
        (("customer_id",), "customer", ("id",)),
        (("twin",), "purchase", ("id",)),
    }
    assert [c.kind for c in purchase.columns.values()][3:] == ["real", "text", "date"]


@pytest.mark.parametrize(
    ("text", "dialect", "columns"),
    [
        ("CREATE TABLE t (1987 VARCHAR, tournament VARCHAR)", "sqlite", ["1987", "tournament"]),
        ("CREATE TABLE t (order VARCHAR, group INTEGER, `a b` TEXT)", "sqlite", ["order", "group", "a b"]),
        ("CREATE TABLE table (a VARCHAR)", "sqlite", ["a"]),
        ("CREATE TABLE t (a GEOMETRY(POINT, 4326), b HYPERLOGLOG)", "sqlite", ["a", "b"]),
        ("CREATE TABLE t (a ENUM('x', 'y'), b INT UNSIGNED AUTO_INCREMENT PRIMARY KEY)", "mysql", ["a", "b"]),
        ("CREATE TABLE t (a JSONB, b TIMESTAMPTZ DEFAULT now(), c TEXT[])", "postgres", ["a", "b", "c"]),
        ("CREATE TABLE t (a VARCHAR); CREATE TABLE T (A VARCHAR, b INTEGER)", "sqlite", ["a", "b"]),
        ("CREATE TABLE t (a VARCHAR, a VARCHAR, b TEXT DEFAULT ';')", "sqlite", ["a", "b"]),
        ("DROP TABLE t; CREATE TABLE t (a); INSERT INTO t VALUES (1); ATTACH 'x.db' AS x", "sqlite", ["a"]),
    ],
)
def test_real_schemas_are_read(text, dialect, columns):
    (table,) = schema_in_sqlite(text, dialect).tables.values()
    assert [column.name for column in table.columns.values()] == columns


def test_a_schema_that_cannot_be_read_is_refused():
    with pytest.raises(JudgingError, match="'a table of people'"):
        schema_in_sqlite("a table of people", "sqlite")
    with pytest.raises(JudgingError, match=r"'CREATE TABLE t \(\(\('"):
        schema_in_sqlite("CREATE TABLE t (((", "sqlite")


def test_parents_come_first_and_cycles_are_broken():
    schema = schema_in_sqlite(
        "CREATE TABLE a (x INT REFERENCES b (y)); CREATE TABLE b (y INT PRIMARY KEY REFERENCES c (z));"
        "CREATE TABLE c (z INT PRIMARY KEY, w INT REFERENCES b (y))",
        "sqlite",
    )
    assert list(schema.tables).index("b") < list(schema.tables).index("a")
    assert set(schema.tables) == {"a", "b", "c"}


def test_double_quotes_are_names_first_and_strings_otherwise():
    schema = schema_in_sqlite(SHOP, "sqlite")
    hints = gather_hints(['SELECT name FROM customer WHERE "city" = "Oslo" AND name = "city"'], schema)
    assert hints.conditions["customer", "city"] == {("=", "Oslo"): None}
    assert ("customer", "name") not in hints.conditions
    assert hints.domain(("customer", "city")) == hints.domain(("customer", "name"))


def test_hints_contain_the_comparisons_of_queries():
    sql = (
        "SELECT T1.name FROM customer AS T1 JOIN purchase AS T2 ON T1.id = T2.customer_id "
        "WHERE T2.price BETWEEN 2 AND 5 AND T1.city LIKE '%slo%' "
        "AND 7 > T2.id GROUP BY T2.customer_id HAVING COUNT(*) >= 4 ORDER BY T2.day LIMIT 3"
    )
    hints = gather_hints([sql], schema_in_sqlite(SHOP, "sqlite"))
    assert set(hints.conditions["purchase", "price"]) >= {(">=", 2), ("<=", 5), (">", 0)}
    assert ("like", "%slo%") in hints.conditions["customer", "city"]
    assert ("<", 7) in hints.conditions["purchase", "id"]
    assert {3, 4} <= hints.counts
    assert hints.domain(("customer", "id")) == hints.domain(("purchase", "customer_id"))
    assert ("customer", ("id",), ("name",)) in hints.dependents


def common_length(first: str, second: str) -> int:
    """Return the length of the common start of two texts."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def test_mutants_change_one_thing_each():
    sql = (
        "SELECT DISTINCT T1.name, COUNT(*) FROM customer AS T1 JOIN purchase AS T2 ON T1.id = T2.customer_id "
        "WHERE T2.price > 5 AND T1.city = 'Oslo' GROUP BY T1.id HAVING SUM(T2.price) < 9 ORDER BY COUNT(*) DESC LIMIT 3"
    )
    found = texts_of(sql)
    assert sql not in found
    for text in found:
        start = common_length(sql, text)
        end = common_length(sql[start:][::-1], text[start:][::-1])
        assert len(sql) - start - end <= len(" JOIN purchase AS T2 ON T1.id = T2.customer_id"), text
    joined = "\n".join(found)
    for change in (
        "T2.price >= 5",
        "T2.price > 6",
        "T1.city = 'oSLO'",
        "5 OR T1.city",
        "AVG(T2.price) < 9",
        "LEFT JOIN",
        "LIMIT 4",
        'COUNT("t1"."city")',
        'T1."email"',
        "SELECT T1.name, COUNT(*) FROM customer AS T1 JOIN purchase AS T2 ON T1.id = T2.customer_id WHERE",
        "HAVING SUM(T2.price) < 9 LIMIT",
        "ORDER BY COUNT(*) ASC LIMIT",
        "customer AS T1, purchase AS T2 WHERE",
        "9 ORDER BY COUNT(*) DESC\n",
    ):
        assert change in joined + "\n", change
    assert len(found) == len(set(found))


def test_mutants_of_set_operations_and_subqueries():
    found = texts_of("SELECT city FROM customer UNION SELECT status FROM purchase WHERE id NOT IN (SELECT 1)")
    joined = "\n".join(found)
    for change in ("UNION ALL", "INTERSECT", "EXCEPT", "id IN (SELECT", "(SELECT 2)"):
        assert change in joined, change
    assert "SELECT city FROM customer" in found


def test_mutating_leaves_the_query_unchanged():
    sql = "SELECT MAX(price) FROM purchase WHERE status <> 'open' AND id IN (1, 2)"
    found = read_query(sql, schema_in_sqlite(SHOP, "sqlite"))
    assert found is not None
    before = found[0].sql()
    mutants(*found)
    assert found[0].sql() == before


AMBIGUOUS = [
    "SELECT name FROM customer LIMIT 1",
    "SELECT name FROM customer ORDER BY city LIMIT 1",
    "SELECT city FROM customer ORDER BY city LIMIT 2",
    "SELECT city, name FROM customer GROUP BY city",
    "SELECT email FROM customer WHERE id = (SELECT id FROM customer ORDER BY city LIMIT 1)",
]
DETERMINED = [
    "SELECT name FROM customer ORDER BY city",
    "SELECT city, MAX(id), name FROM customer GROUP BY city",
    "SELECT name FROM customer ORDER BY id LIMIT 1",
    "SELECT city, COUNT(*) FROM customer GROUP BY city ORDER BY COUNT(*) DESC LIMIT 1",
    "SELECT id, name FROM customer GROUP BY id",
]


@pytest.mark.parametrize(("sql", "determined"), [(s, False) for s in AMBIGUOUS] + [(s, True) for s in DETERMINED])
def test_a_query_with_several_right_answers_is_detected(sql, determined):
    schema = schema_in_sqlite(SHOP, "sqlite")
    database = CandidateDatabase(schema)
    people = [(1, "a", "x@", "Oslo"), (2, "b", "y@", "Oslo"), (3, "c", "z@", "Rome"), (4, "d", "w@", "Oslo")]
    database.fill({"customer": people, "purchase": []})
    gold = GoldVariants(sql, schema)
    expected = database.expected(gold)
    assert expected is not None
    assert database.is_determined(gold, expected) is determined


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM customer WHERE id = 1",
        "SELECT name, (SELECT COUNT(*) FROM purchase WHERE customer_id = customer.id) FROM customer",
        "SELECT price, SUM(price) OVER (ORDER BY id) FROM purchase",
        "SELECT UPPER(city), COUNT(*) FROM customer GROUP BY 1",
        "SELECT UPPER(city) AS town, COUNT(*) FROM customer GROUP BY town",
        "SELECT status, COUNT(*) FILTER (WHERE price > 3) FROM purchase GROUP BY status",
    ],
)
def test_a_query_without_choices_has_no_variants(sql):
    assert other_choices(sql, schema_in_sqlite(SHOP, "sqlite")) == []


QUERIES = [
    "SELECT name FROM customer WHERE city = 'Oslo' AND id > 3",
    "SELECT SUM(price) FROM purchase WHERE status = 'gone' OR day < '2020-02-29' OR price = -4",
    "SELECT T1.name FROM customer AS T1 JOIN purchase AS T2 ON T1.id = T2.customer_id WHERE T1.email LIKE '%a%'",
    "SELECT customer_id FROM purchase GROUP BY customer_id HAVING COUNT(*) > 4",
]


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(QUERIES), st.integers(0, 25))
def test_every_database_satisfies_the_schema(seed, sql, number):
    schema = schema_in_sqlite(SHOP, "sqlite")
    database = CandidateDatabase(schema)
    database.fill(CandidateRows(schema, gather_hints([sql], schema), str(seed)).make(number))
    strict = sqlite3.connect(":memory:")
    strict.execute("PRAGMA foreign_keys = ON")
    for statement in schema.ddl:
        strict.execute(statement)
    stored = database.stored()
    for name, rows in stored.items():
        for row in sorted(rows, key=lambda row: row[0]):
            strict.execute("PRAGMA defer_foreign_keys = ON")
            strict.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
    strict.commit()  # deferred foreign keys are checked here
    assert all(len(name) <= 8 for _, name, _, _ in stored["customer"])
    assert all(isinstance(row[0], int) for rows in stored.values() for row in rows)
    database.close()


NUMBERS = st.integers(0, 10**5)


@given(st.lists(NUMBERS, min_size=1, max_size=3), st.sampled_from(["<", "<=", ">", ">=", "=", "<>"]))
def test_numbers_stored_as_text_sort_the_same_as_numbers(literals, sign):
    schema = schema_in_sqlite("CREATE TABLE t (a VARCHAR, b VARCHAR)", "sqlite")
    where = " OR ".join(f"a {sign} {literal}" for literal in literals)
    pool = CandidateRows(schema, gather_hints([f"SELECT b FROM t WHERE {where}"], schema), "0").pools["t", "a"]
    added = [value for value in (*pool.hits, *pool.near) if value not in literals]
    for value in added:
        for other in (*added, *literals):
            assert (str(value) < str(other)) == (float(value) < float(other)), (value, other)


def test_hits_and_misses_are_on_both_sides_of_a_boundary():
    schema = schema_in_sqlite("CREATE TABLE t (a INTEGER, b TEXT, d DATE)", "sqlite")
    sql = "SELECT * FROM t WHERE a > 56 AND b LIKE 'x%' AND d >= '2020-03-01'"
    pools = CandidateRows(schema, gather_hints([sql], schema), "0").pools
    assert {57} <= set(pools["t", "a"].hits)
    assert {55, 56} <= set(pools["t", "a"].near)
    assert "x" in pools["t", "b"].hits
    assert "2020-03-01" in pools["t", "d"].hits
    assert "2020-02-29" in pools["t", "d"].near
