"""The three answers for pairs of queries. Every claim is checked against databases."""

import itertools
import random
import sqlite3
from collections import Counter

import pytest

from sqlquarry.errors import JudgingError
from sqlquarry.judging.equivalence import EquivalenceGrader
from sqlquarry.judging.equivalence.grader import equivalence
from sqlquarry.records import Record
from sqlquarry.results.comparison import results_equal
from sqlquarry.sql.ddl import read_schema

SCHEMA = """CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, b TEXT, n INT NOT NULL);
CREATE TABLE u (id INTEGER PRIMARY KEY, t_id INT, c TEXT, x REAL)"""

EQUIVALENT = [
    ("SELECT b FROM t WHERE a > 5", "select T.B from T as T where 5 < T.A"),
    ("SELECT a, b FROM t", "SELECT b AS first, a AS second FROM t"),
    ("SELECT b FROM t WHERE b = 'x'", 'SELECT b FROM t WHERE b = "x"'),
    ("SELECT b FROM t WHERE a = 1 AND b = 'x'", "SELECT b FROM t WHERE (b = 'x') AND (a = 1)"),
    ("SELECT b FROM t WHERE a BETWEEN 1 AND 3", "SELECT b FROM t WHERE a >= 1 AND a <= 3"),
    ("SELECT b FROM t WHERE a IN (1, 2, 2)", "SELECT b FROM t WHERE a = 2 OR a = 1"),
    ("SELECT b FROM t WHERE a NOT IN (1, 2)", "SELECT b FROM t WHERE NOT (a = 2 OR a = 1)"),
    ("SELECT a FROM t WHERE NOT (a > 1 AND b = 'x')", "SELECT a FROM t WHERE a <= 1 OR b <> 'x'"),
    ("SELECT t.b FROM t JOIN u ON t.id = u.t_id", "SELECT x.b FROM u AS y, t AS x WHERE y.t_id = x.id"),
    ("SELECT t.id FROM t JOIN u ON t.id = u.t_id", "SELECT u.t_id FROM t JOIN u ON t.id = u.t_id"),
    ("SELECT T1.b FROM t T1, t T2 WHERE T1.a = T2.id", "SELECT y.b FROM t x JOIN t y ON y.a = x.id"),
    ("SELECT b FROM t NATURAL JOIN u", "SELECT b FROM t JOIN u USING (id)"),
    ("SELECT b FROM t JOIN u USING (id)", "SELECT b FROM u INNER JOIN t ON u.id = t.id"),
    ("SELECT count(*) FROM t", "SELECT count(1) FROM t"),
    ("SELECT count(*) FROM t", "SELECT count(n) FROM t"),
    ("SELECT count(*) FROM t", "SELECT count(id) FROM t"),
    ("SELECT count(*) FROM t", "WITH r AS (SELECT a FROM t) SELECT count(*) FROM r"),
    ("SELECT b FROM t WHERE a > 2", "SELECT s.b FROM (SELECT b, a AS z FROM t) AS s WHERE s.z > 2"),
    ("SELECT DISTINCT a, b FROM t", "SELECT a, b FROM t GROUP BY b, a"),
    ("SELECT b, count(*) FROM t GROUP BY b", "SELECT DISTINCT count(*), b FROM t GROUP BY 2"),
    ("SELECT b FROM t GROUP BY b HAVING count(*) > 1", "SELECT b FROM t GROUP BY b HAVING 2 <= count(*)"),
    ("SELECT max(a) FROM t", "SELECT max(DISTINCT t.a) FROM t"),
    ("SELECT a FROM t UNION SELECT id FROM u", "SELECT DISTINCT id FROM u UNION SELECT a FROM t"),
    ("SELECT a FROM t UNION ALL SELECT id FROM u", "SELECT id FROM u UNION ALL SELECT a FROM t"),
    ("SELECT * FROM (SELECT a, b FROM t EXCEPT SELECT id, c FROM u)", "SELECT a, b FROM t EXCEPT SELECT id, c FROM u"),
    (
        "SELECT b FROM t WHERE id IN (SELECT t_id FROM u)",
        "SELECT b FROM t WHERE id IN (SELECT DISTINCT y.t_id FROM u y)",
    ),
    (
        "SELECT b FROM t WHERE EXISTS (SELECT * FROM u WHERE u.t_id = t.id)",
        "SELECT b FROM t AS o WHERE EXISTS (SELECT 1 FROM u WHERE o.id = u.t_id)",
    ),
    ("SELECT b FROM t ORDER BY a LIMIT 1", "SELECT t.b FROM t ORDER BY t.a ASC LIMIT 1"),
    ("SELECT b FROM t ORDER BY a", "SELECT b FROM t ORDER BY a, n"),
    ("SELECT a + 1 FROM t", "SELECT 1 + a FROM t"),
    ("SELECT * FROM t", "SELECT id, a, b, n FROM t"),
    ("SELECT a AS n FROM t WHERE n > 3", "SELECT a FROM t WHERE t.n > 3"),  # the column, not the alias
    ("SELECT a AS z FROM t WHERE z > 3", "SELECT a FROM t WHERE a > 3"),  # SQLite: an alias in WHERE
    ("SELECT DISTINCT id, b FROM t", "SELECT b, id FROM t"),  # no two rows are the same
    ("SELECT DISTINCT * FROM t", "SELECT * FROM t"),
    # At most one row of t has this id, so IN repeats no row and drops none that the join keeps.
    (
        "SELECT c FROM u WHERE t_id IN (SELECT id FROM t WHERE a > 1)",
        "SELECT c FROM u JOIN t ON t_id = t.id WHERE a > 1",
    ),
    ("SELECT count(*) FROM u WHERE t_id IN (SELECT id FROM t)", "SELECT count(*) FROM t, u WHERE t.id = t_id"),
    # If duplicates are removed, it does not matter how many rows of the other table a row matches.
    ("SELECT DISTINCT b FROM t WHERE id IN (SELECT t_id FROM u)", "SELECT DISTINCT b FROM t JOIN u ON t.id = t_id"),
    ("SELECT b FROM t JOIN u ON t.id = t_id GROUP BY b", "SELECT DISTINCT b FROM t WHERE id IN (SELECT t_id FROM u)"),
    (
        "SELECT DISTINCT t.b FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.t_id = t.id AND c = 'x')",
        "SELECT DISTINCT t.b FROM u JOIN t ON u.t_id = t.id WHERE u.c = 'x'",
    ),
    (
        "SELECT id, b FROM t WHERE id IN (SELECT t_id FROM u WHERE c = 'x')",
        "SELECT t.id, b FROM t JOIN u ON t.id = t_id WHERE c = 'x' GROUP BY t.id, b",
    ),
    (
        "SELECT b FROM (SELECT a, b FROM t) AS q WHERE a = (SELECT x FROM u ORDER BY c LIMIT 1)",
        "SELECT b FROM t WHERE a = (SELECT x FROM u ORDER BY c LIMIT 1)",
    ),
]

DIFFERENT = [
    ("SELECT a FROM t", "SELECT a, b FROM t"),
    ("SELECT a FROM t", "SELECT zz FROM t"),
    ("SELECT a FROM t", "SELECT a FROM missing"),
    ("SELECT b FROM t WHERE a = 5", "SELECT b FROM t WHERE a = 6"),
    ("SELECT b FROM t WHERE b = 'x'", "SELECT b FROM t WHERE b = 'y'"),
    ("SELECT b FROM t WHERE a > 5", "SELECT b FROM t WHERE a < 5"),
    ("SELECT b FROM t WHERE a > 5", "SELECT b FROM t WHERE a >= 5"),
    ("SELECT b FROM t WHERE a = 5", "SELECT b FROM t"),
    ("SELECT count(*) FROM t WHERE a = 5", "SELECT count(*) FROM t WHERE n = 5"),
    ("SELECT a FROM t", "SELECT n FROM t"),
    ("SELECT max(a) FROM t", "SELECT min(a) FROM t"),
    ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a DESC"),
]

# Similar queries whose results differ, or may differ, on some database. They must never be "equivalent".
NOT_EQUIVALENT = [
    ("SELECT count(*) FROM t", "SELECT count(a) FROM t"),  # NULL
    ("SELECT DISTINCT b FROM t", "SELECT b FROM t"),
    ("SELECT b FROM t WHERE b = 'a'", 'SELECT b FROM t WHERE b = "a"'),  # "a" is a column
    ("SELECT b FROM t WHERE b = 'x'", "SELECT b FROM t WHERE b = 'X'"),
    ("SELECT b FROM t WHERE a = 5", "SELECT b FROM t WHERE a = '5'"),
    ("SELECT t.b FROM t LEFT JOIN u ON t.id = u.t_id", "SELECT t.b FROM t JOIN u ON t.id = u.t_id"),
    (
        "SELECT t.b FROM t LEFT JOIN u ON t.id = u.t_id AND u.x > 1",
        "SELECT t.b FROM t LEFT JOIN u ON t.id = u.t_id WHERE u.x > 1",
    ),
    ("SELECT a - n FROM t", "SELECT n - a FROM t"),
    ("SELECT a FROM t UNION SELECT n FROM t", "SELECT a FROM t UNION ALL SELECT n FROM t"),
    ("SELECT a FROM t EXCEPT SELECT n FROM t", "SELECT n FROM t EXCEPT SELECT a FROM t"),
    ("SELECT b FROM t ORDER BY a", "SELECT b FROM t ORDER BY n"),
    ("SELECT b FROM t ORDER BY a, n", "SELECT b FROM t ORDER BY a"),
    ("SELECT b FROM t ORDER BY a", "SELECT b FROM t"),
    (
        "SELECT b FROM t WHERE a NOT IN (SELECT t_id FROM u)",
        "SELECT b FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE t_id = a)",
    ),
    ("SELECT b FROM t, u LIMIT 3", "SELECT b FROM u, t LIMIT 3"),  # which rows come first
    ("SELECT b, a FROM t GROUP BY b", "SELECT b, a FROM t GROUP BY b ORDER BY a"),  # a of which row?
    ("SELECT group_concat(a) FROM t, u", "SELECT group_concat(a) FROM u, t"),
    ("SELECT t.b FROM t JOIN u ON t.b = u.x AND u.x > 1", "SELECT t.b FROM t JOIN u ON t.b = u.x AND t.b > 1"),  # types
    ("SELECT u.x FROM t JOIN u ON t.a = u.x", "SELECT t.a FROM t JOIN u ON t.a = u.x"),
    ("SELECT a FROM t WHERE a > 5", "SELECT a FROM t WHERE a >= 6"),  # SQLite may hold 5.5
    ("SELECT sum(a) FROM t", "SELECT total(a) FROM t"),
    ("SELECT a = 1 AND n = 1 FROM t", "SELECT n = 1 OR a = 1 FROM t"),
    ("SELECT (a + n) * n FROM t", "SELECT a + n * n FROM t"),
    ("SELECT random() FROM t", "SELECT random() FROM t"),
    ("SELECT b FROM t WHERE a = '5'", "SELECT b FROM t WHERE +a = '5'"),
    ("SELECT b FROM t WHERE a = (SELECT x FROM t, u)", "SELECT b FROM t WHERE a = (SELECT x FROM u, t)"),
    (
        "SELECT b FROM t WHERE a = (SELECT x + (SELECT max(a) FROM t) FROM t, u)",
        "SELECT b FROM t WHERE a = (SELECT x + (SELECT max(a) FROM t) FROM u, t)",
    ),
    ("WITH t AS (SELECT a FROM t) SELECT a FROM t", "SELECT a FROM t"),  # a circular reference in SQLite
    ("WITH r AS (SELECT a FROM u), u AS (SELECT a FROM t) SELECT a FROM r", "SELECT a FROM u"),
    ("SELECT b FROM t WHERE NOT a > 5 LIMIT 2", "SELECT b FROM t WHERE a <= 5 LIMIT 2"),
    ("SELECT max(a), min(n), b FROM t", "SELECT min(n), max(a), b FROM t"),
    (
        "SELECT 1 FROM t WHERE a IN (SELECT id FROM u UNION SELECT c FROM u)",
        "SELECT 1 FROM t WHERE a IN (SELECT c FROM u UNION SELECT id FROM u)",
    ),
    ("SELECT c FROM u WHERE t_id IN (SELECT n FROM t)", "SELECT c FROM u JOIN t ON t_id = n"),  # n is not a key
    ("SELECT b FROM t WHERE id IN (SELECT t_id FROM u)", "SELECT b FROM t JOIN u ON t.id = t_id"),
    ("SELECT DISTINCT b FROM t WHERE n NOT IN (SELECT t_id FROM u)", "SELECT DISTINCT b FROM t JOIN u ON n <> t_id"),
    ("SELECT DISTINCT b FROM t WHERE EXISTS (SELECT max(id) FROM u)", "SELECT DISTINCT b FROM t, u"),
    ("SELECT count(b) FROM t WHERE id IN (SELECT t_id FROM u)", "SELECT count(b) FROM t JOIN u ON t.id = t_id"),
    ("SELECT c FROM u WHERE x IN (SELECT id FROM t)", "SELECT c FROM u JOIN t ON x = t.id"),  # other types
    ("SELECT DISTINCT t.id, c FROM t JOIN u ON t.id = t_id", "SELECT t.id, c FROM t JOIN u ON t.id = t_id"),
    (
        "SELECT b FROM t WHERE a = (SELECT x FROM t, u ORDER BY c LIMIT 1)",
        "SELECT b FROM t WHERE a = (SELECT x FROM u, t ORDER BY c LIMIT 1)",
    ),
    (
        "SELECT a FROM t WHERE a = (SELECT x FROM u LEFT JOIN t USING (id) WHERE b IS NOT NULL LIMIT 1)",
        "SELECT a FROM t WHERE a = (SELECT x FROM u LEFT JOIN t USING (id) WHERE NOT b IS NULL LIMIT 1)",
    ),
    ("DELETE FROM t", "DELETE FROM t"),
    ("SELECT `zz` FROM t", 'SELECT "zz" FROM t'),
]


@pytest.mark.parametrize(("gold", "predicted"), EQUIVALENT)
def test_equivalent(gold, predicted):
    assert equivalence(gold, predicted, SCHEMA).answer == "equivalent"
    for database in databases(5):
        assert same_on(database, gold, predicted)


@pytest.mark.parametrize(("gold", "predicted"), DIFFERENT)
def test_different(gold, predicted):
    assert equivalence(gold, predicted, SCHEMA).answer == "different"
    assert not all(same_on(database, gold, predicted) for database in databases(40))


@pytest.mark.parametrize(("gold", "predicted"), NOT_EQUIVALENT)
def test_never_called_equivalent(gold, predicted):
    assert equivalence(gold, predicted, SCHEMA).answer != "equivalent"


def test_all_pairs_of_many_queries_against_databases():
    """Check 10,000 pairs: equivalent ones agree on every database, different ones differ on some database."""
    outputs = ["a", "b, a", "a, b", "DISTINCT b", "count(*)", "count(a)", "count(n)", "max(a)", "min(a)", "b, count(*)"]
    filters = [
        "",
        "WHERE a > 1",
        "WHERE 1 < a",
        "WHERE a >= 2",
        "WHERE a = 1 OR a = 2",
        "WHERE a IN (2, 1)",
        "WHERE b = 'x'",
    ]
    filters += ["WHERE NOT a <> 1", "WHERE a = 1", "WHERE b = 'y' AND a = 1"]
    sources = [
        "t",
        "t JOIN u ON t.id = u.t_id",
        "u, t {} t_id = t.id",
        "(SELECT id, n, a, b FROM t)",
        "t LEFT JOIN u ON t.id = t_id",
    ]
    queries = []
    for output, where, source in itertools.product(outputs, filters, sources):
        text = f"{source} {where}"
        if "{}" in source:
            text = source.format(f"{where} AND" if where else "WHERE")
        if " OR a = 2 AND" not in text:
            queries.append(f"SELECT {output} FROM {text}" + (" GROUP BY b" if "b, count" in output else ""))
    files = databases(60)
    answers = {query: [rows_of(file, query) for file in files] for query in queries}
    found = Counter()
    for gold, predicted in itertools.product(queries[::4], queries[1::4]):
        answer = equivalence(gold, predicted, SCHEMA, counterexamples=False).answer
        found[answer] += 1
        same = (results_equal(x, y, ordered=False) for x, y in zip(answers[gold], answers[predicted], strict=True))
        assert answer == "unknown" or all(same) == (answer == "equivalent"), (gold, predicted, answer)
    assert found["equivalent"] > 100
    assert found["different"] > 2_000


def test_grader_accepts_any_of_several_golds():
    record = Record("q", SCHEMA, "SELECT a FROM t", alternatives=("SELECT n FROM t",))
    grader = EquivalenceGrader()
    assert grader.grade(record, "SELECT t.n FROM t").verdict == "correct"
    assert grader.grade(record, "SELECT b, a FROM t").verdict == "wrong"
    assert grader.grade(record, "SELECT n + 0 FROM t").verdict == "unjudged"
    assert grader.grade(record, "").verdict == "wrong"
    assert grader.grade(Record("q", SCHEMA), "SELECT 1").verdict == "unjudged"
    assert grader.grade(record, "SELECT FROM WHERE").verdict == "unjudged"


def test_without_a_schema_names_are_not_resolved():
    grader = EquivalenceGrader(use_schema=False)
    record = Record("q", SCHEMA, "SELECT a FROM t WHERE b = 1")
    assert grader.grade(record, "SELECT x.a FROM t AS x WHERE 1 = x.b").verdict == "correct"
    assert grader.grade(record, "SELECT a FROM t, u WHERE b = 1").verdict == "unjudged"


def test_a_gold_that_the_schema_cannot_run_is_unknown():
    assert equivalence("SELECT zz FROM t", "SELECT a FROM t", SCHEMA).answer == "unknown"


def test_collations_make_everything_unknown():
    schema = "CREATE TABLE t (a TEXT COLLATE NOCASE, b TEXT)"
    assert equivalence("SELECT a FROM t WHERE a = b", "SELECT a FROM t WHERE b = a", schema).answer == "unknown"


def test_dialects():
    schema = 'CREATE TABLE emp (id INT, name TEXT, "Boss" TEXT)'
    assert equivalence("SELECT ID FROM EMP", "select e.id from emp e", schema, "postgres").answer == "equivalent"
    assert equivalence('SELECT "Boss" FROM emp', "SELECT boss FROM emp", schema, "postgres").answer == "unknown"
    assert equivalence("SELECT `Id` FROM emp", "SELECT id FROM emp", schema, "mysql").answer == "equivalent"
    with pytest.raises(JudgingError, match="klingon"):
        equivalence("SELECT 1", "SELECT 2", schema, "klingon")


def test_schemas_follow_the_rules_of_sqlite():
    schema = read_schema("CREATE TABLE k (id INT PRIMARY KEY, r INTEGER, s VARCHAR(3), PRIMARY KEY_ TEXT)", "sqlite")
    assert not schema.tables
    tables = read_schema("CREATE TABLE k (id INT PRIMARY KEY, s VARCHAR(3) NOT NULL, d DATE, z)", "sqlite").tables
    assert {name: (column.affinity, column.not_null) for name, column in tables["k"].columns.items()} == {
        "id": ("INTEGER", False),  # SQLite allows NULL in a key that is not INTEGER PRIMARY KEY
        "s": ("TEXT", True),
        "d": ("NUMERIC", False),
        "z": ("BLOB", False),
    }


def test_schema_text_cannot_attach_files(tmp_path):
    target = tmp_path / "new.sqlite"
    read_schema(f"ATTACH '{target}' AS x; CREATE TABLE x.t (a)", "sqlite")
    assert not target.exists()


def databases(count):
    """Return databases in memory with few distinct values, so that joins match and duplicates and NULLs occur."""
    found = []
    for seed in range(count):
        choose = random.Random(seed)
        connection = sqlite3.connect(":memory:")
        connection.executescript(SCHEMA)
        for key in range(choose.choice([1, 4, 9])):
            values = (
                choose.choice([None, 1, 2, 5, 6]),
                choose.choice([None, "x", "y", "X", "1"]),
                choose.choice([1, 2, 5]),
            )
            connection.execute("INSERT INTO t VALUES (?, ?, ?, ?)", (key, *values))
        for key in range(choose.choice([0, 3, 8])):
            values = (choose.choice([None, 0, 1, 2]), choose.choice([None, "x", "y"]), choose.choice([None, 1.0, 2.5]))
            connection.execute("INSERT INTO u VALUES (?, ?, ?, ?)", (key, *values))
        found.append(connection)
    return found


def rows_of(connection, sql):
    try:
        return connection.execute(sql).fetchall()
    except sqlite3.Error as error:
        return [(repr(error),)]


def same_on(connection, gold, predicted):
    """Return whether both queries run and return the same rows with the same number of columns."""
    try:
        cursors = [connection.execute(sql) for sql in (gold, predicted)]
    except sqlite3.Error:
        return False
    widths = {len(cursor.description) for cursor in cursors}
    ordered = gold.startswith("SELECT a FROM t ORDER BY a")
    return len(widths) == 1 and results_equal(*[cursor.fetchall() for cursor in cursors], ordered=ordered)
