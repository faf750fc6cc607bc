"""Against public data, where it lies beside the checkout."""

import gzip
import json

from sqlquarry.artifacts import Record
from sqlquarry.judging import ExecutionGrader, extract_sql

# Where the data set's own (positional) label says "different", human label "equivalent": columns in another order.
PERMUTED = 22
# Its label says "equal", the human label "not equivalent": ORDER BY … DESC against ASC.
OTHER_ORDER = {2269}


def read(path):
    return [json.loads(line) for line in path.open()]


def test_labelled_pairs(shared_data):
    grader = ExecutionGrader(shared_data / "spider_sqlite")
    permuted = set()
    other_order = set()
    for row in read(shared_data / "sql_pairs" / "spider_pair" / "share.jsonl"):
        record = Record(row["question"] or "q", "s", row["gold_sql"], row["db_id"])
        verdict = grader.grade(record, extract_sql(row["pred_sql"])).verdict
        if (verdict, row["exec"]) == ("correct", "different"):
            assert row["label"] == 1, row
            permuted.add(row["id"])
        elif (verdict, row["exec"]) == ("wrong", "equal"):
            assert row["label"] == 0, row
            other_order.add(row["id"])
        else:
            assert verdict == {"equal": "correct", "different": "wrong"}[row["exec"]], row
    assert len(permuted) == PERMUTED
    assert other_order == OTHER_ORDER


def test_every_usable_gold_is_correct_against_itself_and_its_rewriting(shared_data):
    grader = ExecutionGrader(shared_data / "spider_sqlite")
    rows = [row for row in read(shared_data / "spider_exec" / "dev_share.jsonl") if row["usable"]]
    assert len(rows) > 250
    for row in rows:
        record = Record(row["question"], "s", row["gold_sql"], row["db_id"])
        assert grader.grade(record, row["gold_sql"]).verdict == "correct", row
        want = "correct" if row["alt_result"] == "same" else "wrong"
        assert grader.grade(record, row["alt_sql"]).verdict == want, row


def test_real_queries_survive_wrapping(shared_data):
    folder = shared_data / "sql_create_context_rebuilt"
    count = 0
    for name in ("spider_train.jsonl.gz", "wikisql_dev.jsonl.gz"):
        with gzip.open(folder / name, "rt") as lines:
            for line in lines:
                sql = json.loads(line)["answer"].strip().rstrip(";").strip()
                count += 1
                assert extract_sql(sql) == sql
                assert extract_sql(f"Sure! Here is the query:\n```sql\n{sql};\n```\nIt works.") == sql
                assert extract_sql(f"Here is the query: {sql};\n\nHope it helps") == sql
    assert count > 15_000
