"""Features of gold queries, by which reports are sliced."""

import pytest

from sqlquarry.records import Record
from sqlquarry.sql.features import features, query_features

SCHEMA = "".join(f"CREATE TABLE t{i} (id INT, a INT);\n" for i in range(5))

# Levels of the Spider paper and its evaluation script for these queries, or for queries of the same shape.
HARDNESS = [
    ("SELECT count(*) FROM singer", "easy"),
    ("SELECT DISTINCT country FROM singer WHERE age > 20", "easy"),
    ("SELECT name, country, age FROM singer ORDER BY age DESC", "medium"),
    ("SELECT avg(age), min(age), max(age) FROM singer WHERE country = 'France'", "medium"),
    ("SELECT country, count(*) FROM singer GROUP BY country", "medium"),
    ("SELECT T2.name, count(*) FROM concert AS T1 JOIN stadium AS T2 ON T1.sid = T2.sid GROUP BY T1.sid", "medium"),
    ("SELECT name FROM stadium WHERE sid NOT IN (SELECT sid FROM concert)", "hard"),
    ("SELECT a FROM s UNION SELECT b FROM s", "hard"),
    ("SELECT T2.name FROM c AS T1 JOIN s AS T2 ON T1.i = T2.i GROUP BY T2.i ORDER BY count(*) DESC LIMIT 1", "extra"),
    ("SELECT name FROM s WHERE a = 1 OR b = 2", "medium"),
    ("SELECT name FROM s WHERE a LIKE '%x%' AND b = 2 AND NOT c = 3", "medium"),
    ("SELECT name FROM s WHERE a > (SELECT avg(a) FROM s WHERE b = 1) AND c = 2", "extra"),
]


@pytest.mark.parametrize(("sql", "level"), HARDNESS)
def test_hardness(sql, level):
    assert query_features(sql, "sqlite")["hardness"] == level


def test_slices_of_a_record():
    sql = "SELECT x.a, count(*) FROM t1 AS x JOIN t2 ON x.id = t2.id WHERE x.a IN (SELECT a FROM t3) GROUP BY x.a"
    assert features(Record("q", SCHEMA, sql)) == {
        "tables": "3",
        "joins": "1",
        "aggregates": "yes",
        "grouping": "yes",
        "nesting": "1 level",
        "set operations": "none",
        "hardness": "extra",
        "schema size": "4-6 tables",
    }


def test_nesting_and_set_operations():
    deep = query_features("SELECT a FROM t WHERE a IN (SELECT a FROM u WHERE EXISTS (SELECT 1 FROM v))", "sqlite")
    assert deep["nesting"] == "2+ levels"
    both = query_features("SELECT a FROM t EXCEPT SELECT a FROM u", "sqlite")
    assert (both["nesting"], both["set operations"], both["tables"]) == ("none", "except", "2")
    named = query_features("WITH r AS (SELECT a FROM t) SELECT a FROM r JOIN r AS s JOIN r AS u JOIN r AS v", "sqlite")
    assert (named["nesting"], named["tables"], named["joins"]) == ("1 level", "1", "3+")


@pytest.mark.parametrize("sql", [None, "SELECT FROM WHERE", "DROP TABLE t", "SELECT 1; SELECT 2"])
def test_no_slices_if_the_query_is_unknown(sql):
    assert features(Record("q", SCHEMA, sql)) == {}


def test_unreadable_schema():
    assert features(Record("q", "no tables here", "SELECT 1"))["schema size"] == "unknown"
