"""Synthesized databases contain the rows that expose wrong queries, and reasons report the cases when they do not."""

import json
import re
import sqlite3

import pytest

from sqlquarry.judging import ExecutionGrader
from sqlquarry.judging.synthesis import SynthesizedDatabases
from sqlquarry.judging.synthesis.synthesized_databases import IMPLAUSIBLE
from sqlquarry.records import Record

LOAN = """
CREATE TABLE member (member_id INTEGER PRIMARY KEY, name TEXT, town TEXT);
CREATE TABLE loan (loan_id INTEGER PRIMARY KEY, member_id INTEGER REFERENCES member (member_id),
                   lent TEXT, fee REAL, note TEXT);
"""
GAME = "CREATE TABLE game (venue VARCHAR, crowd VARCHAR, day VARCHAR)"
RUN = """
CREATE TABLE run (id INTEGER PRIMARY KEY, team TEXT, runner TEXT, points INTEGER, day DATE);
CREATE TABLE jump (id INTEGER PRIMARY KEY, team TEXT, points INTEGER);
"""
DUMP = """
CREATE TABLE sqlite_sequence(name, seq); CREATE TABLE IF NOT EXISTS sqlite_stat1(tbl, idx, stat);
CREATE TABLE "pet" (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT);
"""
BIG = 'SELECT venue FROM game WHERE crowd > "38,250"'
BUSY = "SELECT member_id FROM loan GROUP BY member_id HAVING COUNT(*) > 70"
JOINED = "SELECT m.name FROM member AS m JOIN loan AS l ON m.member_id = l.member_id GROUP BY m.member_id"
LENT = "SELECT name FROM member JOIN loan USING (member_id)"
NOVEMBER = "SELECT AVG(fee) FROM loan WHERE strftime('%m', lent) = '11'"
RANKED = "SELECT runner, RANK() OVER (ORDER BY points DESC) FROM run"
LAGGED = "SELECT id, LAG(points) OVER (PARTITION BY team ORDER BY id) FROM run"
SUMMED = "SELECT id, SUM(points) OVER (PARTITION BY team ORDER BY id) FROM run"

WRONG = {
    "a part of a date in text": [
        (LOAN, NOVEMBER, "SELECT NULL"),
        (LOAN, NOVEMBER, "SELECT AVG(fee) FROM loan WHERE strftime('%m', lent) = '10'"),
        (LOAN, NOVEMBER, "SELECT AVG(fee) FROM loan WHERE strftime('%d', lent) = '11'"),
        (LOAN, f"{LENT} WHERE strftime('%Y', lent) = '2019'", "SELECT name FROM member WHERE 1 = 0"),
        (LOAN, f"{LENT} WHERE strftime('%Y', lent) = '2019'", f"{LENT} WHERE lent >= '2019-01-01'"),
        (
            LOAN,
            "SELECT COUNT(*) FROM loan WHERE CAST(strftime('%Y', lent) AS INTEGER) BETWEEN 2015 AND 2018",
            "SELECT COUNT(*) FROM loan WHERE CAST(strftime('%Y', lent) AS INTEGER) BETWEEN 2015 AND 2019",
        ),
        (LOAN, "SELECT SUM(fee) FROM loan WHERE date(lent) > '2021-05-04'", "SELECT SUM(fee) FROM loan WHERE 1 = 0"),
        (LOAN, "SELECT AVG(julianday(lent)) FROM loan", "SELECT NULL"),
        (
            RUN,
            "SELECT julianday(MAX(day)) - julianday(MIN(day)) FROM run",
            "SELECT julianday(MIN(day)) - julianday(MAX(day)) FROM run",
        ),
        (GAME, "SELECT venue FROM game WHERE day = 'may 4, 1992'", "SELECT venue FROM game WHERE 1 = 0"),
    ],
    "a large group": [
        (LOAN, BUSY, "SELECT member_id FROM loan WHERE 1 = 0"),
        (LOAN, BUSY, BUSY.replace("> 70", ">= 70")),
        (LOAN, BUSY, BUSY.replace("> 70", "> 71")),
        (LOAN, f"{JOINED} HAVING COUNT(*) > 55", f"{JOINED} HAVING COUNT(*) > 54"),
        (LOAN, f"{JOINED} HAVING COUNT(*) > 55", "SELECT name FROM member WHERE 0"),
        (
            LOAN,
            "SELECT name FROM member m WHERE (SELECT COUNT(*) FROM loan l WHERE l.member_id = m.member_id) > 60",
            "SELECT name FROM member WHERE 0",
        ),
    ],
    "text in a range": [
        (GAME, BIG, "SELECT venue FROM game WHERE 1 = 0"),
        (GAME, BIG, BIG.replace(">", ">=")),
        (GAME.replace("crowd VARCHAR", "crowd INTEGER"), BIG, "SELECT venue FROM game WHERE 1 = 0"),
        (GAME, "SELECT COUNT(*) FROM game WHERE venue BETWEEN 'Kew' AND 'Oval'", "SELECT 0"),
        (
            GAME,
            "SELECT COUNT(*) FROM game WHERE venue BETWEEN 'Kew' AND 'Oval'",
            "SELECT COUNT(*) FROM game WHERE venue > 'Kew' AND venue <= 'Oval'",
        ),
    ],
    "a window": [
        (RUN, RANKED, "SELECT runner, 1 FROM run"),
        (RUN, RANKED, RANKED.replace("RANK", "DENSE_RANK")),
        (RUN, RANKED, RANKED.replace("RANK", "ROW_NUMBER")),
        (RUN, RANKED, RANKED.replace(" DESC", "")),
        (RUN, LAGGED, LAGGED.replace("LAG", "LEAD")),
        (RUN, LAGGED, LAGGED.replace("PARTITION BY team ", "")),
        (RUN, LAGGED, LAGGED.replace("(points)", "(points, 2)")),
        (RUN, SUMMED, SUMMED.replace(" ORDER BY id", "")),
        (RUN, SUMMED, SUMMED.replace("ORDER BY id", "ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW")),
        (RUN, SUMMED, "SELECT id, points FROM run"),
    ],
    "another table": [
        (RUN, "SELECT COUNT(*) FROM run", "SELECT COUNT(*) FROM jump"),
        (RUN, "SELECT team, SUM(points) FROM run GROUP BY team", "SELECT team, SUM(points) FROM jump GROUP BY team"),
    ],
    "signs, fractions, blanks": [
        (RUN, "SELECT points FROM run", "SELECT ABS(points) FROM run"),
        (LOAN, "SELECT CAST(fee AS INTEGER) FROM loan", "SELECT ROUND(fee) FROM loan"),
        (LOAN, "SELECT ROUND(fee, 1) FROM loan", "SELECT ROUND(fee, 2) FROM loan"),
        (LOAN, "SELECT loan_id FROM loan WHERE fee > 0", "SELECT loan_id FROM loan WHERE fee <> 0"),
        (LOAN, "SELECT TRIM(town) FROM member", "SELECT town FROM member"),
        (LOAN, "SELECT name FROM member WHERE town = 'Rena'", "SELECT name FROM member WHERE TRIM(town) = 'Rena'"),
        (LOAN, "SELECT name FROM member WHERE town = 'Rena'", "SELECT name FROM member WHERE LOWER(town) = 'rena'"),
    ],
    "nothing in a table or column": [
        (
            LOAN,
            f"{JOINED} ORDER BY COUNT(*) DESC LIMIT 1",
            f"{JOINED.replace('JOIN', 'LEFT JOIN')} ORDER BY COUNT(*) DESC LIMIT 1",
        ),
        (LOAN, "SELECT COUNT(note) FROM loan", "SELECT COUNT(*) FROM loan"),
        (LOAN, "SELECT COUNT(note) FROM loan", "SELECT SUM(note IS NOT NULL) FROM loan"),
    ],
}
RIGHT = [
    (LOAN, NOVEMBER, "SELECT AVG(fee) FROM loan WHERE substr(lent, 6, 2) = '11'"),
    (LOAN, NOVEMBER, "SELECT AVG(fee) FROM loan WHERE lent LIKE '%-11-%'"),
    (LOAN, f"{LENT} WHERE strftime('%Y', lent) = '2019'", f"{LENT} WHERE lent LIKE '2019%'"),
    (
        LOAN,
        f"{LENT} WHERE strftime('%Y', lent) = '2019'",
        f"{LENT} WHERE lent >= '2019-01-01' AND lent < '2020-01-01'",
    ),
    (LOAN, BUSY, BUSY.replace("COUNT(*)", "COUNT(loan_id)")),
    (
        LOAN,
        f"{JOINED} HAVING COUNT(*) > 55",
        f"SELECT name FROM member WHERE member_id IN ({BUSY.replace('70', '55')})",
    ),
    (GAME, BIG, "SELECT venue FROM game WHERE CAST(REPLACE(crowd, ',', '') AS INTEGER) > 38250"),
    (RUN, RANKED, "SELECT r.runner, RANK() OVER (ORDER BY r.points DESC) AS place FROM run r"),
    (
        RUN,
        SUMMED,
        SUMMED.replace("ORDER BY id", "ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"),
    ),
    (RUN, "SELECT COUNT(*) FROM run", "SELECT COUNT(id) FROM run"),
    (
        RUN,
        "SELECT runner FROM run WHERE day LIKE '2022%'",
        "SELECT runner FROM run WHERE strftime('%Y', day) = '2022'",
    ),
    (
        RUN,
        "SELECT runner FROM run WHERE day LIKE '2022%'",
        "SELECT runner FROM run WHERE day BETWEEN '2022-01-01' AND '2022-12-31'",
    ),
    (
        DUMP,
        "SELECT name FROM pet",
        "SELECT p.name FROM pet p",
    ),
]


@pytest.fixture(scope="module")
def grader():
    return ExecutionGrader(SynthesizedDatabases(time_budget_s=5.0))


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_query_is_caught(grader, kind):
    for schema, gold, predicted in WRONG[kind]:
        judgement = grader.grade(Record("q", schema, gold), predicted)
        assert judgement.verdict == "wrong", (gold, predicted, judgement)


@pytest.mark.parametrize(("schema", "gold", "predicted"), RIGHT, ids=range(len(RIGHT)))
def test_a_right_query_passes(grader, schema, gold, predicted):
    judgement = grader.grade(Record("q", schema, gold), predicted)
    assert judgement.verdict == "correct", judgement


@pytest.mark.parametrize(
    "gold",
    [
        "SELECT venue FROM game WHERE crowd BETWEEN 5 AND 10",  # as text, '5' comes after '10'
        "SELECT venue FROM game WHERE venue = 'a' AND venue = 'b'",
        "SELECT COUNT(*) FROM game WHERE venue > 'x' AND venue < 'a'",
        "SELECT MAX(crowd) FROM game WHERE 1 = 0",
    ],
)
def test_a_gold_that_never_returns_anything_leaves_the_record_unjudged(gold):
    databases = SynthesizedDatabases()
    for predicted in ("SELECT venue FROM game WHERE 1 = 0", gold):
        judgement = ExecutionGrader(databases).grade(Record("q", GAME, gold), predicted)
        assert judgement.verdict == "unjudged"
        assert repr(gold) in judgement.reason
    assert sum(databases.coverage().quarantined.values()) == 1


def test_a_suite_that_leaves_most_mutants_alive_is_not_used():
    # A column always equals itself, so most changes to this condition have no effect.
    gold = "SELECT venue FROM game WHERE crowd = crowd OR crowd IS NULL OR venue IS NULL OR 2 > 1 OR 4 > 3 OR 8 > 5"
    judgement = ExecutionGrader(SynthesizedDatabases()).grade(Record("q", GAME, gold), gold)
    assert judgement.verdict == "unjudged"
    killed, mutants = map(int, re.findall(r"\b\d+\b(?!%)", judgement.reason))
    assert 0 < killed < 0.5 * mutants
    assert "50%" in judgement.reason


CATALOGUE = """
CREATE TABLE maker (maker_id INTEGER PRIMARY KEY, name TEXT, country TEXT);
CREATE TABLE model (model_id INTEGER PRIMARY KEY, maker_id INTEGER, year INTEGER);
"""
BY_ID = "SELECT k.name FROM maker k JOIN model d ON k.maker_id = d.maker_id GROUP BY k.maker_id HAVING COUNT(*) > 1"
OF_EACH = "JOIN model d ON k.maker_id = d.maker_id GROUP BY k.maker_id"
ONLY_IMPLAUSIBLE = [
    (BY_ID, BY_ID.replace("BY k.maker_id", "BY k.name")),  # two makers with the same name
    ("SELECT COUNT(*) FROM model", "SELECT COUNT(*) FROM model m JOIN maker k ON m.maker_id = k.maker_id"),  # orphans
    ("SELECT name FROM maker", "SELECT DISTINCT name FROM maker"),
    ("SELECT name FROM maker WHERE country = 'Peru'", "SELECT name FROM maker WHERE LOWER(country) = 'peru'"),
    ("SELECT COUNT(*) FROM maker", "SELECT COUNT(country) FROM maker"),
    ("SELECT year FROM model", "SELECT ABS(year) FROM model"),
]
ALSO_PLAUSIBLE = [
    ("SELECT country FROM maker", "SELECT DISTINCT country FROM maker"),
    ("SELECT name FROM maker WHERE country = 'Peru'", "SELECT name FROM maker WHERE country <> 'Peru'"),
    (
        "SELECT COUNT(country) FROM maker",
        "SELECT COUNT(*) FROM maker",
    ),  # COUNT of a column suggests that it may be NULL
    ("SELECT name FROM maker WHERE country IS NULL", "SELECT name FROM maker WHERE country = ''"),
    (
        f"SELECT k.name, COUNT(d.model_id) FROM maker k LEFT {OF_EACH}",
        f"SELECT k.name, COUNT(d.model_id) FROM maker k {OF_EACH}",
    ),
]


@pytest.mark.parametrize(
    ("gold", "predicted", "implausible"),
    [(*pair, True) for pair in ONLY_IMPLAUSIBLE] + [(*pair, False) for pair in ALSO_PLAUSIBLE],
)
def test_a_verdict_that_rests_on_rows_nobody_expects_is_marked(grader, gold, predicted, implausible):
    judgement = grader.grade(Record("q", CATALOGUE, gold), predicted)
    assert judgement.verdict == "wrong"
    assert (judgement.details.get("caveat") == IMPLAUSIBLE) is implausible, judgement
    assert (IMPLAUSIBLE in judgement.reason) is implausible
    json.dumps(judgement.details)


@pytest.mark.parametrize("predicted", ["SELECT nothing FROM maker", "SELECT name, country FROM maker"])
def test_a_verdict_that_does_not_depend_on_rows_has_no_caveat(grader, predicted):
    judgement = grader.grade(Record("q", CATALOGUE, "SELECT name FROM maker"), predicted)
    assert judgement.verdict == "wrong"
    assert "caveat" not in judgement.details


def test_not_null_in_the_ddl_makes_other_columns_nullable(grader):
    schema = CATALOGUE.replace("year INTEGER", "year INTEGER NOT NULL, color TEXT")
    judgement = grader.grade(Record("q", schema, "SELECT COUNT(*) FROM model"), "SELECT COUNT(color) FROM model")
    assert judgement.verdict == "wrong"
    assert "caveat" not in judgement.details


def test_suites_of_an_older_version_are_regenerated(tmp_path):
    asked = Record("q", LOAN, "SELECT town FROM member")
    paths = SynthesizedDatabases(tmp_path).databases_for(asked, "SELECT town FROM member")
    manifest = paths[0].parent / "suite.json"
    content = json.loads(manifest.read_text("utf-8"))
    digests = content["databases"]
    manifest.write_text(json.dumps(content | {"version": 1, "killed": 0}), "utf-8")
    assert SynthesizedDatabases(tmp_path).kill_rate(asked).killed == content["killed"] > 0
    assert json.loads(manifest.read_text("utf-8"))["databases"] == digests


def test_row_counts_differ_from_table_to_table(tmp_path):
    asked = Record("q", RUN, "SELECT COUNT(*) FROM run")
    differing = 0
    for path in SynthesizedDatabases(tmp_path).databases_for(asked, "SELECT COUNT(*) FROM jump"):
        connection = sqlite3.connect(path)
        counts = [connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in ("run", "jump")]
        connection.close()
        differing += counts[0] != counts[1]
    assert differing
