"""Differences that generated databases show, and differences that they must not claim."""

import random
from collections import Counter

import pytest

from sqlquarry.judging.equivalence import EquivalenceGrader
from sqlquarry.judging.equivalence.counterexamples import counterexample
from sqlquarry.judging.equivalence.grader import equivalence
from sqlquarry.judging.equivalence.made_rows import literals_by_column, made_rows, tables_of
from sqlquarry.records import Record
from sqlquarry.sql.ddl import read_schema

SCHEMA = """CREATE TABLE team (id INT PRIMARY KEY, name TEXT, city TEXT, points INT, rate REAL);
CREATE TABLE player (id INT PRIMARY KEY, team_id INT, name TEXT, goals INT, born DATE,
  FOREIGN KEY (team_id) REFERENCES team (id))"""


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        ("SELECT name FROM team WHERE points + 1 > 50", "SELECT name FROM team WHERE points - 1 < 50"),
        ("SELECT city, count(*) FROM team GROUP BY city", "SELECT city, sum(points) FROM team GROUP BY city"),
        (
            "SELECT t.name FROM team t JOIN player p ON p.team_id = t.id WHERE p.goals + 0 > 3 AND t.city = 'Rome'",
            "SELECT p.name FROM team t JOIN player p ON p.team_id = t.id WHERE p.goals + 0 > 3 AND t.city = 'Rome'",
        ),
        ("SELECT name FROM team ORDER BY points + 0", "SELECT name FROM team ORDER BY points + 0 DESC"),
        ("SELECT name FROM team ORDER BY points LIMIT 1", "SELECT name FROM team ORDER BY points DESC LIMIT 1"),
        (
            "SELECT name FROM team WHERE id IN (SELECT team_id FROM player)",
            "SELECT city FROM team WHERE id IN (SELECT team_id FROM player)",
        ),
        ("SELECT max(points) FROM team UNION SELECT min(points) FROM team", "SELECT max(points) FROM team"),
    ],
)
def test_a_difference_is_found(gold, predicted):
    assert equivalence(gold, predicted, SCHEMA).answer == "different"
    assert equivalence(gold, predicted, SCHEMA, counterexamples=False).answer == "unknown"


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        # The queries are equivalent, but no rule proves it.
        ("SELECT name FROM team WHERE points > 50", "SELECT name FROM team WHERE points + 0 > 50"),
        ("SELECT count(*) FROM team", "SELECT sum(1) FROM team"),
        ("SELECT city FROM team INTERSECT SELECT city FROM team", "SELECT DISTINCT city FROM team"),
        # They differ only if a key or name is NULL, two rows have the same name, or a foreign key has no parent.
        ("SELECT count(*) FROM team", "SELECT count(id) FROM team"),
        ("SELECT count(*) FROM team", "SELECT count(DISTINCT name) FROM team"),
        ("SELECT name FROM player", "SELECT p.name FROM player p JOIN team t ON t.id = p.team_id"),
        (
            "SELECT goals FROM player WHERE team_id = (SELECT id FROM team WHERE name = 'Ajax')",
            "SELECT goals FROM player JOIN team ON team.id = team_id WHERE team.name = 'Ajax'",
        ),
        # They differ in repetitions of rows, or in rows whose order is not determined.
        ("SELECT city FROM team WHERE points + 0 > 1", "SELECT DISTINCT city FROM team WHERE points + 0 > 1"),
        ("SELECT city FROM team LIMIT 2", "SELECT city FROM team ORDER BY id LIMIT 2"),
        ("SELECT city, points FROM team GROUP BY city", "SELECT city, max(points) FROM team GROUP BY city"),
        # The functions change between calls, or their work is unbounded.
        ("SELECT name FROM team WHERE points > random()", "SELECT city FROM team WHERE points > random()"),
        ("SELECT date('now') FROM team WHERE points + 0 > 1", "SELECT points FROM team WHERE points + 0 > 1"),
        ("SELECT printf('%d', points) FROM team", "SELECT printf('%s', name) FROM team"),
        # The gold returns no rows, or only 0 and NULL.
        ("SELECT name FROM team WHERE points + 0 <> points + 0", "SELECT name FROM team WHERE points + 0 > 1"),
        ("SELECT sum(points) FROM team WHERE city = 'x' AND city = 'y'", "SELECT 5 FROM team WHERE city || 'x' = 'y'"),
    ],
)
def test_nothing_is_claimed_without_a_plausible_difference(gold, predicted):
    assert equivalence(gold, predicted, SCHEMA).answer == "unknown"


def test_hostile_predictions_are_unknown():
    gold = "SELECT name FROM team WHERE points + 0 > 1"
    for predicted in (
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x FROM r",
        "SELECT group_concat(a.name || b.name || c.name || d.name) FROM team a, team b, team c, team d, team e, team f",
        "SELECT replace(hex(zeroblob(99999)), '0', hex(zeroblob(99999)))",
        "SELECT name FROM team WHERE name LIKE '" + "%a" * 2_000 + "b'",
    ):
        assert equivalence(gold, predicted, SCHEMA).answer == "unknown"


def test_rows_fit_the_queries():
    schema = read_schema(SCHEMA, "sqlite")
    gold = "SELECT p.name FROM player p WHERE goals BETWEEN 3 AND 9 AND p.name LIKE '%Ann%' AND born = \"2001-02-03\""
    assert literals_by_column(gold)["goals"] == ["3", "9"]
    assert literals_by_column(gold)["name"] == ["%Ann%"]
    assert tables_of(gold, schema) == ["team", "player"]
    assert counterexample(gold, gold, schema) is None


@pytest.mark.parametrize("children", ["one", "each", "any"])
@pytest.mark.parametrize("seed", range(5))
def test_generated_rows_are_plausible(children, seed):
    schema = read_schema(SCHEMA, "sqlite")
    hints = {"goals": ["1000"], "name": ["%Ann%"]}
    rows = made_rows(["team", "player"], schema, hints, random.Random(seed), children)
    assert all(value is not None for content in rows.values() for row in content for value in row)
    teams, players = rows["team"], rows["player"]
    for content in (teams, players):
        assert len(content) >= 5
        assert {len(row) for row in content} == {5}
        assert len({row[0] for row in content}) == len(content)  # the primary key
    assert len({row[1] for row in teams}) == len(teams)  # names
    parents = Counter(row[1] for row in players)
    assert set(parents) <= {row[0] for row in teams}
    if children != "any":
        assert len(parents) == min(len(teams), len(players))
    assert len(players) <= 8 if children == "one" else len(players) >= 8
    assert {999, 1000, 1001} & {row[3] for row in players}  # goals close to the literal


def test_the_grader_runs_nothing_without_counterexamples():
    record = Record("q", SCHEMA, "SELECT name FROM team WHERE points + 0 > 1")
    wrong = "SELECT city FROM team WHERE points + 0 > 1"
    assert EquivalenceGrader().grade(record, wrong).verdict == "wrong"
    assert EquivalenceGrader(counterexamples=False).grade(record, wrong).verdict == "unjudged"
