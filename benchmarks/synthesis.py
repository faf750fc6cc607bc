"""Measures how well synthesized databases judge: wrong queries caught, right ones rejected, mutants killed, time.

    python benchmarks/synthesis.py --wikisql 500 --spider 300

It needs the public data sets in ../shared/data. Wrong predictions are mutants of the gold query. A mutant is left out
if it equals the gold on 300 additional databases, which are generated for that pair with another seed. The right
predictions are rewritings of the gold that mean the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from sqlglot import exp, parse_one

from common import DATA, argument_parser, clock, read_jsonl, spider_golds, spider_schemas
from sqlquarry.judging import ExecutionGrader
from sqlquarry.judging.synthesis import SynthesizedDatabases
from sqlquarry.judging.synthesis.candidate_database import CandidateDatabase, GoldVariants
from sqlquarry.judging.synthesis.candidate_rows import CandidateRows
from sqlquarry.judging.synthesis.hint_reader import gather_hints
from sqlquarry.judging.synthesis.mutants import mutants
from sqlquarry.records import Record
from sqlquarry.sql.portable_ddl import schema_in_sqlite
from sqlquarry.sql.resolver import read_query

REFERENCE_DATABASES = 300


@dataclass
class Score:
    """The verdicts on predictions that are known to be right or wrong."""

    wrong: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    equivalent: int = 0
    missed: list[tuple[str, str]] = field(default_factory=list)
    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    seconds: float = 0.0


def wikisql_records(data: Path, count: int) -> list[Record]:
    rows = read_jsonl(data / "sql_create_context_rebuilt" / "wikisql_dev.jsonl.gz")
    rows = random.Random(6).sample(rows, count)
    return [Record(row["question"], row["context"], row["answer"]) for row in rows]


def spider_records(data: Path, count: int) -> list[Record]:
    schemas, rows = spider_schemas(data), random.Random(6).sample(spider_golds(data), count)
    return [Record(row["question"], schemas[row["db_id"]], row["gold_sql"]) for row in rows]


def rewritings(sql: str) -> Iterator[str]:
    """Yield rewritings of a query: formatted, with an alias, reversed conditions, and turned or negated comparisons."""
    yield parse_one(sql, read="sqlite").sql(dialect="sqlite", pretty=True)
    tree = parse_one(sql, read="sqlite")
    where = tree.args.get("where")
    if where and isinstance(where.this, exp.And):
        where.set("this", exp.and_(*reversed(list(where.this.flatten())), copy=False))
        yield tree.sql(dialect="sqlite")
    flipped = {exp.GT: exp.LT, exp.LT: exp.GT, exp.GTE: exp.LTE, exp.LTE: exp.GTE, exp.EQ: exp.EQ}
    negated = {exp.GT: exp.LTE, exp.LT: exp.GTE, exp.GTE: exp.LT, exp.LTE: exp.GT, exp.EQ: exp.NEQ}
    for others, negate in ((flipped, False), (negated, True)):
        tree = parse_one(sql, read="sqlite")
        for node in list(tree.find_all(*others)):
            left, right = (node.this, node.expression) if negate else (node.expression, node.this)
            other = others[type(node)](this=left.copy(), expression=right.copy())
            node.replace(exp.Not(this=exp.Paren(this=other)) if negate else other)
        yield tree.sql(dialect="sqlite")
    tree = parse_one(sql, read="sqlite")
    tables = list(tree.find_all(exp.Table))
    if len(tables) == 1 and not tables[0].alias:
        tables[0].set("alias", exp.TableAlias(this=exp.to_identifier("t9")))
        for column in tree.find_all(exp.Column):
            if not column.table and not column.this.args.get("quoted"):
                column.set("table", exp.to_identifier("t9"))
        yield tree.sql(dialect="sqlite")


def is_wrong(record: Record, mutant: str) -> bool:
    """Return whether the mutant differs from the gold on any of many databases that are generated for this pair."""
    schema = schema_in_sqlite(record.schema, "sqlite")
    candidates = CandidateRows(schema, gather_hints([record.golds[0], mutant], schema), f"reference {mutant}")
    gold = GoldVariants(record.golds[0], schema)
    with closing(CandidateDatabase(schema)) as database:
        for number in range(REFERENCE_DATABASES):
            database.fill(candidates.make(number // 2, plausible=number % 2 == 0))
            expected = database.expected(gold)
            if expected is None or not database.is_determined(gold, expected):
                continue
            result = database.run(mutant)
            if result is None or not expected.matches(result.width, result.rows):
                return True
    return False


def mutants_of(record: Record, count: int) -> list[str]:
    """Return up to `count` random mutants of the gold that run."""
    schema = schema_in_sqlite(record.schema, "sqlite")
    found = read_query(record.golds[0], schema)
    texts = mutants(*found) if found else []
    with closing(CandidateDatabase(schema)) as database:
        texts = [text for text in texts if database.run(text) is not None]
    return random.Random(record.sql).sample(texts, min(count, len(texts)))


def measure(records: Sequence[Record], mutants_per_record: int, databases: SynthesizedDatabases) -> Score:
    """Grade mutants and rewritings of the gold of every record, and return the verdicts."""
    grader = ExecutionGrader(databases)
    score = Score()
    for record in records:
        wrong, right = mutants_of(record, mutants_per_record), list(rewritings(record.golds[0]))
        with clock() as took:
            verdicts = [grader.grade(record, sql) for sql in (*wrong, *right)]
        score.seconds += took.seconds
        for sql, judgement in zip(wrong, verdicts, strict=False):
            if judgement.verdict == "correct" and not is_wrong(record, sql):
                score.equivalent += 1
                continue
            score.wrong[judgement.verdict] += 1
            if judgement.verdict == "correct":
                score.missed.append((record.golds[0], sql))
        for sql, judgement in zip(right, verdicts[len(wrong) :], strict=True):
            score.right[judgement.verdict] += 1
            if judgement.verdict == "wrong":
                score.rejected.append((record.golds[0], sql, judgement.reason))
    return score


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--wikisql", type=int, default=500, help="number of records")
    parser.add_argument("--spider", type=int, default=300, help="number of records")
    parser.add_argument("--mutants", type=int, default=6, help="wrong predictions per record")
    options = parser.parse_args()
    for name, records in (
        ("WikiSQL", wikisql_records(DATA, options.wikisql)),
        ("Spider", spider_records(DATA, options.spider)),
    ):
        if not records:
            continue
        databases = SynthesizedDatabases()
        with clock() as took:
            for record in records:
                databases.kill_rate(record)
        per_record = took.cpu_seconds / len(records)
        coverage = databases.coverage()
        print(f"{name}: {len(records)} records, {per_record * 1000:.0f} CPU ms a suite")
        print(f"  mutants killed {coverage.killed:,} of {coverage.mutants:,} ({coverage.kill_rate:.2%})")
        print(f"  quarantined {sum(coverage.quarantined.values())}: {dict(coverage.quarantined)}")
        score = measure(records, options.mutants, databases)
        graded, caught = sum(score.wrong.values()), score.wrong["wrong"]
        answers = graded + score.equivalent + sum(score.right.values())
        print(f"  wrong ones caught {caught} of {graded} ({caught / max(1, graded):.2%})")
        print(f"  left out as equivalent {score.equivalent}")
        print(f"  right ones rejected {score.right['wrong']} of {sum(score.right.values())}")
        print(f"  {score.seconds / max(1, answers) * 1000:.1f} ms a prediction")
        for gold, sql in score.missed:
            print(f"    missed: {gold}\n            {sql}")
        for gold, sql, reason in score.rejected:
            print(f"    rejected: {gold}\n              {sql}\n              {reason}")


if __name__ == "__main__":
    main()
