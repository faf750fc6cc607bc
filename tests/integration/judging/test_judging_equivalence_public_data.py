"""Checks the claims of the equivalence grader against labels and execution results of public data."""

import json
from collections import Counter, defaultdict

from sqlquarry.judging import ExecutionGrader
from sqlquarry.judging.equivalence import EquivalenceGrader
from sqlquarry.judging.equivalence.grader import equivalence
from sqlquarry.records import Record
from sqlquarry.sql.features import query_features

# These pairs agree on a database with few rows, but by their human label they differ (ORDER BY … DESC and ASC, killed
# and killed + injured).
DIFFERENT_ALTHOUGH_EQUAL_ONCE = {354, 2269}


def read(path):
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def test_labeled_pairs(shared_data):
    schemas = json.loads((shared_data / "spider_exec" / "schemas_train.json").read_text())
    grader = EquivalenceGrader()
    found, refuted = Counter(), set()
    for row in read(shared_data / "sql_pairs" / "spider_pair" / "share.jsonl"):
        record = Record("q", schemas[row["db_id"]], row["gold_sql"], row["db_id"])
        verdict = grader.grade(record, row["pred_sql"]).verdict
        found[row["label"], verdict] += 1
        if verdict == "correct":  # `exec` compares columns by position, the label does not
            assert row["exec"] == "equal" or row["label"] == 1, row
        elif verdict == "wrong" and row["exec"] == "equal":
            refuted.add(row["id"])
    assert refuted == DIFFERENT_ALTHOUGH_EQUAL_ONCE
    assert found[0, "correct"] == 0
    assert found[1, "wrong"] == 0
    assert found[1, "correct"] >= 150
    assert found[0, "wrong"] >= 170


def test_pairs_that_are_all_equivalent(shared_data):
    found = Counter()
    for row in read(shared_data / "sql_pairs" / "llm_sql_solver" / "semantic_equivalent.jsonl"):
        found["solver", equivalence(row["sql1"], row["sql2"], row["schema"], "mysql").answer] += 1
    for row in read(shared_data / "sql_pairs" / "sqlglot_fixtures" / "pairs.jsonl")[::3]:
        dialect = row["meta"].get("dialect", "").split(",")[0].strip()
        found["sqlglot", equivalence(row["sql1"], row["sql2"], "", dialect).answer] += 1
    assert found["solver", "different"] == found["sqlglot", "different"] == 0
    assert found["solver", "equivalent"] >= 45
    assert found["sqlglot", "equivalent"] >= 45


def test_gold_queries_of_one_database_in_pairs(shared_data):
    schemas = json.loads((shared_data / "spider_exec" / "schemas_train.json").read_text())
    execution = ExecutionGrader(shared_data / "spider_sqlite")
    queries = defaultdict(dict)
    for row in read(shared_data / "spider_exec" / "train.jsonl"):
        if row["usable"]:
            queries[row["db_id"]] |= dict.fromkeys(sql for sql in (row["gold_sql"], row["alt_sql"]) if sql)
    claims = Counter()
    for database in sorted(queries)[::24]:
        golds = list(queries[database])
        pairs = [(a, b) for i, a in enumerate(golds) for b in golds[max(0, i - 6) : i + 6] if a != b]
        for gold, predicted in pairs:
            answer = equivalence(gold, predicted, schemas[database], counterexamples=False).answer
            claims[answer] += 1
            if answer == "equivalent":
                verdict = execution.grade(Record("q", schemas[database], gold, database), predicted).verdict
                assert verdict == "correct", (gold, predicted)
    assert sum(claims.values()) > 2_500
    assert claims["equivalent"] > 150


def test_every_gold_query_has_slices(shared_data):
    rows = read(shared_data / "spider_exec" / "train.jsonl") + read(shared_data / "spider_exec" / "dev_share.jsonl")
    found = Counter()
    for row in rows[::6]:
        slices = query_features(row["gold_sql"], "sqlite")
        found[slices["hardness"] if slices else None] += 1
    assert found[None] == 0
    assert all(found[level] > 60 for level in ("easy", "medium", "hard", "extra"))
