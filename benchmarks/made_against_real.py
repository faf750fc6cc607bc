"""Compares verdicts on synthesized databases with those on real ones, and shows how much a kill rate tells.

    python benchmarks/made_against_real.py --pairs 649 --golds 200 --kill-rates 150

It needs the public data sets in ../shared/data. The pairs are those of `sql_pairs/spider_pair`, with a human label and
the outcome on the real database. The golds are those of Spider. The predictions for a gold are its own text, the
rewriting in the data, and the four golds of the same database with the most similar text.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from difflib import SequenceMatcher

from common import DATA, argument_parser, clock, labeled_pairs, spider_golds, spider_schemas
from sqlquarry.answers import Judgement
from sqlquarry.judging import ExecutionGrader
from sqlquarry.judging.synthesis import SynthesizedDatabases
from sqlquarry.judging.synthesis.candidate_database import CandidateDatabase, gold_of
from sqlquarry.judging.synthesis.candidate_rows import CandidateRows
from sqlquarry.judging.synthesis.hint_reader import gather_hints
from sqlquarry.judging.synthesis.mutants import mutants
from sqlquarry.records import Record
from sqlquarry.sql.portable_ddl import schema_in_sqlite
from sqlquarry.sql.resolver import read_query

CANDIDATES = 6  # databases of each kind for every gold, in the table of kill rates


def schema_of(database: str) -> str:
    path = DATA / "spider_sqlite" / f"{database}.sqlite"
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        rows = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL")
        return ";\n".join(row[0] for row in rows)


def labeled(count: int) -> Iterator[tuple[str, Record, str]]:
    """Yield labeled pairs, as (kind, record, prediction)."""
    rows = labeled_pairs()
    random.Random(3).shuffle(rows)
    for row in rows[:count]:
        label = "equivalent" if row["label"] else "different"
        record = Record(row["question"] or "?", schema_of(row["db_id"]), row["gold_sql"], database=row["db_id"])
        yield f"people: {label}, real rows: {row['exec']}", record, row["pred_sql"]


def golds_by_database(rows: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    by_database: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        by_database[row["db_id"]].append(row["gold_sql"])
    return by_database


def neighbors(row: dict[str, str], by_database: dict[str, list[str]]) -> list[str]:
    """Return the four other golds of the database with the most similar text."""
    gold = row["gold_sql"]
    others = sorted(set(by_database[row["db_id"]]) - {gold})
    others.sort(key=lambda other: -SequenceMatcher(None, other.lower(), gold.lower()).ratio())
    return others[:4]


def from_spider(count: int, real: ExecutionGrader) -> Iterator[tuple[str, Record, str]]:
    """Yield golds of Spider with predictions, as (kind, record, prediction)."""
    rows, schemas = spider_golds(), spider_schemas()
    by_database = golds_by_database(rows)
    for row in random.Random(11).sample(rows, count):
        record = Record(row["question"], schemas[row["db_id"]], row["gold_sql"], database=row["db_id"])
        yield "the gold itself", record, row["gold_sql"]
        if row["alt_result"] == "same":
            yield "the gold rewritten, same real rows", record, row["alt_sql"]
        for other in neighbors(row, by_database):
            yield f"another gold, on real rows {real.grade(record, other).verdict}", record, other


def verdict_of(judgement: Judgement) -> str:
    return judgement.verdict + (" (implausible rows only)" if judgement.details.get("caveat") else "")


def kill_rates(count: int, real: ExecutionGrader) -> None:
    """Print the number of wrong predictions that a single database accepts, by the share of mutants that it kills."""
    rows, schemas = spider_golds(), spider_schemas()
    by_database = golds_by_database(rows)
    databases, tried, accepted = Counter[int](), Counter[int](), Counter[int]()
    for row in random.Random(5).sample(rows, count):
        gold = row["gold_sql"]
        record = Record("?", schemas[row["db_id"]], gold, database=row["db_id"])
        schema = schema_in_sqlite(record.schema, "sqlite")
        found = read_query(gold, schema)
        with closing(CandidateDatabase(schema)) as database:
            running = [text for text in mutants(*found) if database.run(text)] if found else []
            held_out = random.Random(gold).sample(running, min(4, len(running)))
            counted = [text for text in running if text not in held_out]
            predictions = [*neighbors(row, by_database), *held_out]
            wrong = [sql for sql in predictions if real.grade(record, sql).verdict == "wrong"]
            candidates = CandidateRows(schema, gather_hints([gold], schema), "kill rates")
            for number in range(2 * CANDIDATES if counted else 0):
                database.fill(candidates.make(number // 2, plausible=number % 2 == 0))
                asked = gold_of(gold, schema)
                expected = database.expected(asked)
                if expected is None or not expected.is_telling or not database.is_determined(asked, expected):
                    continue
                outcomes = {sql: database.run(sql) for sql in (*counted, *wrong)}
                same = {sql for sql, o in outcomes.items() if o is not None and expected.matches(o.width, o.rows)}
                place = min(9, int(10 * (1 - len(same & set(counted)) / len(counted))))
                databases[place] += 1
                tried[place] += len(wrong)
                accepted[place] += len(same & set(wrong))
    for place in sorted(databases):
        per_thousand = 1000 * accepted[place] / max(1, tried[place])
        print(
            f"killed {10 * place} to {10 * place + 10} %: {databases[place]} databases, {tried[place]} wrong ", end=""
        )
        print(f"predictions, {accepted[place]} accepted ({per_thousand:.0f} per 1,000)")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=649, help="labeled pairs")
    parser.add_argument("--golds", type=int, default=200, help="golds of Spider")
    parser.add_argument("--kill-rates", type=int, default=0, help="golds of Spider for the table of kill rates")
    options = parser.parse_args()
    real = ExecutionGrader(DATA / "spider_sqlite")
    databases = SynthesizedDatabases()
    made = ExecutionGrader(databases)
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    with clock() as took:
        for source in (labeled(options.pairs), from_spider(options.golds, real)):
            for kind, record, predicted in source:
                verdicts[kind][verdict_of(made.grade(record, predicted))] += 1
    for kind, counts in sorted(verdicts.items()):
        print(f"{kind}: {dict(counts)}")
    coverage = databases.coverage()
    print(f"{coverage.records} suites, {sum(coverage.quarantined.values())} quarantined", end="")
    print(f", mutants killed {coverage.kill_rate:.2%}, {took.cpu_seconds:.0f} s of processor time")
    if options.kill_rates:
        kill_rates(options.kill_rates, real)


if __name__ == "__main__":
    main()
