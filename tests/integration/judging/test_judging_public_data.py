"""Execution on public data, if it is next to the checkout."""

import gzip
import json

from sqlquarry.judging import ComparisonOptions, ExecutionGrader, extract_sql
from sqlquarry.records import Record

# Pairs that the data set labels "different", because it compares columns by position, but people label "equivalent".
PERMUTED = 22
# The data set's label is "equal" and the human label "not equivalent": ORDER BY … DESC against ASC.
OTHER_ORDER = {2269}
OTHER_CHOICE = {2324}  # every town has one teacher, so the rarest town ties with the most common one


def read(path):
    return [json.loads(line) for line in path.open()]


def test_verdicts_differ_from_labels_only_if_a_label_is_positional_or_wrong(shared_data):
    rows = read(shared_data / "sql_pairs" / "spider_pair" / "share.jsonl")
    by_position = ExecutionGrader(shared_data / "spider_sqlite", comparison=ComparisonOptions(permute_columns=False))
    by_default = ExecutionGrader(shared_data / "spider_sqlite")
    permuted, others = set(), set()
    for row in rows:
        record = Record(row["question"] or "q", "s", row["gold_sql"], row["db_id"])
        label = {"equal": "correct", "different": "wrong"}[row["exec"]]
        positional, default = (g.grade(record, extract_sql(row["pred_sql"])).verdict for g in (by_position, by_default))
        if positional != label:
            assert row["label"] == 0, row
            others.add(row["id"])
        if default != positional:
            assert (positional, default, row["label"]) == ("wrong", "correct", 1), row
            permuted.add(row["id"])
    assert len(rows) == 649
    assert others == OTHER_ORDER | OTHER_CHOICE
    assert len(permuted) == PERMUTED


def test_every_usable_gold_is_correct_against_itself_and_its_rewriting(shared_data):
    grader = ExecutionGrader(shared_data / "spider_sqlite")
    rows = [row for row in read(shared_data / "spider_exec" / "dev_share.jsonl") if row["usable"]]
    assert len(rows) == 287
    other_choices = 0
    for row in rows:
        record = Record(row["question"], "s", row["gold_sql"], row["db_id"])
        assert grader.grade(record, row["gold_sql"]).verdict == "correct", row
        judgement = grader.grade(record, row["alt_sql"])
        choice = "LIMIT" in judgement.reason
        assert judgement.verdict == ("correct" if row["alt_result"] == "same" or choice else "wrong"), row
        other_choices += choice
    assert other_choices == 3, "rewritings that return another of the ships or pupils that tie at the gold's LIMIT"


def test_usable_train_golds_are_correct_against_themselves(shared_data):
    # All 6,402 take longer than a test should: benchmarks/judging_agreement.py.
    databases = {path.stem for path in (shared_data / "spider_sqlite").glob("*.sqlite") if path.stat().st_size}
    rows = [
        row for row in read(shared_data / "spider_exec" / "train.jsonl") if row["usable"] and row["db_id"] in databases
    ]
    assert len(rows) == 6402
    grader = ExecutionGrader(shared_data / "spider_sqlite")
    for row in rows[::8]:
        record = Record(row["question"], "s", row["gold_sql"], row["db_id"])
        assert grader.grade(record, row["gold_sql"]).verdict == "correct", row


def test_each_of_several_golds_is_accepted(shared_data):
    grader = ExecutionGrader(shared_data / "defog" / "sqlite")
    rows = read(shared_data / "defog" / "defog_exec_share.jsonl")
    assert len(rows) == 75
    several = 0
    for row in rows:
        if not (shared_data / "defog" / "sqlite" / f"{row['db_id']}.sqlite").is_file():
            continue  # the data set lacks the rows of one of its three databases
        first, *others = row["gold_sqls"]
        record = Record(row["question"], "s", first, row["db_id"], alternatives=tuple(others))
        several += bool(others)
        for sql in record.golds:
            assert grader.grade(record, sql).verdict == "correct", (row, sql)
    assert several >= 8


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
