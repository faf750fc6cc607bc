"""The text of a schema is DDL that the readers of DDL read back."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlquarry.data.database.quoting import quoter
from sqlquarry.data.database.rendering import SchemaStyle, schema_text
from sqlquarry.data.database.tables import DatabaseColumn, DatabaseForeignKey, DatabaseTable
from sqlquarry.sql.ddl import read_schema
from sqlquarry.sql.schema import ForeignKey

FULL = SchemaStyle(most_values=30, examples=3)
NAMES = st.one_of(
    st.sampled_from(
        ["order", "Group", "größe", "名前", "a b", 'a"b', "a`b", "a]b", "a'b", "1st", "x;y", "--", "/*", "false"]
    ),
    st.sampled_from(["describe", "function", "rank", "window", "user", "desc", "primary", "foreign", "key", "window"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6),
)
SERVER_TYPES = {
    "postgres": [
        "integer",
        "varchar(20)",
        "timestamp",
        "timestamptz",
        "numeric(10,2)",
        "double precision",
        "jsonb",
        "mood",
    ],
    "mysql": ["int(11)", "int(10) unsigned", "varchar(20)", "enum('a','b''c')", "datetime", "tinyint(1)", "longtext"],
    "duckdb": ["INTEGER", "VARCHAR", "DECIMAL(10,2)", "TIMESTAMP WITH TIME ZONE", "ENUM('sad', 'ok')", "INTEGER[]"],
    "redshift": ["INTEGER", "VARCHAR(20)", "TIMESTAMP", "SUPER"],
    "tsql": ["INTEGER", "NVARCHAR(20)", "DATETIME2"],
}
SQLITE_TYPES = st.one_of(
    st.sampled_from(
        ["", "INTEGER", "varchar(20)", "unsigned big int", "DECIMAL(10, 2)", "primary", "my key", "a(b", 'x"y']
    ),
    NAMES,
)
TEXTS = st.one_of(
    st.just(""), st.text(max_size=20), st.sampled_from(["*/ DROP", "/*/", "a -- b", "it's; x", "/*!1*/", "*"])
)


@st.composite
def schemas(draw: st.DrawFn, types: st.SearchStrategy[str]) -> list[DatabaseTable]:
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique_by=str.casefold))
    tables = []
    for name in names:
        columns = draw(st.lists(NAMES, min_size=2, max_size=4, unique_by=str.casefold))
        values = st.lists(TEXTS.filter(str.isprintable), max_size=3).map(tuple)
        made = tuple(
            DatabaseColumn(one, draw(types), comment=draw(TEXTS), values=draw(values), examples=draw(values))
            for one in columns
        )
        key = tuple(draw(st.lists(st.sampled_from(columns), max_size=2, unique=True)))
        tables.append(DatabaseTable(name, made, primary_key=key, comment=draw(TEXTS)))
    linked = []
    for table in tables:  # cycles and references to the own table are included
        other = draw(st.sampled_from(tables))
        size = draw(st.integers(0, 2))
        columns, targets = (tuple(column.name for column in one.columns[:size]) for one in (table, other))
        keys = (DatabaseForeignKey(columns, other.name, targets),) if size else ()
        linked.append(DatabaseTable(table.name, table.columns, table.primary_key, keys, table.comment))
    return linked


@given(schemas(SQLITE_TYPES))
@settings(max_examples=50, deadline=None)
def test_sqlite_reads_back_the_same_tables(tables: list[DatabaseTable]) -> None:
    text = schema_text(tables, "sqlite", FULL)
    found = read_schema(text, "sqlite")
    assert found.ddl, text  # SQLite itself accepted it
    assert [table.name for table in found.tables.values()] == [table.name for table in tables]
    for table, read in zip(tables, found.tables.values(), strict=True):
        columns = list(read.columns.values())
        assert [(one.name, one.declared) for one in columns] == [(one.name, one.type) for one in table.columns], text
        assert {one.name for one in columns if one.in_key} == set(table.primary_key)
        assert read.foreign_keys == tuple(map(_folded, table.foreign_keys))


def _folded(key: DatabaseForeignKey) -> ForeignKey:
    columns, targets = (tuple(name.lower() for name in names) for names in (key.columns, key.targets))
    return ForeignKey(columns, key.table.lower(), targets)


@pytest.mark.parametrize("dialect", SERVER_TYPES)
def test_our_reader_reads_back_the_same_tables(dialect: str) -> None:
    @given(schemas(st.sampled_from(SERVER_TYPES[dialect])))
    @settings(max_examples=25, deadline=None)
    def reads_back(tables: list[DatabaseTable]) -> None:
        text = schema_text(tables, dialect, FULL)
        found = read_schema(text, dialect)
        folded = str if dialect == "postgres" else str.lower
        assert len(found.tables) == len(tables), text
        for table, read in zip(tables, found.tables.values(), strict=True):
            names = [folded(column.name) for column in table.columns]
            assert [folded(column.name) for column in read.columns.values()] == names, text
            assert all(column.declared for column in read.columns.values())
            if dialect in ("mysql", "postgres", "duckdb"):
                assert [folded(one.name) for one in read.columns.values() if one.in_key] == [
                    folded(one.name) for one in table.columns if one.name in table.primary_key
                ]

    reads_back()


def test_the_text_has_one_line_per_table_and_comments_cannot_leave_it() -> None:
    column = DatabaseColumn("kind", "TEXT", comment="a\nb */ c", values=("it's", "x"), examples=("y",))
    tables = [
        DatabaseTable("t", (column, DatabaseColumn("n", "INT", examples=(5, 1.5))), ("kind",), comment="all /* of it")
    ]
    assert schema_text(tables, "sqlite", FULL) == (
        "CREATE TABLE t /* all / * of it */ ("
        "kind TEXT PRIMARY KEY /* a b * / c; 'it''s', 'x' */, n INT /* 5, 1.5, … */);"
    )
    plain = SchemaStyle(keys=False, comments=False)
    assert schema_text(tables, "sqlite", plain) == "CREATE TABLE t (kind TEXT, n INT);"
    assert "'it''s'" not in schema_text(tables, "sqlite", SchemaStyle(most_values=1))


def test_keys_of_several_columns_and_schemas_are_written() -> None:
    order = DatabaseTable(
        "Order", (DatabaseColumn("a", "integer"), DatabaseColumn("B", "integer")), ("a", "B"), schema="hr"
    )
    key = DatabaseForeignKey(("x", "y"), "hr.Order", ("a", "B"))
    item = DatabaseTable("item", (DatabaseColumn("x", "integer"), DatabaseColumn("y", "integer")), (), (key,))
    assert schema_text([order, item], "postgres", FULL) == (
        'CREATE TABLE hr."Order" (a integer, "B" integer, PRIMARY KEY (a, "B"));\n'
        'CREATE TABLE item (x integer, y integer, FOREIGN KEY (x, y) REFERENCES hr."Order" (a, "B"));'
    )
    assert "REFERENCES" not in schema_text([item], "postgres", FULL)  # its table is left out


@pytest.mark.parametrize(
    ("dialect", "name", "written"),
    [
        ("sqlite", "Name", "Name"),
        ("sqlite", "order", '"order"'),
        ("postgres", "Name", '"Name"'),
        ("postgres", "window", '"window"'),
        ("postgres", "rank", "rank"),
        ("mysql", "rank", "`rank`"),
        ("mysql", "a`b", "`a``b`"),
        ("mysql", "Name", "Name"),
        ("tsql", "a]b", "[a]]b]"),
        ("oracle", "Name", '"Name"'),
        ("snowflake", "NAME", '"NAME"'),
        ("duckdb", "qualify", '"qualify"'),
        ("duckdb", "größe", '"größe"'),
    ],
)
def test_names_are_quoted_only_where_the_dialect_needs_it(dialect: str, name: str, written: str) -> None:
    assert quoter(dialect)(name) == written


@given(NAMES)
def test_sqlite_reads_every_name_as_itself(name: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        found = connection.execute(f"SELECT {quoter('sqlite')(name)} FROM (SELECT 1 AS {quoter('sqlite')(name)})")
        assert found.description[0][0] == name
