"""Checks whether ExecutionGrader agrees with every label of the shared public data. Prints one line per data set.

python benchmarks/judging_agreement.py [folder of the data sets, ../shared/data by default]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import sqlquarry as sq
from common import DATA, argument_parser, clock, labeled_pairs, read_jsonl, spider_golds


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=DATA)
    folder = parser.parse_args().folder
    spider = sq.ExecutionGrader(folder / "spider_sqlite")
    there = {path.stem for path in (folder / "spider_sqlite").glob("*.sqlite") if path.stat().st_size}
    for name in ("train", "dev_share"):
        rows = [row for row in spider_golds(folder, name) if row["db_id"] in there]
        records = [sq.Record(row["question"], "-", row["gold_sql"], row["db_id"]) for row in rows]
        _show(
            f"Spider {name}: gold against itself", spider, ((record, record.golds[0], "correct") for record in records)
        )

    labels = {"equal": "correct", "different": "wrong"}
    pairs = [
        (sq.Record(row["question"] or "-", "-", row["gold_sql"], row["db_id"]), row["pred_sql"], labels[row["exec"]])
        for row in labeled_pairs(folder)
    ]
    _show("Spider pairs: positional `exec` label", spider, pairs)
    strict = sq.ExecutionGrader(folder / "spider_sqlite", comparison=sq.ComparisonOptions(permute_columns=False))
    _show("the same without column permutation", strict, pairs)

    defog = sq.ExecutionGrader(folder / "defog" / "sqlite")
    there = {
        path.stem for path in (folder / "defog" / "sqlite").glob("*.sqlite")
    }  # two of the three databases have rows
    rows = [row for row in read_jsonl(folder / "defog" / "defog_exec_share.jsonl") if row["db_id"] in there]
    several = [
        sq.Record(row["question"], "-", row["gold_sqls"][0], row["db_id"], alternatives=tuple(row["gold_sqls"][1:]))
        for row in rows
    ]
    _show("defog: every accepted gold", defog, ((r, sql, "correct") for r in several for sql in r.golds))


def _show(name: str, grader: sq.ExecutionGrader, cases: Iterable[tuple[sq.Record, str, str]]) -> None:
    with clock() as took:
        outcomes = Counter((want, grader.grade(record, sql).verdict) for record, sql, want in cases)
    n = outcomes.total()
    agree = sum(count for (want, got), count in outcomes.items() if want == got)
    others = ", ".join(f"{count} {want} called {got}" for (want, got), count in outcomes.items() if want != got)
    each = f"{1000 * took.seconds / n:.2f} ms each"
    print(f"{name}: {agree}/{n} agree ({agree / n:.2%}), {each}; {others or 'no difference'}")


if __name__ == "__main__":
    main()
