"""Records.repair changes what is mechanical and proved, counts it, and can be undone."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record, Records
from sqlquarry.data.checkup.repair import REPAIRS, RULES
from sqlquarry.errors import ConfigError, JudgingError

SCHEMA = 'CREATE TABLE Head (age INTEGER, Name TEXT, "first name" TEXT)'
SQL = "SELECT age FROM Head"


def repaired(sql: str, *, schema: str = SCHEMA, dialect: str = "sqlite", **options) -> str:
    """Return the repaired query of one record."""
    record = Record("How old?", schema, sql, dialect=dialect)
    ((new,), changes) = (found := Records([record]).repair(**options)).records, found.changes
    assert (new.sql != sql) == bool(changes)
    assert replace(new, sql=sql) == record
    return new.sql


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (f"```sql\n{SQL}\n```", SQL),
        (f"```{SQL}```", SQL),
        (f"```sql {SQL};```", SQL),
        (f" ~~~\r\n{SQL}\r\n~~~ ", SQL),
        (f"[SQL] {SQL} [/SQL];", SQL),
        (f"<sql>\n{SQL}</sql>", SQL),
        (f"`{SQL}`", SQL),
        (f"SQL: {SQL}", SQL),
        (f"SQL query: ```sql\n[SQL]{SQL};;[/SQL]```", SQL),
        (f"{SQL} ;\n;", SQL),
        (f"\ufeff{SQL}", SQL),
        ("SELECT\u00a0age\u2009FROM\u3000Head", SQL),
        ("SELECT age\r\nFROM Head", "SELECT age\nFROM Head"),
        ("SELECT a\u200bge FROM Head", SQL),
        ("SELECT 1 FROM Head WHERE age &gt;= 5 OR Name = &#39;&#39;", "SELECT 1 FROM Head WHERE age >= 5 OR Name = ''"),
        ("SELECT age FROM Head WHERE age &amp;lt; 5", "SELECT age FROM Head WHERE age < 5"),
        ("SELECT age FROM Head WHERE Name = ‘O’", "SELECT age FROM Head WHERE Name = 'O'"),
        ("SELECT age FROM Head WHERE Name = “It's”", "SELECT age FROM Head WHERE Name = 'It''s'"),
        ("SELECT age FROM Head WHERE Name = „x“", "SELECT age FROM Head WHERE Name = 'x'"),
        ("SELECT “first name” FROM Head", 'SELECT "first name" FROM Head'),
        ("SELECT age FROM Head WHERE age ≥ −5 AND age≠7", "SELECT age FROM Head WHERE age >= -5 AND age<>7"),
        ("SELECT COUNT（age） FROM Head", "SELECT COUNT(age) FROM Head"),
        ('SELECT age FROM Head WHERE Name = "Bob"', "SELECT age FROM Head WHERE Name = 'Bob'"),
        ('SELECT 1 FROM Head WHERE Name IN ("a""b", "it\'s")', "SELECT 1 FROM Head WHERE Name IN ('a\"b', 'it''s')"),
        ('SELECT age FROM Head WHERE Name LIKE "%x%" LIMIT 1', "SELECT age FROM Head WHERE Name LIKE '%x%' LIMIT 1"),
        ("SELECT AGE FROM HEAD WHERE head.NAME = 'AGE'", "SELECT age FROM Head WHERE Head.Name = 'AGE'"),
        ("SELECT h.AGE FROM HEAD AS h ORDER BY NAME", "SELECT h.age FROM Head AS h ORDER BY Name"),
    ],
)  # fmt: skip
def test_golds_are_repaired(sql: str, expected: str):
    assert repaired(sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        SQL,
        "SELECT age FROM Head WHERE Name = 'a &gt; b'",
        "SELECT age FROM Head WHERE Name = 'a\u00a0b' AND age > 1",
        "SELECT age FROM Head WHERE Name = 'CafÃ©'",
        "SELECT age FROM Head WHERE Name = '“x”; ≥'",
        "SELECT age FROM Head WHERE Name = 'x;'",
        "SELECT age FROM Head WHERE Name = 'Head.AGE' -- AGE;",
        # Names of columns, tables and aliases in double quotes
        'SELECT "age", "first name" FROM "Head"',
        'SELECT age AS "the age" FROM Head ORDER BY "the age"',
        'SELECT age FROM Head WHERE Name = "age"',
        # Misspelled columns, which SQLite reads as text
        'SELECT "agee" FROM Head',
        'SELECT COUNT(DISTINCT "agee") FROM Head',
        'SELECT age FROM Head WHERE 1987 = "a"',
        'SELECT age FROM Head WHERE "agee" > 5',
        'SELECT age FROM Head GROUP BY "agee" ORDER BY "agee"',
        # Aliases keep their case, and so do quoted names
        'SELECT MAX(age) AS AGE FROM Head ORDER BY AGE',
        'SELECT "AGE" FROM Head AS HEAD',
        # Nothing would be better
        "I do not know",
        "SELECT age FROM Head WHERE Name = ‘O’Brien’ OR x ; y",
        "SELECT age, ``` FROM Head",
    ],
)  # fmt: skip
def test_other_golds_stay(sql: str):
    assert repaired(sql) == sql


def test_a_column_with_two_spellings_keeps_its_case():
    schema = "CREATE TABLE a (Name TEXT, id INT); CREATE TABLE b (name TEXT, id INT)"
    assert repaired("SELECT NAME, ID FROM A", schema=schema) == "SELECT NAME, id FROM a"


def test_double_quotes_are_names_in_other_dialects():
    schema = 'CREATE TABLE head (age INT, name TEXT, "Size" INT)'
    sql = 'SELECT "Age" FROM head WHERE name = "Bob"'
    assert repaired(sql, schema=schema, dialect="postgres") == sql
    assert repaired("SELECT AGE FROM HEAD", schema=schema, dialect="postgres") == "SELECT age FROM head"
    assert repaired("SELECT size FROM HEAD", schema=schema, dialect="postgres") == "SELECT size FROM head"
    sql = "SELECT age FROM head WHERE name = 'it\\'s &gt;' AND name = \"x\""
    assert repaired(sql, schema="CREATE TABLE head (age INT, name TEXT)", dialect="mysql") == sql


def test_statements_that_need_their_semicolon_keep_it():
    sql = "BEGIN\n  UPDATE head SET age = 1;\nEND;"
    assert repaired(sql, schema="CREATE TABLE head (age INT)", dialect="oracle") == sql


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("  Who?\n", "Who?"),
        ("CafÃ© â€“ Zürich".replace("ü", "Ã¼"), "Café – Zürich"),
        ("CafÃƒÂ©", "Café"),
        ("ï»¿WhoÂ\xa0is it?", "Who is it?"),
        ("Who earns &gt; 5 &amp; lives?", "Who earns > 5 & lives?"),
        ("Who\u00a0earns\u200b \ufeffmore?", "Who earns more?"),
        ("Who said “hi”?", "Who said “hi”?"),
        ("CAFÉ", "CAFÉ"),
        ("Ana «AMANHÃ»", "Ana «AMANHÃ»"),
        ("CafÃ© 東京", "CafÃ© 東京"),
        ("👩\u200d🚀 and می\u200cخواهم", "👩\u200d🚀 and می\u200cخواهم"),
        ("R&D; x &unknown; y", "R&D; x &unknown; y"),
    ],
)
def test_questions_and_notes(question: str, expected: str):
    record = Record(question, SCHEMA, SQL, notes=question)
    assert list(Records([record]).repair().records) == [Record(expected, SCHEMA, SQL, notes=expected)]


def test_a_question_keeps_what_a_literal_has_too():
    record = Record("Who is at AT&amp;T?", SCHEMA, "SELECT age FROM Head WHERE Name = 'AT&amp;T'")
    assert not Records([record]).repair().changes
    other = replace(record, sql="SELECT age FROM Head WHERE Name = 'AT&T'")
    assert Records([other]).repair().records[0].question == "Who is at AT&T?"


def test_a_schema_changes_only_if_its_names_do_not():
    named = Record("Q", "CREATE TABLE t (first\u00a0name TEXT)", "SELECT first\u00a0name FROM t")
    assert not Records([named]).repair().changes
    spaced = replace(named, schema="CREATE TABLE\u00a0t (name TEXT)", sql="SELECT name FROM t")
    assert Records([spaced]).repair().records[0].schema == "CREATE TABLE t (name TEXT)"
    with_rows = replace(
        named, schema="CREATE TABLE t (a);\n-- a &gt; b\nINSERT INTO t VALUES ('&gt;');", sql="SELECT a FROM t"
    )
    assert not Records([with_rows]).repair().changes


def test_a_gold_that_compiles_must_still_compile():
    # SQLite reads a no-break space as a letter.
    named = Record("Q", 'CREATE TABLE t ("first\u00a0name" TEXT)', "SELECT first\u00a0name FROM t")
    assert not Records([named]).repair().changes
    other = replace(named, schema='CREATE TABLE t ("first" TEXT)')
    assert Records([other]).repair().records[0].sql == "SELECT first name FROM t"


def test_repeated_golds_are_removed():
    alternatives = ["select  age FROM Head;", "SELECT Head.age FROM Head", "SELECT age FROM Head WHERE Name = 'a'"]
    record = Record(
        "Q", SCHEMA, SQL, alternatives=[*alternatives, "SELECT age FROM Head WHERE Name = 'A'", alternatives[1]]
    )
    (new,) = Records([record]).repair().records
    assert new.alternatives == (*alternatives[1:], "SELECT age FROM Head WHERE Name = 'A'")


def test_duplicates_are_removed_after_the_other_repairs():
    one = Record("Q", SCHEMA, SQL, id="1")
    records = [one, replace(one, id="2", sql=f"{SQL};"), replace(one, notes="n"), replace(one, id="3", database="x")]
    repair = Records(records).repair()
    assert [record.id for record in repair.records] == ["1", "1", "3"]
    assert repair.counts == {"final-semicolon": 1, "duplicates": 1}
    assert (repair.changes[-1].position, repair.changes[-1].id, repair.changes[-1].after) == (1, "2", None)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return a directory with a database whose table has a column more than the records' schema."""
    with closing(sqlite3.connect(tmp_path / "d.sqlite")) as connection:
        connection.executescript(
            "CREATE TABLE Head (age INTEGER, Name TEXT, Bob TEXT);"
            "INSERT INTO Head VALUES (1, 'Bob', 'x'), (2, 'x', 'x')"
        )
    return tmp_path


def test_with_a_database_the_rows_must_be_the_same(database: Path):
    schema = "CREATE TABLE Head (age INTEGER, Name TEXT)"
    record = Record("Q", schema, 'SELECT age FROM Head WHERE Name = "Bob"', "d")
    # On the database, "Bob" is a column.
    assert Records([record]).repair().counts == {"double-quoted-text": 1}
    assert Records([record]).repair(database).counts == {}
    other = replace(record, sql='SELECT age FROM Head WHERE Name = "Rob"')
    wrapped = replace(record, sql="```SELECT age FROM Head```")
    random = replace(record, sql="SELECT RANDOM() FROM HEAD")
    repair = Records([other, wrapped, random, replace(other, database="missing")]).repair(database)
    assert repair.counts == {"wrapped-answer": 1, "double-quoted-text": 2}
    assert repair.records[2] == random


def test_changes_are_counted_listed_and_undone(tmp_path: Path):
    records = Records(
        [
            Record("Q ", SCHEMA, f"{SQL};", id="a"),
            Record("Q", SCHEMA, "SELECT 1", id="b"),
            Record("Q", SCHEMA, f"```{SQL}```", id="c"),
        ]
    )
    repair = records.repair()
    assert repair.undo() == repair.original == records
    assert [(change.position, change.repair, change.id) for change in repair.changes] == [
        (0, "outer-white-space", "a"),
        (0, "final-semicolon", "a"),
        (2, "wrapped-answer", "c"),
        (2, "duplicates", "c"),
    ]
    states = dict(enumerate(records))
    for change in repair.changes:
        assert states[change.position] == change.before
        states[change.position] = change.after
    assert [record for record in states.values() if record] == list(repair.records)
    assert str(repair).splitlines()[0] == "3 records: 2 repaired, 1 removed"
    assert "final-semicolon" in repair._repr_html_()
    assert "3 records" in repr(repair)
    repair.to_json(tmp_path / "changes.json")
    written = json.loads((tmp_path / "changes.json").read_text())
    assert written["counts"] == repair.counts
    assert written["changes"][1]["fields"] == {"sql": {"before": f"{SQL};", "after": SQL}}
    assert written["changes"][3]["removed"]["id"] == "c"


def test_repairs_are_chosen_by_name():
    records = Records([Record("Q ", SCHEMA, "```SELECT AGE FROM Head;```")])
    assert records.repair(repairs=["final-semicolon"]).counts == {}
    assert records.repair(repairs=("wrapped-answer", "letter-case")).records[0].sql == "SELECT age FROM Head;"
    with pytest.raises(ConfigError, match=r"'final-semicolons'.*'final-semicolon'"):
        records.repair(repairs=["final-semicolons"])
    with pytest.raises(ConfigError, match=r"concurrency.*0"):
        records.repair(concurrency=0)
    with pytest.raises(ConfigError, match=r"databases.*7.*limits.*5"):
        records.repair(7, limits=5)
    with pytest.raises(JudgingError, match="nowhere"):
        records.repair("nowhere")


def test_every_repair_has_a_name_a_reason_and_a_proof():
    assert len({*REPAIRS}) == len(RULES)
    for rule in RULES:
        assert (rule.reason[0].isupper(), rule.reason[-1] == ".") == (True, False)
        assert (rule.proof[0].isupper(), rule.proof[-1] == ".") == (True, True)


@pytest.mark.parametrize(
    "piece", ["[", "[a ", "‘", "“a", "```a", "`", '"a', "&amp", "<sql>", "SQL:", "-- ", "$a$ $b$ ", "Ã©", " ;"]
)
def test_the_time_grows_with_the_text(piece: str):
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    Records([Record(text, SCHEMA, f"{text} SELECT 1 {text}")]).repair()
    assert time.process_time() - start < 10


PIECES = st.sampled_from(
    [
        *("SELECT ", "AGE", "age", "Name", " FROM ", "HEAD", "Head", " WHERE ", " = ", '"Bob"', "'x'", ";"),
        *("“y”", "‘z’", "≥", "é"),
        *("```", "sql\n", "[SQL]", "[/SQL]", "&gt;", "&amp;gt;", " > 5", "\u00a0", "Ã©", " AND ", "`", "--", "\n"),
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES, min_size=1, max_size=12).map("".join).filter(str.strip)


@given(
    st.lists(
        st.builds(Record, TEXTS, st.sampled_from([SCHEMA, "none"]), TEXTS, alternatives=st.lists(TEXTS, max_size=2))
    )
)
def test_a_second_repair_changes_nothing_and_undo_everything(rows: list[Record]):
    records = Records(rows)
    repair = records.repair()
    assert repair.records.repair().changes == ()
    assert repair.undo() == records
    removed = {change.position for change in repair.changes if change.after is None}
    alone = [Records([record]).repair().records[0] for record in rows]
    assert [record for place, record in enumerate(alone) if place not in removed] == list(repair.records)
