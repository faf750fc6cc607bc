"""How names that a schema lacks are found without a database."""

import pytest

from sqlquarry.sql.ddl import read_schema
from sqlquarry.sql.unknown_names import unknown_names

DDL = """CREATE TABLE shop (id INT, name TEXT, city TEXT); CREATE TABLE sale (shop_id INT, amount INT, name TEXT)"""


def problems(sql, dialect="postgres"):
    return [tuple(one) for one in unknown_names(sql, read_schema(DDL, dialect), dialect)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT nme FROM shop", [("column", "nme")]),
        ("SELECT s.nme FROM shop AS s", [("column", "s.nme")]),
        ("SELECT name FROM shp", [("table", "shp")]),
        ("SELECT name FROM shop WHERE twn = 'a' ORDER BY cty", [("column", "twn"), ("column", "cty")]),
        ("SELECT name FROM shop JOIN sale ON id = shop_id", [("ambiguous", "name")]),
        ("SELECT x.b FROM (SELECT id AS a FROM shop) AS x", [("column", "x.b")]),
        ("WITH x AS (SELECT id AS a FROM shop) SELECT b FROM x", [("column", "b")]),
        ("WITH x(a) AS (SELECT id FROM shop) SELECT id FROM x", [("column", "id")]),
        ("SELECT id FROM shop WHERE id IN (SELECT shop FROM sale)", [("column", "shop")]),
        ("SELECT id FROM shop UNION SELECT shop FROM sale", [("column", "shop")]),
        ('SELECT name FROM shop WHERE city = "Rome"', [("column", "Rome")]),
    ],
)
def test_names_that_the_schema_lacks_are_found(sql, expected):
    assert problems(sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT NAME, Shop.City FROM SHOP",
        "SELECT * FROM shop, sale",
        "SELECT x.* FROM (SELECT * FROM shop) AS x WHERE x.anything = 1",
        "SELECT city AS place, COUNT(*) AS many FROM shop GROUP BY place ORDER BY many",
        "SELECT id FROM shop WHERE EXISTS (SELECT 1 FROM sale WHERE shop_id = id)",
        "SELECT id, (SELECT MAX(amount) FROM sale WHERE shop_id = shop.id) FROM shop",
        "SELECT name FROM shop JOIN sale USING (name)",
        "SELECT name FROM shop NATURAL JOIN sale",
        "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x WHERE n < 5) SELECT n FROM x",
        "WITH a AS (SELECT id FROM shop), b AS (SELECT id FROM a) SELECT id FROM b",
        "SELECT v FROM GENERATE_SERIES(1, 3) AS g(v)",
        "SELECT table_name FROM information_schema.tables",
        "SELECT ctid, name FROM shop",
        "SELECT CURRENT_DATE FROM shop",
        "SELECT s.id FROM shop AS s CROSS JOIN LATERAL (SELECT amount FROM sale WHERE shop_id = s.id) AS l",
        "INSERT INTO nothing VALUES (1)",
        "SELECT (((",
    ],
)
def test_names_that_may_exist_are_accepted(sql):
    assert problems(sql) == []
