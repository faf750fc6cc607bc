"""The expectations of people about rows: derived from the schema and the golds, and satisfied by plausible rows."""

import sqlite3
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlquarry.judging.synthesis.candidate_database import CandidateDatabase
from sqlquarry.judging.synthesis.candidate_rows import CandidateRows
from sqlquarry.judging.synthesis.dates import PartCondition, default_form, meets_part, read_date
from sqlquarry.judging.synthesis.hint_reader import gather_hints
from sqlquarry.judging.synthesis.mutants import mutants
from sqlquarry.judging.synthesis.plausibility import expected_schema
from sqlquarry.sql.identifiers import quoted
from sqlquarry.sql.portable_ddl import schema_in_sqlite
from sqlquarry.sql.resolver import read_query

LIBRARY = """
CREATE TABLE author (id INTEGER, full_name TEXT, last_name TEXT, age INTEGER, born DATE);
CREATE TABLE book (book_id INTEGER PRIMARY KEY, title TEXT, author_id INTEGER, price REAL NOT NULL, sold INTEGER);
CREATE TABLE mark (book_id INTEGER, word TEXT, seen TEXT);
"""


def expected(*golds: str):
    schema = schema_in_sqlite(LIBRARY, "sqlite")
    return expected_schema(schema, gather_hints(golds, schema))


def marked(schema, name: str) -> dict[str, set[str]]:
    columns = schema.tables[name].columns.values()
    return {word: {column.name for column in columns if getattr(column, word)} for word in ("required", "unique")}


def test_expected_constraints_are_derived_from_the_schema():
    schema = expected()
    assert marked(schema, "author") == {
        "required": {"id", "full_name", "last_name", "age", "born"},
        "unique": {"id", "full_name"},
    }
    # Because the price is NOT NULL, the nullable count of sold copies may be NULL.
    assert marked(schema, "book")["required"] == {"book_id", "title", "author_id", "price"}
    assert marked(schema, "book")["unique"] == {"book_id", "title"}
    assert marked(schema, "mark")["unique"] == set()
    links = {name: [(key.columns, key.table) for key in table.foreign_keys] for name, table in schema.tables.items()}
    assert links == {
        "author": [],
        "book": [(("author_id",), "author")],
        "mark": [(("book_id",), "book")],
    }
    assert list(schema.tables).index("book") < list(schema.tables).index("mark")


@pytest.mark.parametrize(
    ("gold", "word", "place"),
    [
        ("SELECT id FROM author WHERE age IS NULL", "required", ("author", "age")),
        ("SELECT COUNT(born) FROM author", "required", ("author", "born")),
        ("SELECT COALESCE(last_name, '') FROM author", "required", ("author", "last_name")),
        ("SELECT DISTINCT title FROM book", "unique", ("book", "title")),
        ("SELECT full_name, COUNT(*) FROM author GROUP BY full_name", "unique", ("author", "full_name")),
    ],
)
def test_a_gold_may_relax_a_constraint(gold, word, place):
    assert place[1] in marked(expected(), place[0])[word]
    assert place[1] not in marked(expected(gold), place[0])[word]


DATES = [
    ("2021-05-04", datetime(2021, 5, 4)),
    ("2021-05-04 09:08:07", datetime(2021, 5, 4, 9, 8, 7)),
    ("5/4/2021", datetime(2021, 5, 4)),
    ("may 4, 2021", datetime(2021, 5, 4)),
    ("May 04, 2021", datetime(2021, 5, 4)),
    ("4 May 2021", datetime(2021, 5, 4)),
    ("09:08", datetime(1900, 1, 1, 9, 8)),
]


@pytest.mark.parametrize(("text", "moment"), DATES)
def test_dates_are_written_in_the_form_in_which_they_were_read(text, moment):
    found = read_date(text)
    assert found is not None
    assert found[0] == moment
    assert found[1].text(moment) == text
    assert read_date(found[1].text(moment.replace(month=11, hour=3))) is not None


@pytest.mark.parametrize("text", ["", "Oslo", "2021", "2021-13-01", "41,402", "12 apples", 7, "٤/٥/٢٠٢١"])
def test_other_text_is_not_a_date(text):
    assert read_date(text) is None


@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), st.sampled_from(["%Y", "%m", "%d", "%H", "%Y-%m"]))
def test_parts_of_dates_match_those_of_sqlite(moment, part):
    text = default_form("datetime").text(moment)
    shown = sqlite3.connect(":memory:").execute("SELECT strftime(?, ?)", (part, text)).fetchone()[0]
    assert meets_part(moment, PartCondition(part, "=", shown))
    assert not meets_part(moment, PartCondition(part, "<>", shown))


def pools_of(gold: str, schema: str = LIBRARY):
    read = schema_in_sqlite(schema, "sqlite")
    return CandidateRows(read, gather_hints([gold], read), "0").pools


def test_dates_in_text_columns_meet_and_miss_the_requested_part():
    pool = pools_of("SELECT word FROM mark WHERE strftime('%m', seen) = '09'")["mark", "seen"]
    assert pool.hits
    assert pool.near
    assert all(text[5:7] == "09" for text in pool.hits)
    assert not [text for text in (*pool.near, *pool.others) if text[5:7] == "09" or read_date(text) is None]


@pytest.mark.parametrize(
    "condition",
    [
        "born LIKE '2020%'",
        "born > '2020-02-29'",
        "born - 5 > 0",
        "born = '1999-12-31'",
        "strftime('%Y', born) = '2020'",
    ],
)
def test_date_columns_contain_valid_dates_only(condition):
    pool = pools_of(f"SELECT id FROM author WHERE {condition}")["author", "born"]
    values = [value for value in (*pool.hits, *pool.near, *pool.others, *pool.odd) if isinstance(value, str)]
    assert values
    assert all(datetime.fromisoformat(value) for value in values)


def test_numbers_with_separators_sort_the_same_as_text():
    pool = pools_of("SELECT word FROM mark WHERE word > '41,402'")["mark", "word"]
    texts = [*pool.hits, *pool.near, *pool.others]
    assert all(text > "41,402" for text in pool.hits)
    assert not [text for text in texts if (text > "41,402") != (int(text.replace(",", "")) > 41402)]


def test_odd_values_are_separate_from_expected_values():
    pool = pools_of("SELECT id FROM author WHERE last_name = 'Ibsen' AND age > 40")
    assert {" Ibsen", "Ibsen ", "iBSEN"} <= set(pool["author", "last_name"].odd)
    assert all(18 <= age <= 100 for part in ("hits", "near", "others") for age in getattr(pool["author", "age"], part))
    assert min(pool["author", "age"].odd) < 0
    signed = pools_of("SELECT ABS(price) FROM book")["book", "price"]
    assert min(signed.others) < 0
    assert any(value % 1 for value in signed.others)


def test_windows_and_functions_have_special_mutants():
    schema = schema_in_sqlite(LIBRARY + "CREATE TABLE copy (book_id INTEGER, price REAL, sold INTEGER)", "sqlite")

    def texts(sql: str) -> str:
        found = read_query(sql, schema)
        assert found is not None
        return "\n".join(mutants(*found))

    ranked = texts("SELECT RANK() OVER (PARTITION BY author_id ORDER BY price DESC), LAG(sold, 2) OVER () FROM book")
    for change in ("DENSE_RANK()", "ROW_NUMBER()", "OVER (ORDER BY price DESC)", "ORDER BY price ASC", "LEAD(sold, 2)"):
        assert change in ranked, change
    summed = texts("SELECT SUM(sold) OVER (ORDER BY book_id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM book")
    assert "SUM(sold) OVER (ORDER BY book_id)" in summed
    assert 'FROM "copy" AS "book"' in summed
    assert "SELECT price FROM book" in texts("SELECT ROUND(price) FROM book")
    assert "CAST(price AS INTEGER)" in texts("SELECT ROUND(price) FROM book")


TYPES = ("INTEGER", "REAL", "TEXT", "VARCHAR(5)", "DATE", "DATETIME", "BOOLEAN", "NUMERIC(8,2)")
CONDITIONS = ("= 'Oslo'", "> 7", "LIKE '%a%'", "BETWEEN '2020-01-01' AND '2021-01-01'", "IS NULL", "<> -3.5")


@st.composite
def schemas(draw):
    """Draw up to three tables, each of which may refer to an earlier one, and a gold with a condition on a column."""
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    statements = []
    for i, name in enumerate(names):
        columns = [f"{name}_id INTEGER PRIMARY KEY"]
        for j in range(draw(st.integers(1, 4))):
            limits = draw(st.sampled_from(["", " NOT NULL", " UNIQUE", " UNIQUE NOT NULL"]))
            columns.append(f"{draw(st.sampled_from(['name', 'age', 'x']))}{j} {draw(st.sampled_from(TYPES))}{limits}")
        if i and draw(st.booleans()):
            parent = draw(st.sampled_from(names[:i]))
            columns.append(f"{parent}_id INTEGER{draw(st.sampled_from(['', ' NOT NULL']))} REFERENCES {parent}")
        if draw(st.booleans()):
            columns.append(f"n INTEGER CHECK (n {draw(st.sampled_from(['> 0', '<> 5', 'BETWEEN 3 AND 9']))})")
        statements.append(f"CREATE TABLE {name} ({', '.join(columns)})")
    schema = schema_in_sqlite(";".join(statements), "sqlite")
    table = draw(st.sampled_from(names))
    column = draw(st.sampled_from([column.name for column in schema.tables[table].columns.values()]))
    return schema, f"SELECT * FROM {table} WHERE {column} {draw(st.sampled_from(CONDITIONS))}"


@settings(max_examples=60, deadline=None)
@given(schemas(), st.integers(0, 20), st.booleans())
def test_rows_satisfy_the_ddl_and_plausible_rows_the_expected_constraints(drawn, number, plausible):
    schema, gold = drawn
    candidates = CandidateRows(schema, gather_hints([gold], schema), "seed")
    database = CandidateDatabase(schema)
    database.fill(candidates.make(number, plausible=plausible))
    stored = database.stored()
    database.close()
    strict = sqlite3.connect(":memory:")
    for statement in schema.ddl:
        strict.execute(statement)
    for name, rows in stored.items():
        for row in rows:  # a violated constraint raises an error
            strict.execute(f"INSERT INTO {quoted(name)} VALUES ({', '.join('?' * len(row))})", row)
    assert strict.execute("PRAGMA foreign_key_check").fetchall() == []
    strict.close()
    if plausible:
        for name, rows in stored.items():
            assert len(set(rows)) == len(rows)
            for i, column in enumerate(candidates.expected.tables[name].columns.values()):
                values = [row[i] for row in rows if row[i] is not None]
                assert not column.required or len(values) == len(rows)
                assert not column.unique or len(set(values)) == len(values)


@settings(max_examples=30, deadline=None)
@given(schemas(), st.integers(0, 20), st.booleans())
def test_the_rows_of_a_table_do_not_depend_on_the_other_generated_tables(drawn, number, plausible):
    schema, gold = drawn
    whole = CandidateRows(schema, gather_hints([gold], schema), "seed").make(number, plausible=plausible)
    candidates = CandidateRows(schema, gather_hints([gold], schema), "seed")
    needed = candidates.needed_tables([gold])
    part = candidates.make(number, plausible=plausible, only=needed)
    assert {name: part[name] for name in needed} == {name: whole[name] for name in needed}
