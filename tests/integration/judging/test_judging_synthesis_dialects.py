"""Queries of other dialects on synthesized databases in SQLite: judged correctly, or unjudged with the reason."""

import re

import pytest

from sqlquarry.judging import ExecutionGrader
from sqlquarry.judging.synthesis import SynthesizedDatabases
from sqlquarry.records import Record

SHOP = """
CREATE TABLE buyer (id SERIAL PRIMARY KEY, name TEXT NOT NULL, city VARCHAR(30), joined DATE,
                    spent NUMERIC(9,2), orders INTEGER, active BOOLEAN, "Rank" INTEGER)
"""
SHOP_MYSQL = "CREATE TABLE buyer (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(40), city VARCHAR(30), joined DATE)"
LIKE, START = "SELECT name FROM buyer WHERE city LIKE 'L%'", "SELECT LEFT(name, 2) FROM buyer"
SINCE = "SELECT name FROM buyer WHERE joined >= DATE '2020-03-01'"
COUNTED = "SELECT city, COUNT(*) AS n FROM buyer GROUP BY city HAVING COUNT(*) > 1"
JOINED = "SELECT city, STRING_AGG(name, ',') FROM buyer GROUP BY city"
YEARS = "SELECT EXTRACT(YEAR FROM joined), COUNT(*) FROM buyer GROUP BY 1"
ACTIVE = "SELECT city, COUNT(*) FILTER (WHERE active) FROM buyer GROUP BY city"
MOST = "SELECT name, (SELECT MAX(spent) FROM buyer) FROM buyer"
ORDERED = "SELECT name FROM buyer ORDER BY id"
HIGHEST = "SELECT city, MAX(spent) FROM buyer GROUP BY city"
TWICE = "SELECT orders * 2 AS twice FROM buyer WHERE orders * 2 > 9"
TOWN = "SELECT name FROM buyer WHERE city = 'Lund'"


@pytest.fixture(scope="module")
def grade():
    grader = ExecutionGrader(SynthesizedDatabases(time_budget_s=5.0))

    def graded(gold, predicted, dialect="postgres"):
        record = Record("q", SHOP_MYSQL if dialect == "mysql" else SHOP, gold)
        object.__setattr__(
            record, "dialect", dialect
        )  # bypasses the check, because an older sqlglot may lack a dialect
        return grader.grade(record, predicted)

    return graded


def explanation(judgement, sql: str) -> str:
    """Return the reason without the query that it quotes, because the query contains every construct."""
    quoted = repr(sql[:80])
    assert quoted in judgement.reason
    return judgement.reason.replace(quoted, "")


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        (LIKE, "SELECT name FROM buyer WHERE city ILIKE 'L%'", "wrong"),
        (LIKE, LIKE.replace("'L", "'l"), "wrong"),
        (LIKE.replace("L%", "L_n[d]%"), "SELECT b.name FROM buyer b WHERE b.city LIKE 'L_n[d]%'", "correct"),
        (LIKE.replace("LIKE", "ILIKE"), "SELECT name FROM buyer WHERE LOWER(city) LIKE 'l%'", "correct"),
        (YEARS, YEARS.replace(")", ") AS y", 1).replace("BY 1", "BY y"), "correct"),
        (ACTIVE, ACTIVE.replace("COUNT(*) FILTER (WHERE active)", "COUNT(CASE WHEN active THEN 1 END)"), "correct"),
        (MOST, MOST.replace("MAX", "MIN"), "wrong"),
        (TOWN, 'SELECT "name" FROM "buyer" WHERE "city" = \'Lund\'', "correct"),
        (TOWN, "SELECT name FROM buyer WHERE city = 'lund'", "wrong"),
        ("SELECT name FROM buyer WHERE active", "SELECT name FROM buyer WHERE active = TRUE", "correct"),
        ("SELECT EXTRACT(MONTH FROM joined) FROM buyer", "SELECT date_part('month', joined) FROM buyer", "correct"),
        ("SELECT EXTRACT(MONTH FROM joined) FROM buyer", "SELECT EXTRACT(DAY FROM joined) FROM buyer", "wrong"),
        (START, "SELECT SUBSTRING(name FROM 1 FOR 2) FROM buyer", "correct"),
        ("SELECT RIGHT(name, 2) FROM buyer", "SELECT LEFT(name, 2) FROM buyer", "wrong"),
        ("SELECT CONCAT(name, city) FROM buyer", "SELECT name || COALESCE(city, '') FROM buyer", "correct"),
        ("SELECT CONCAT(name, city) FROM buyer", "SELECT name || city FROM buyer", "wrong"),
        ("SELECT CAST(spent AS INTEGER) FROM buyer", "SELECT ROUND(spent) FROM buyer", "correct"),
        (SINCE, SINCE.replace("DATE ", ""), "correct"),
        (SINCE, SINCE.replace(">=", ">"), "wrong"),
    ],
)  # fmt: skip
def test_queries_that_sqlite_can_express_are_judged(grade, gold, predicted, verdict):
    judgement = grade(gold, predicted)
    assert judgement.verdict == verdict, judgement


@pytest.mark.parametrize(
    ("gold", "predicted", "values"),
    [
        ("SELECT COALESCE(city, 'none') FROM buyer", "SELECT IFNULL(city, 'none') FROM buyer", "IFNULL"),
        ("SELECT COALESCE(city, 'none') FROM buyer", "SELECT NVL(city, 'none') FROM buyer", "NVL"),
        ("SELECT LENGTH(city) FROM buyer", "SELECT LEN(city) FROM buyer", "LEN"),
        (COUNTED, COUNTED.replace("HAVING COUNT(*)", "HAVING n"), "n HAVING"),
        (TWICE, TWICE.replace("WHERE orders * 2", "WHERE twice"), "twice WHERE"),
        (HIGHEST, HIGHEST.replace(" FROM", ", name FROM"), "name"),
        (JOINED, "SELECT city, GROUP_CONCAT(name) FROM buyer GROUP BY city", "GROUP_CONCAT"),
        (f"{ORDERED} LIMIT 2 OFFSET 1", f"{ORDERED} LIMIT 1, 2", "LIMIT comma"),
        ("SELECT COUNT(*) FROM buyer WHERE name = '5'", "SELECT COUNT(*) FROM buyer WHERE name = 5", "name 5"),
        ("SELECT name FROM buyer WHERE active", "SELECT name FROM buyer WHERE active = 1", "active 1"),
        ("SELECT name FROM buyer WHERE orders <> 0", "SELECT name FROM buyer WHERE orders", "orders"),
        ("SELECT GREATEST(orders, id) FROM buyer", "SELECT MAX(orders, id) FROM buyer", "MAX"),
        ("SELECT name FROM buyer WHERE \"Rank\" > 3", "SELECT name FROM buyer WHERE Rank > 3", "Rank"),
        ("SELECT DISTINCT city FROM buyer", "SELECT DISTINCT city FROM buyer ORDER BY name", "DISTINCT ORDER BY name"),
        ("SELECT CAST(orders AS TEXT) FROM buyer", "SELECT CAST(orders AS STRING) FROM buyer", "STRING CAST"),
        ("SELECT CAST(id AS DOUBLE PRECISION) FROM buyer", "SELECT CAST(id AS DOUBLE) FROM buyer", "DOUBLE CAST"),
        ("SELECT spent / NULLIF(orders, 0) FROM buyer", "SELECT spent / orders FROM buyer", "spent / orders 0"),
        (TOWN, TOWN.replace("name", "name,"), "comma FROM"),
        (TOWN, "SELECT name FROM buyer WHERE city == 'Lund'", "=="),
        (TOWN, "SELECT name FROM buyer WHERE `city` = 'Lund'", "sqlglot postgres"),
    ],
)  # fmt: skip
def test_what_the_dialect_refuses_is_not_accepted(grade, gold, predicted, values):
    assert grade(gold, gold).verdict == "correct"
    judgement = grade(gold, predicted)
    assert judgement.verdict == "unjudged", judgement
    assert set(values.split()) <= set(re.split(r"[\s,:]+", explanation(judgement, predicted)))


def test_a_name_in_double_quotes_is_not_text(grade):
    judgement = grade(TOWN, 'SELECT name FROM buyer WHERE city = "Lund"')
    assert (judgement.verdict, "Lund" in judgement.reason) == ("wrong", True)


@pytest.mark.parametrize(
    ("construct", "sql"),
    [
        ("CONCAT_WS", "SELECT CONCAT_WS('-', name, city) FROM buyer"),
        ("SPLIT_PART", "SELECT SPLIT_PART(name, ' ', 1) FROM buyer"),
        ("~", "SELECT name FROM buyer WHERE city ~ 'x'"),
        ("EXTRACT of DOW", "SELECT EXTRACT(DOW FROM joined) FROM buyer"),
        ("DATE_TRUNC", "SELECT DATE_TRUNC('month', joined) FROM buyer"),
        ("ANY", "SELECT name FROM buyer WHERE id = ANY(ARRAY[1, 2])"),
        ("INTERVAL", "SELECT name FROM buyer WHERE joined > DATE '2020-01-01' - INTERVAL '1 year'"),
        ("CURRENT_DATE", "SELECT name FROM buyer WHERE joined = CURRENT_DATE"),
        ("DISTINCT ON", "SELECT DISTINCT ON (city) name FROM buyer ORDER BY city, id"),
        ("ROLLUP", "SELECT city, COUNT(*) FROM buyer GROUP BY ROLLUP (city)"),
        ("REGEXP_REPLACE", "SELECT REGEXP_REPLACE(name, 'a', 'b') FROM buyer"),
        ("AGE", "SELECT AGE(joined) FROM buyer"),
    ],
)
def test_the_reason_names_the_construct_that_cannot_be_judged(grade, construct, sql):
    for gold, predicted in ((sql, TOWN), (TOWN, sql)):
        judgement = grade(gold, predicted)
        assert judgement.verdict == "unjudged"
        assert construct in explanation(judgement, sql)


def test_the_reason_names_a_dialect_that_sqlglot_does_not_support(grade):
    judgement = grade(TOWN, TOWN, "klingon")
    assert (judgement.verdict, "'klingon'" in judgement.reason) == ("unjudged", True)


@pytest.mark.parametrize(
    ("gold", "predicted", "verdicts"),
    [
        (TOWN, "SELECT name FROM buyer WHERE city = 'LUND'", {"correct"}),  # MySQL ignores case
        (TOWN, 'SELECT name FROM buyer WHERE city = "Lund"', {"correct"}),
        (TOWN, "SELECT name FROM buyer WHERE city = 'Lun'", {"wrong"}),
        ("SELECT IFNULL(city, 'none') FROM buyer", "SELECT COALESCE(city, 'none') FROM buyer", {"correct"}),
        ("SELECT YEAR(joined) FROM buyer", "SELECT EXTRACT(YEAR FROM joined) FROM buyer", {"correct"}),
        ("SELECT YEAR(joined) FROM buyer", "SELECT MONTH(joined) FROM buyer", {"wrong"}),
        (TOWN, "SELECT name FROM buyer WHERE city = 0", {"unjudged"}),
        (TOWN, "SELECT name FROM buyer WHERE city ILIKE 'Lund'", {"unjudged"}),
        (TOWN, "SELECT name FROM buyer WHERE city::CHAR = 'Lund'", {"unjudged"}),
    ],
)
def test_mysql(grade, gold, predicted, verdicts):
    judgement = grade(gold, predicted, "mysql")
    assert judgement.verdict in verdicts, judgement
