"""Within a budget of tokens, the tables and columns that matter for a question are kept, and the tables between."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import sqlquarry as sq
from sqlquarry.errors import ConfigError
from sqlquarry.sql.ddl import read_schema

SHOP = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, full_name TEXT, birthDate DATE, fax TEXT, remark TEXT);
CREATE TABLE products (id INTEGER PRIMARY KEY, title TEXT, weight REAL, supplier TEXT, shelf INT, remark TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INT REFERENCES customers (id), day DATE, remark TEXT);
CREATE TABLE items (o INT REFERENCES orders (id), p INT REFERENCES products (id), remark TEXT, PRIMARY KEY (o, p));
CREATE TABLE logs (id INTEGER PRIMARY KEY, message TEXT, level TEXT, machine TEXT, process INT, thread INT);
CREATE TABLE dept (code TEXT, head TEXT);
"""


class Words:
    """Counts the words as tokens."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[str]]:
        assert not add_special_tokens
        return {"input_ids": text.split()}


@pytest.fixture
def database(tmp_path: Path) -> sq.Database:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SHOP)
        connection.execute("INSERT INTO products (title, supplier) VALUES ('Lamp', 'Acme Lights')")
        connection.commit()
    return sq.Database(path)


def kept(text: str) -> dict[str, set[str]]:
    schema = read_schema(text, "sqlite")
    assert schema is not None
    return {table.name: {column.name for column in table.columns.values()} for table in schema.tables.values()}


def test_a_schema_that_fits_is_unchanged(database: sq.Database) -> None:
    assert database.schema_text(question="How many logs?", max_tokens=10_000) == database.schema_text()


@pytest.mark.parametrize(
    ("question", "table", "column"),
    [
        ("What messages do the logs have?", "logs", "message"),
        ("What is the heaviest thing?", "products", "weight"),
        ("Who is the youngest?", "customers", "birthDate"),
        ("What does Acme Lights sell?", "products", "supplier"),
        ("Who is the head of the department?", "dept", "head"),
    ],
)
@pytest.mark.parametrize("max_tokens", [40, 80, 120])
def test_what_the_question_mentions_is_kept(
    database: sq.Database, question: str, table: str, column: str, max_tokens: int
) -> None:
    text = database.schema_text(question=question, max_tokens=max_tokens)
    assert column in kept(text)[table]
    assert len(text) <= 3 * max_tokens
    assert text == database.schema_text(question=question, max_tokens=max_tokens)


def test_tables_between_kept_tables_are_kept_with_their_keys(database: sq.Database) -> None:
    text = database.schema_text(question="Which customers bought which products?", max_tokens=90)
    tables = kept(text)
    assert {"customers", "orders", "items", "products"} <= set(tables)
    assert {"o", "p"} <= tables["items"]
    assert "customer" in tables["orders"]
    assert "logs" not in tables


def test_the_tokenizer_counts(database: sq.Database) -> None:
    question = "What messages do the logs have?"
    text = database.record(question, max_tokens=12, tokenizer=Words()).schema  # type: ignore[arg-type] # it only counts
    assert len(text.split()) <= 12
    assert "message" in kept(text)["logs"]


def test_a_budget_needs_a_question_and_room_for_one_column(database: sq.Database) -> None:
    with pytest.raises(ConfigError, match="77"):
        database.schema_text(max_tokens=77)
    with pytest.raises(ConfigError, match=r"2.*shop"):
        database.schema_text(question="How many logs?", max_tokens=2)
