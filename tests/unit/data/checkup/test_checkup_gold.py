"""What the check-up says about gold queries without a database."""

import random

import pytest
import sqlglot
from sqlglot import exp

from sqlquarry.data.checkup import gold
from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.findings import kinds_by_name
from sqlquarry.data.sample import sample_records
from sqlquarry.records import Record

SHOPS = """CREATE TABLE shop (id INTEGER PRIMARY KEY, name TEXT, city VARCHAR(20), staff INT, opened DATE);
CREATE TABLE sale (shop_id INT, amount REAL, day TEXT, name TEXT)"""


def found(sql, question="q", schema=SHOPS, **fields):
    """Return the findings in one record's texts as pairs of kind and detail."""
    record = Record(question, schema, sql, **fields)
    return [(one.kind, one.detail) for one in gold.check_texts(Checked(records=[record]))]


def kinds(sql, question="q", schema=SHOPS, **fields):
    return {kind for kind, _ in found(sql, question, schema, **fields)}


def test_each_kind_is_declared_once_with_full_sentences():
    assert len(kinds_by_name(gold.KINDS)) == len(gold.KINDS)
    assert all(kind.advice.endswith(".") and not kind.title.endswith(".") for kind in gold.KINDS)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("N/A", "gold-not-sql"),
        ("I cannot answer this question.", "gold-not-sql"),
        ("```sql\nSELECT 1\n```", "gold-not-sql"),
        ("[SQL] SELECT name FROM shop [/SQL]", "gold-not-sql"),
        ("SELECT 'not possible'", "gold-not-sql"),
        ("-- no answer", "gold-not-sql"),
        ("SELECT name FROM shop; SELECT city FROM shop", "gold-several-statements"),
        ("DROP TABLE shop", "gold-writes"),
        ("INSERT INTO shop (id) VALUES (1)", "gold-writes"),
        ("WITH x AS (SELECT 1 AS id) INSERT INTO shop (id) SELECT id FROM x", "gold-writes"),
        ("PRAGMA table_info(shop)", "gold-writes"),
        ("SELECT name FORM shop", "gold-syntax"),
        ("SELECT name FROM shop WHERE city = 'Rome", "gold-syntax"),
        ("Select the names of all shops", "gold-syntax"),
        ("(SELECT name FROM shop)", "gold-syntax"),
        ("SELECT name FROM shops", "table-missing"),
        ("SELECT title FROM shop", "column-missing"),
        ("SELECT name FROM shop JOIN sale ON shop.id = sale.shop_id", "column-ambiguous"),
        ("SELECT CONCAT_WS('-', name, city) FROM shop", "function-missing"),
        ("SELECT name FROM shop WHERE SUM(staff) > 1", "gold-refused"),
        ("SELECT name, id FROM shop UNION SELECT name FROM sale", "gold-refused"),
    ],
)
def test_a_broken_query_is_found_once(sql, kind):
    assert [one for one, _ in found(sql)] == [kind]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM shop;",
        "SELECT name FROM shop -- all of them\n;",
        "VALUES (1)",
        "WITH x AS (SELECT id FROM shop) SELECT id FROM x",
        "SELECT REPLACE(name, 'a', 'b') FROM shop",
        'SELECT x."b" FROM (SELECT id AS "b" FROM shop) AS x ORDER BY x."b"',
        'SELECT "name" FROM "shop" WHERE "city" = "name" OR "city" IS NULL',
        "SELECT rowid FROM shop",
        "SELECT name FROM shop WHERE 1 = 1",
        "SELECT name FROM shop WHERE 7 = 7",
        "SELECT name FROM shop WHERE id + city > 1",
        "SELECT name FROM shop WHERE staff > 0 AND staff <> 1",
        "SELECT COUNT(*) FROM shop LIMIT 1",
        "SELECT name FROM shop WHERE EXISTS (SELECT 1 FROM sale WHERE shop_id = id LIMIT 1)",
        "SELECT STRFTIME('%Y', opened) FROM shop",
    ],
)
def test_a_right_query_has_no_finding(sql):
    assert found(sql) == []


def test_details_name_the_offending_value_and_the_nearest_name():
    assert found("SELECT name FROM shops") == [("table-missing", "shops, nearest is 'shop'")]
    assert found("SELECT staf FROM shop") == [("column-missing", "staf, nearest is 'staff'")]
    assert found("SELECT amount FROM shop") == [("column-missing", "amount, a column of sale")]
    assert found("SELECT T1.nam FROM shop AS T1") == [("column-missing", "T1.nam, nearest is 'name'")]
    assert found("SELECT name FROM shop, sale") == [("column-ambiguous", "name is a column of shop, sale")]


def test_all_gold_queries_are_checked_and_alternatives_are_named():
    record = Record("q", SHOPS, "SELECT id FROM shop", alternatives=["SELECT id FROM shop", "SELECT ident FROM shop"])
    (finding,) = gold.check_texts(Checked(records=[Record("q", SHOPS), record]))
    assert (finding.kind, finding.records) == ("column-missing", (1,))
    assert finding.detail.startswith("alternative 2: ident")


def test_a_schema_that_cannot_be_read_is_one_finding_for_all_its_records():
    records = [Record("q", "shop: id, name", "SELECT anything FROM shop") for _ in range(3)]
    (finding,) = gold.check_texts(Checked(records=[*records, Record("q", SHOPS, "SELECT id FROM shop")]))
    assert (finding.kind, finding.records) == ("schema-unreadable", (0, 1, 2))


def test_a_view_that_sqlite_cannot_build_hides_no_table():
    schema = f"{SHOPS}; CREATE VIEW rich AS SELECT lpad(name, 3) FROM nothing.shop"
    assert "table-missing" not in kinds("SELECT * FROM rich", schema=schema)
    assert kinds("SELECT * FROM big", schema=f"{SHOPS}; CREATE VIEW big AS SELECT * FROM shop") == set()


def test_a_table_that_is_declared_twice_has_the_columns_of_both():
    schema = "CREATE TABLE t (a INT, b INT); CREATE TABLE t (a INT, c INT)"
    assert kinds("SELECT b, c FROM t", schema=schema) == set()


@pytest.mark.parametrize("dialect", ["postgres", "mysql", "duckdb", "snowflake", "bigquery", "tsql"])
def test_other_dialects_are_checked_without_their_database(dialect):
    assert kinds("SELECT staf FROM shop", dialect=dialect) == {"column-missing"}
    assert kinds("SELECT s.name FROM shops AS s", dialect=dialect) == {"table-missing"}
    assert kinds("SELECT name FROM shop, sale", dialect=dialect) == {"column-ambiguous"}
    assert kinds("SELECT name FROM shop WHERE ((id = 1", dialect=dialect) == {"gold-unparsed"}
    assert kinds("WITH x AS (DELETE FROM shop RETURNING id) SELECT id FROM x", dialect="postgres") == {"gold-writes"}
    assert kinds("SELECT id INTO copy FROM shop", dialect="tsql") == {"gold-writes"}
    assert kinds("SELECT id FROM shop FOR UPDATE", dialect="postgres") == set()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ('SELECT id FROM shop WHERE city = "Q"', [("string-in-double-quotes", '"Q"')]),
        ('SELECT id FROM shop WHERE name = "name"', [("string-read-as-column", '"name" compared with name')]),
        ('SELECT id FROM shop WHERE city = "Name"', [("string-read-as-column", '"Name" compared with city')]),
        ('SELECT AVG("stff") FROM shop', [("column-read-as-string", '"stff"')]),
        ('SELECT id FROM shop ORDER BY "stff"', [("column-read-as-string", '"stff"')]),
        (
            'SELECT id FROM shop WHERE 1987 = "q"',
            [("string-in-double-quotes", '"q"'), ("literals-compared", '1987 = "q"')],
        ),
        ("SELECT id FROM shop WHERE 'city' = 'q'", [("literals-compared", "'city' = 'q'")]),
        ("SELECT id FROM shop WHERE name = NULL", [("null-compared", "name = NULL")]),
        ("SELECT id FROM shop WHERE name <> 'null'", [("null-compared", "name <> 'null'")]),
        ("SELECT id FROM shop WHERE staff = '1'", [("number-in-quotes", "staff = '1', staff is INT")]),
        ("SELECT id FROM shop WHERE staff IN ('0', '1')", [("number-in-quotes", "staff IN ('0', '1', staff is INT")]),
        ("SELECT id FROM shop WHERE city = '1'", [("number-stored-as-text", "city = '1', city is VARCHAR(20)")]),
        ("SELECT id FROM shop WHERE city > 1", [("number-against-text", "city > 1, city is VARCHAR(20)")]),
        ("SELECT id FROM shop WHERE staff > 'q'", [("text-against-number", "staff > 'q', staff is INT")]),
    ],
)
def test_values_are_compared_with_what_they_are(sql, expected):
    assert found(sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT id FROM t WHERE "a b" = "c d"',
        'SELECT id FROM t WHERE "a b" = "made"',
        'SELECT id "x y" FROM t GROUP BY id HAVING MAX("a b") = "x y"',
        'SELECT * FROM (SELECT id AS "q q", id FROM t) WHERE "id" = "q q"',
        'SELECT "id" FROM v WHERE "id" = "seen"',
    ],
)
def test_columns_in_double_quotes_are_not_text(sql):
    schema = """CREATE TABLE t (id INT, "a b" INT, "c d" INT, made INT GENERATED ALWAYS AS (id + 1));
    CREATE VIEW v AS SELECT id, id AS seen FROM t"""
    assert kinds(sql, schema=schema) == set()


def test_names_in_double_quotes_are_names_even_if_another_column_is_missing():
    assert kinds('SELECT gone FROM shop WHERE city = "q"') == {"column-missing", "string-in-double-quotes"}
    assert kinds('SELECT id FROM shop WHERE city = "q"', dialect="mysql") == set()


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT name FROM shop ORDER BY RANDOM()", "gold-random"),
        ("SELECT name FROM shop WHERE opened < DATE('now')", "gold-depends-on-today"),
        ("SELECT name FROM shop WHERE opened < CURRENT_DATE", "gold-depends-on-today"),
        ("SELECT name FROM shop WHERE opened < DATE()", "gold-depends-on-today"),
        ("SELECT name FROM shop LIMIT 1", "limit-without-order"),
        ("SELECT city, COUNT(*) FROM shop GROUP BY city LIMIT 1", "limit-without-order"),
        ("SELECT name FROM shop WHERE id = (SELECT shop_id FROM sale LIMIT 1) ORDER BY name", "limit-without-order"),
    ],
)
def test_choices_that_the_query_leaves_open_are_found(sql, kind):
    assert kinds(sql) == {kind}


def test_words_of_dates_and_chance_in_other_roles_are_no_choices():
    schema = "CREATE TABLE t (current_date TEXT, random INT, a TEXT)"
    assert "gold-random" not in kinds("SELECT random FROM t", schema=schema)
    assert kinds("SELECT id FROM shop WHERE name = 'now'", "now") == set()
    assert kinds("SELECT name FROM shop ORDER BY name LIMIT 1") == set()


def test_the_bundled_records_are_right():
    records = sample_records()
    bad = [one for one in gold.check_texts(Checked(records=records)) if one.kind in ERRORS]
    assert len(records) > 1000
    assert bad == []


ERRORS = {kind.name for kind in gold.KINDS if kind.severity == "error"}


@pytest.mark.parametrize("dialect", ["postgres", "mysql", "duckdb"])
def test_translated_queries_use_only_names_of_their_schema(dialect):
    records = []
    for record in sample_records()[::20]:
        schema, sql = ("; ".join(sqlglot.transpile(text, "sqlite", dialect)) for text in (record.schema, record.sql))
        records.append(Record(record.question, schema, sql, dialect=dialect))
    found = [one for one in gold.check_texts(Checked(records=records)) if one.kind in ERRORS]
    assert len(records) > 45
    assert found == []


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_a_misspelled_column_is_always_found(dialect):
    records, names = [], []
    for record in sample_records()[::20]:
        tree = sqlglot.parse_one(record.sql, "sqlite")
        column = next(iter(tree.find_all(exp.Column)), None)
        if column is not None:
            names.append(column.name)
            column.this.set("this", f"{column.name}_x")
            schema = "; ".join(sqlglot.transpile(record.schema, "sqlite", dialect))
            records.append(Record(record.question, schema, tree.sql(dialect), dialect=dialect))
    found = {one.records[0]: one for one in gold.check_texts(Checked(records=records)) if one.kind == "column-missing"}
    assert set(found) == set(range(len(records)))
    assert all(f"{name}_x" in found[place].detail for place, name in enumerate(names))
    assert len(records) > 45


@pytest.mark.parametrize("dialect", ["sqlite", "postgres", "mysql", "duckdb", "nonstandard"])
def test_no_text_stops_the_check(dialect):
    words = ["SELECT", '"a', "'b'", "WHERE", "1987", "=", "IN", "(", ")", "BETWEEN", "AND", "LIMIT", ".", ",", "NOT"]
    words += [
        "CASE",
        "END",
        "IS",
        "NULL",
        '"x"',
        "`y`",
        "[z]",
        "%",
        "LIKE",
        "-",
        "FROM",
        "shop",
        ";",
        "\x00",
        "é",
        "/*",
    ]
    generator = random.Random(3)
    texts = [" ".join(generator.choices(words, k=generator.randint(1, 12))) for _ in range(300)]
    dialect = "spark" if dialect == "nonstandard" else dialect
    records = [Record("q", SHOPS, text, dialect=dialect) for text in texts]
    assert {one.records[0] for one in gold.check_texts(Checked(records=records))} <= set(range(len(records)))
