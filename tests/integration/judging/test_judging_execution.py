"""Verdicts of ExecutionGrader on a real SQLite file, with their reasons and details."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from judging_shop import create_shop, record
from sqlquarry.errors import JudgingError
from sqlquarry.execution.sandbox import Sandbox
from sqlquarry.judging import ExecutionGrader


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return create_shop(tmp_path_factory.mktemp("db"))


@pytest.fixture(scope="module")
def grader(database):
    return ExecutionGrader({"shop": database})


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict", "reason"),  # a pattern of the values in the reason
    [
        ("SELECT id, name FROM item", "SELECT name, id FROM item ORDER BY name", "correct", "1,000"),
        ("SELECT id FROM item ORDER BY id", "SELECT id FROM item ORDER BY id DESC", "wrong", "ORDER BY"),
        ("SELECT id FROM item WHERE id < 0", "SELECT name FROM item WHERE id < 0", "correct", "empty"),
        ("SELECT id FROM item WHERE id < 0", "SELECT * FROM item WHERE id < 0", "wrong", r"\b3\b.*\b1\b"),
        ("SELECT id FROM item WHERE id < 0", "SELECT id FROM item LIMIT 1", "wrong", r"\b1\b.*\b0\b"),
        ("SELECT count(*) FROM item", "SELECT '1000'", "wrong", r"^\D*\brow$"),
        ("SELECT id FROM item", "SELECT id, name FROM item", "wrong", r"\b2\b.*\b1\b"),
        ("SELECT id FROM item", "SELECT id FROM item LIMIT 5", "wrong", r"\b5\b.*\b1,000\b"),
        ("SELECT id FROM item LIMIT 2", "SELECT id - 1 FROM item LIMIT 2", "wrong", r"\b1\b.*\b2\b"),
        ("SELECT id FROM item LIMIT 2", "SELECT id + 1 FROM item LIMIT 2", "unjudged", "LIMIT"),
        ("SELECT id FROM item", "SELECT nope FROM item", "wrong", "no such column: nope"),
        ("SELECT id FROM item", "", "wrong", "^(?!.*gold).*SQL"),
        ("SELECT nope FROM item", "SELECT id FROM item", "unjudged", "gold SQL.*no such column: nope"),
        ("DROP TABLE item", "DROP TABLE item", "unjudged", "gold SQL"),
        (None, "SELECT 1", "unjudged", "gold SQL"),
    ],
)
def test_verdicts(grader, gold, predicted, verdict, reason):
    judgement = grader.grade(record(gold), predicted)
    assert judgement.verdict == verdict
    assert re.search(reason, judgement.reason)


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        # price has only three values, so each query below has hundreds of ties.
        ("SELECT id FROM item ORDER BY price", "SELECT id FROM item ORDER BY price, id DESC", "correct"),
        ("SELECT id FROM item ORDER BY price", "SELECT id FROM item ORDER BY price DESC", "wrong"),
        ("SELECT id, price AS p FROM item ORDER BY p", "SELECT price, id FROM item ORDER BY price, id DESC", "correct"),
        ("SELECT id, price FROM item ORDER BY 2", "SELECT id, price FROM item ORDER BY price, id DESC", "correct"),
        ("SELECT id, price FROM item ORDER BY 2", "SELECT id, price FROM item ORDER BY id DESC", "wrong"),
        (
            "SELECT price FROM item GROUP BY price ORDER BY count(*) > 333",
            "SELECT price FROM item GROUP BY price ORDER BY count(*) > 333, price DESC",
            "correct",
        ),
        ("SELECT DISTINCT price FROM item ORDER BY price", "SELECT price FROM item GROUP BY 1 ORDER BY 1", "correct"),
        ("SELECT 2 AS a UNION SELECT 1 ORDER BY a", "SELECT 1 UNION SELECT 2 ORDER BY 1 DESC", "wrong"),
        # Keys are found among the columns of a result, also after a star and in a set operation.
        (
            "SELECT id, price FROM item WHERE id < 9 UNION SELECT id, price FROM item WHERE id > 990 ORDER BY price",
            "SELECT id, price FROM item WHERE id < 9 OR id > 990 ORDER BY price, id DESC",
            "correct",
        ),
        ("SELECT * FROM item ORDER BY 3", "SELECT * FROM item ORDER BY price, id DESC", "correct"),
        ("SELECT * FROM item ORDER BY 3", "SELECT * FROM item ORDER BY price DESC", "wrong"),
        ("SELECT *, id % 2 AS odd FROM item ORDER BY odd", "SELECT *, id % 2 FROM item ORDER BY 4, id DESC", "correct"),
        # Only the database knows that these keys tie, because of a collation or a cast whose spelling matters.
        (
            "SELECT id FROM item ORDER BY upper(name) < 'J' COLLATE NOCASE",
            "SELECT id FROM item ORDER BY id DESC",
            "correct",
        ),
        (
            "SELECT id FROM item ORDER BY CAST(price AS DATE)",
            "SELECT id FROM item ORDER BY CAST(price AS DATE), id DESC",
            "correct",
        ),
        ("SELECT id FROM item ORDER BY CAST(price AS DATE)", "SELECT id FROM item ORDER BY -price", "wrong"),
        # Neither columns nor ranks show the keys of DISTINCT.
        ("SELECT DISTINCT price FROM item ORDER BY name", "SELECT DISTINCT price FROM item ORDER BY price", "unjudged"),
        # An ORDER BY that is not at the top level does not order the result.
        ("SELECT id FROM (SELECT id FROM item ORDER BY id)", "SELECT id FROM item ORDER BY id DESC", "correct"),
    ],
)
def test_ties_in_order_by_may_come_in_any_order(grader, gold, predicted, verdict):
    assert grader.grade(record(gold), predicted).verdict == verdict


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        # 333 or 334 items have each of the three prices 0.1, 1.1 and 2.1.
        ("SELECT id FROM item ORDER BY price LIMIT 1", "SELECT max(id) FROM item WHERE price < 1", "correct"),
        ("SELECT id FROM item ORDER BY price LIMIT 1", "SELECT max(id) FROM item WHERE price > 1", "wrong"),
        (
            "SELECT id FROM item ORDER BY price DESC LIMIT 3",
            "SELECT id FROM item WHERE price > 2 ORDER BY 1 DESC LIMIT 3",
            "correct",
        ),
        ("SELECT id FROM item ORDER BY price DESC LIMIT 3", "SELECT id FROM item WHERE price > 2 LIMIT 2", "wrong"),
        ("SELECT id FROM item ORDER BY price LIMIT 2", "SELECT 999 UNION ALL SELECT 999", "wrong"),  # one row twice
        (
            "SELECT id FROM item ORDER BY price LIMIT 1 OFFSET 900",
            "SELECT min(id) FROM item WHERE price > 2",
            "correct",
        ),
        (
            "SELECT name, price FROM item ORDER BY price LIMIT 1 OFFSET 5",
            "SELECT price, name FROM item WHERE price < 1 ORDER BY id DESC LIMIT 1",
            "correct",
        ),
        (
            "SELECT id, price FROM item ORDER BY 2, id LIMIT 1",
            "SELECT max(id), price FROM item WHERE price < 1",
            "wrong",
        ),
        # The rank of a window function, columns after a star, a set operation, and limits that are not plain numbers.
        (
            "SELECT id, rank() OVER (ORDER BY price) AS r FROM item ORDER BY r LIMIT 2",
            "SELECT id, 1 FROM item WHERE price < 1 ORDER BY id DESC LIMIT 2",
            "correct",
        ),
        (
            "SELECT * FROM item ORDER BY 3 LIMIT 2",
            "SELECT * FROM item WHERE price < 1 ORDER BY 1 DESC LIMIT 2",
            "correct",
        ),
        (
            "SELECT name, price FROM item UNION SELECT name, price FROM item ORDER BY 2 LIMIT 1",
            "SELECT name, price FROM item WHERE price < 1 ORDER BY id DESC LIMIT 1",
            "correct",
        ),
        ("SELECT id FROM item ORDER BY price LIMIT 1 + 1", "SELECT id FROM item WHERE id IN (6, 9)", "correct"),
        (
            "SELECT id FROM item ORDER BY price LIMIT -1 OFFSET 1",
            "SELECT id FROM item WHERE id <> 6 ORDER BY price",
            "correct",
        ),
        ("SELECT id FROM item ORDER BY price LIMIT 1 + 1", "SELECT id FROM item WHERE id IN (6, 7)", "wrong"),
        # Five columns with different names in a different order.
        (
            "SELECT id, name, price, id * 2, 'x' FROM item ORDER BY price LIMIT 2",
            "SELECT 'x' AS a, price AS b, id * 2 AS c, id AS d, name AS e FROM item WHERE id IN (9, 12)",
            "correct",
        ),
        (
            "SELECT id, name, price, id * 2, 'x' FROM item ORDER BY price LIMIT 2",
            "SELECT 'x' AS a, price AS b, id * 3 AS c, id AS d, name AS e FROM item WHERE id IN (9, 12)",
            "wrong",
        ),
        # The LIMIT keeps all items with higher prices and some of those that cost 0.1.
        (
            "SELECT id FROM item ORDER BY price DESC LIMIT 700",
            "SELECT id FROM item ORDER BY price DESC, id DESC LIMIT 700",
            "correct",
        ),
        ("SELECT id FROM item ORDER BY price DESC LIMIT 700", "SELECT id FROM item ORDER BY price LIMIT 700", "wrong"),
    ],
)
def test_any_choice_of_rows_that_tie_at_a_limit_is_right(grader, gold, predicted, verdict):
    judgement = grader.grade(record(gold), predicted)
    assert judgement.verdict == verdict
    assert ("LIMIT" in judgement.reason) is (verdict == "correct")


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict", "reason"),
    [
        (
            "SELECT min(id) AS low, max(id) AS high FROM item",
            "SELECT max(id) AS low, min(id) AS high FROM item",
            "wrong",
            r"^\D*\bcolumn\b",
        ),
        (
            "SELECT min(id) AS low, max(id) AS high FROM item",
            "SELECT max(id) AS high, min(id) AS low FROM item",
            "correct",
            "",
        ),
        ("SELECT min(id) AS low, max(id) AS high FROM item", "SELECT max(id), min(id) FROM item", "correct", ""),
        (
            "SELECT round(avg(id) / 9, 2) FROM item",
            "SELECT avg(id) / 9 FROM item",
            "wrong",
            r"\b2\b",
        ),
        ("SELECT round(avg(id) / 7, 3) FROM item", "SELECT avg(id) / 8 FROM item", "wrong", r"^\D*\brow$"),
        ('SELECT AVG("pricee") FROM item', 'SELECT AVG("pricee") FROM item', "correct", '"pricee"'),
        ('SELECT id FROM item WHERE "pricee" > 1', "SELECT id FROM item", "correct", '"pricee"'),
        ('SELECT id FROM item WHERE name = "item 3"', "SELECT 3", "correct", r"\b1\b"),
    ],
)
def test_reasons_explain_differences_that_are_easy_to_miss(grader, gold, predicted, verdict, reason):
    judgement = grader.grade(record(gold), predicted)
    assert judgement.verdict == verdict
    assert re.search(reason, judgement.reason)
    assert ('"pricee"' in judgement.reason) is ("pricee" in gold)


def test_order_counts_in_the_dialect_of_the_database_not_of_the_record(grader):
    other = dataclasses.replace(record("SELECT id FROM item ORDER BY id"), dialect="oracle")
    assert grader.grade(other, "SELECT id FROM item ORDER BY id DESC").verdict == "wrong"


def test_a_comparison_that_is_too_hard_is_unjudged_but_a_wrong_answer_stays_wrong(grader, monkeypatch):
    verdicts = [False]

    def too_hard(*_, **__):
        if verdicts:
            return verdicts.pop()
        raise JudgingError("too hard")

    monkeypatch.setattr("sqlquarry.judging.execution.outcome.rows_match", too_hard)
    wrong = grader.grade(record("SELECT id FROM item ORDER BY id"), "SELECT id FROM item ORDER BY id DESC")
    unjudged = grader.grade(record("SELECT id FROM item"), "SELECT id + 1 FROM item")
    assert (wrong.verdict, unjudged.verdict, unjudged.reason) == ("wrong", "unjudged", "too hard")


def test_details_are_ready_for_json(grader):
    sql = "SELECT id, NULL, X'00ff', 9e999, printf('%.*c', 1000, 'x') FROM item"
    details = json.loads(json.dumps(grader.grade(record(sql), sql).details, allow_nan=False))
    assert details["gold"]["count"] == 1000
    assert len(details["gold"]["rows"]) == 10
    assert details["gold"]["rows"][0][:4] == [1, None, "X'00ff'", "inf"]
    assert details["gold"]["rows"][0][4] == "x" * 200 + "…"


def test_gold_results_are_cached(database, monkeypatch):
    grader = ExecutionGrader({"shop": database})
    ran = []
    run = Sandbox.run
    monkeypatch.setattr(Sandbox, "run", lambda self, database, sql: ran.append(sql) or run(self, database, sql))
    for _ in range(3):
        grader.grade(record("SELECT 1"), "SELECT 2")
    assert sorted(ran) == ["SELECT 1", "SELECT 2", "SELECT 2", "SELECT 2"]
