"""Pairs, other words and questions that a model writes are checked like those of templates."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest

import sqlquarry as sq
from sqlquarry.data.database import Database
from sqlquarry.data.proposals.from_model import has_values, pairs_in
from sqlquarry.errors import ConfigError


class Stub:
    """A generator that answers each prompt with a function, and keeps the prompts."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer = answer
        self.prompts: list[str] = []

    def generate(self, inputs: Sequence[sq.Record] | Sequence[str], /) -> list[sq.Generation]:
        texts = [text for text in inputs if isinstance(text, str)]
        self.prompts += texts
        return [sq.Generation(self.answer(text)) for text in texts]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    path = tmp_path_factory.mktemp("shop") / "shop.sqlite"
    rows = ", ".join(f"({i}, 'Item{i}', '{'red' if i % 3 else 'blue'}', {i * 37 % 101})" for i in range(1, 41))
    people = ", ".join(f"({i}, 'p{i}@example.org')" for i in range(1, 41))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE items (id INTEGER PRIMARY KEY, label TEXT, color TEXT, price INTEGER);"
            f"INSERT INTO items VALUES {rows};"
            "CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT);"
            f"INSERT INTO people VALUES {people};"
        )
    database = Database(path)
    yield database
    database.close()


PAIRS = """Here are some:

1. **Question:** How much does Item7 cost?
   **SQL:** ```sql
SELECT price FROM items
WHERE label = 'Item7';
```
2. Question: Which items are green?
SQL: SELECT label FROM items WHERE color = 'green';
3. Question: What is broken?
SQL: SELECT label FROM items WHERE wrong = 1
4. Question: Remove everything.
SQL: DELETE FROM items
"""


def test_pairs_are_found_in_answers() -> None:
    assert [*pairs_in(PAIRS)] == [
        ("How much does Item7 cost?", "SELECT price FROM items WHERE label = 'Item7'"),
        ("Which items are green?", "SELECT label FROM items WHERE color = 'green'"),
        ("What is broken?", "SELECT label FROM items WHERE wrong = 1"),
        ("Remove everything.", "DELETE FROM items"),
    ]
    assert [*pairs_in("")] == [*pairs_in("I cannot help.")] == []


def test_only_good_pairs_of_a_model_are_kept(shop: Database) -> None:
    model = Stub(lambda _: PAIRS)
    found = sq.propose_records(shop, 10, generator=model)
    assert len(found) == 10  # templates make what the model does not find
    assert found.report.by_template["model"] == 1
    assert "How much does Item7 cost?" in [record.question for record in found]
    rejected = found.report.rejected
    assert rejected["no rows"] >= 1
    assert rejected["no_such_column"] >= 1
    assert rejected["no single query"] >= 1
    assert all("CREATE TABLE items" in prompt and "'blue'" in prompt for prompt in model.prompts)
    assert not [prompt for prompt in model.prompts if "@example.org" in prompt]


def test_open_answers_and_repeats_of_a_model_are_rejected(shop: Database) -> None:
    model = Stub(
        lambda _: (
            "Question: Name one red item.\nSQL: SELECT label FROM items WHERE color = 'red' LIMIT 1\n"
            "Question: Which color comes first?\nSQL: SELECT label FROM items ORDER BY color LIMIT 2\n"
            "Question: Blue?\nSQL: SELECT COUNT(*) AS n FROM items WHERE color = 'blue' ORDER BY n LIMIT 1\n"
        )
    )
    found = sq.propose_records(shop, 4, generator=model, model_share=1.0)
    assert found.report.by_template["model"] == 1
    assert found.report.rejected["open answer"] >= 2
    assert found.report.rejected["repeated"] >= 1


def test_repeated_questions_and_empty_answers_of_a_model_are_rejected(shop: Database) -> None:
    model = Stub(
        lambda _: (
            "Question: What does it cost?\nSQL: SELECT price FROM items WHERE label = 'Item3'\n"
            "Question: what does IT cost\nSQL: SELECT price, color FROM items WHERE label = 'Item4'\n"
            "Question: How many cost 1000?\nSQL: SELECT COUNT(*) FROM items WHERE price = 1000\n"
        )
    )
    found = sq.propose_records(shop, 3, generator=model, model_share=1.0)
    assert found[0].sql == "SELECT price FROM items WHERE label = 'Item3'"
    assert found.report.by_template["model"] == 1
    assert found.report.rejected["only NULL or 0"] >= 1


def test_rephrased_questions_keep_their_values(shop: Database) -> None:
    plain = sq.propose_records(shop, 20)
    model = Stub(lambda prompt: "Tell us: " + prompt.split("Question: ")[1].split("\n")[0])
    found = sq.propose_records(shop, 20, generator=model, rephrase=True, model_share=0.0)
    assert [record.question for record in found] == [f"Tell us: {record.question}" for record in plain]
    forgetful = Stub(lambda _: "What about it?")
    found = sq.propose_records(shop, 20, generator=forgetful, rephrase=True, model_share=0.0)
    changed = [old for old, new in zip(plain, found, strict=True) if new.question != old.question]
    assert len(changed) == 1  # the other records keep their questions, because one question has one query
    assert "'" not in (changed[0].sql or "")


def test_values_of_the_query_must_stay() -> None:
    assert has_values("Which are blue?", 'Which are "blue"?', "SELECT a FROM t WHERE b = 'blue'")
    assert not has_values("Which are dark?", 'Which are "blue"?', "SELECT a FROM t WHERE b = 'blue'")
    assert not has_values("Which cost much?", "Which cost more than 40?", "SELECT a FROM t WHERE b > 40")
    assert has_values("The cheapest?", "The lowest price?", "SELECT a FROM t ORDER BY b LIMIT 1")


def test_log_becomes_records(shop: Database) -> None:
    log = [
        "SELECT label FROM items WHERE price > 50;",
        "SELECT label FROM items WHERE price > 50",
        "SELECT id FROM people WHERE email = 'p3@example.org'",
        "SELECT wrong FROM items",
        "UPDATE items SET price = 1",
        "SELECT color, COUNT(*) FROM items GROUP BY color",
    ]
    model = Stub(lambda prompt: "Question: What does " + prompt.rsplit("SQL: ", 1)[1].strip() + " return?")
    found = sq.records_from_log(log, shop, model)
    assert [record.sql for record in found] == [log[1], log[5]]
    assert found[0].question == f"What does {log[1]} return?"
    assert found.report.rejected == {"no single query": 1, "no_such_column": 1, "personal": 1}
    assert len(model.prompts) == 2  # only for queries that pass


def test_log_without_questions(shop: Database) -> None:
    found = sq.records_from_log(["SELECT label FROM items WHERE price > 50"], shop, Stub(lambda _: " \n"))
    assert len(found) == 0
    assert found.report.rejected == {"no question": 1}
    with pytest.raises(ConfigError, match="queries"):
        sq.records_from_log("SELECT 1", shop, Stub(lambda _: ""))
