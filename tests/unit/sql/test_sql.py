"""How the graders read schemas and resolve names."""

import pytest
from sqlglot import exp

from sqlquarry.errors import JudgingError
from sqlquarry.sql.ddl import read_schema
from sqlquarry.sql.portable_ddl import schema_in_sqlite
from sqlquarry.sql.resolver import read_query
from sqlquarry.sql.schema import ForeignKey

SCHEMA = """CREATE TABLE "Shop" (id INTEGER PRIMARY KEY, Name VARCHAR(8) NOT NULL UNIQUE, code AS (id + 1));
CREATE TABLE sale (shop INT REFERENCES Shop, day DATE, PRIMARY KEY (shop, day));
CREATE TABLE note (about INT REFERENCES other, text TEXT)"""


def test_both_readings_of_a_schema_agree_on_stored_columns():
    own, built = read_schema(SCHEMA, "sqlite"), schema_in_sqlite(SCHEMA, "sqlite")
    assert set(own.tables) == set(built.tables) == {"shop", "sale", "note"}
    for name, table in own.tables.items():
        assert table.stored == built.tables[name].columns
        assert (table.name, table.keys, table.foreign_keys) == (
            built.tables[name].name,
            built.tables[name].keys,
            built.tables[name].foreign_keys,
        )
    assert own.tables["shop"].columns["code"].generated
    assert "code" not in built.tables["shop"].columns


def test_keys_and_references_match_those_of_sqlite():
    tables = read_schema(SCHEMA, "sqlite").tables
    assert tables["shop"].name == "Shop"
    assert tables["shop"].keys == (frozenset({"id"}), frozenset({"name"}))
    assert tables["sale"].keys == (frozenset({"shop", "day"}),)
    assert tables["sale"].foreign_keys == (ForeignKey(("shop",), "shop", ("id",)),)
    assert tables["note"].foreign_keys == (ForeignKey(("about",), "other", ("",)),)
    assert [tables["sale"].columns[name].required for name in ("shop", "day")] == [True, True]
    assert [tables["sale"].columns[name].not_null for name in ("shop", "day")] == [False, False]


@pytest.mark.parametrize(
    "start",
    [
        "-- it's; here\nCREATE TABLE", "/* x; */ /* CREATE */\nCREATE TABLE", "CREATE /* x */ TABLE", "#\nCREATE TABLE",
        "CREATE TEMP TABLE", "CREATE OR REPLACE TABLE", "create global temporary table", "CREATE UNLOGGED -- x\nTABLE",
    ],
)  # fmt: skip
@pytest.mark.parametrize("dialect", ["sqlite", "mysql"])
def test_tables_after_comments_and_with_modifiers_are_built(start, dialect):
    built = schema_in_sqlite(f"CREATE TABLE first (c INT); {start} a (b INT);", dialect)
    assert {name: list(table.columns) for name, table in built.tables.items()} == {"first": ["c"], "a": ["b"]}


def test_a_view_after_a_comment_is_built():
    built = schema_in_sqlite("CREATE TABLE a (b INT); -- x\nCREATE TEMP VIEW v AS SELECT b FROM a", "sqlite")
    assert len(built.views) == 1
    assert not built.complete


def test_statements_of_a_dump_after_comments_are_skipped():
    dump = "/* x */ PRAGMA foreign_keys=OFF; -- y\n/* z */ INSERT INTO t VALUES (1); CREATE TABLE t (a, b AS (a + 1))"
    assert read_schema(dump, "sqlite").tables["t"].columns["b"].generated
    assert len(read_schema(dump, "sqlite").ddl) == 1


def test_a_schema_whose_statement_never_ends_is_refused():
    numbers = "WITH RECURSIVE r (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT i FROM r"
    endless = f"CREATE TABLE t AS {numbers}"
    assert not read_schema(endless, "sqlite").tables
    with pytest.raises(JudgingError, match=r"\(interrupted\).*'CREATE TABLE t AS WITH RECURSIVE r "):
        schema_in_sqlite(endless, "sqlite")


@pytest.mark.parametrize(
    ("sql", "places"),
    [
        ("SELECT NAME FROM shop", [("shop", "name")]),
        ("SELECT s.name FROM (SELECT Name FROM shop) AS s", [("shop", "name"), ("shop", "name")]),
        ("WITH w AS (SELECT day AS d FROM sale) SELECT d FROM w", [("sale", "day"), ("sale", "day")]),
        ("SELECT 1 FROM shop WHERE EXISTS (SELECT 1 FROM sale WHERE id = 3)", [("shop", "id")]),
        ("SELECT id + 1 FROM (SELECT id + 1 AS id FROM shop)", [None, ("shop", "id")]),
        ("WITH w AS (SELECT x FROM w) SELECT x FROM w", [None, None]),
    ],
)
def test_names_resolve_to_stored_columns(sql, places):
    tree, resolver = read_query(sql, schema_in_sqlite(SCHEMA, "sqlite"))
    assert [resolver.place(column) for column in tree.find_all(exp.Column)] == places
