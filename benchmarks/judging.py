"""Compares the time per pair and the verdicts of ExecutionGrader with those of a peer from PyPI on the same pairs.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install text2sql-eval-toolkit
    python benchmarks/judging.py --data DATA --peer toolkit --peer-python /tmp/peer/bin/python

    python -m venv /tmp/suite && /tmp/suite/bin/pip install nl2sql360
    python benchmarks/judging.py --data DATA --peer test-suite --peer-python /tmp/suite/bin/python

DATA contains `spider_exec/train.jsonl` (gold_sql, db_id, alt_sql, usable) and `spider_sqlite/<db_id>.sqlite`. Records
without a database file are left out. The prediction is in turn the gold SQL itself, its rewriting (`alt_sql`), and the
gold SQL of another question on the same database. The peers are:

    toolkit         text2sql-eval-toolkit as in its manual: run all queries, then evaluate each prediction
    toolkit-pairs   its `get_sql_execution_results`, which runs and compares one pair
    test-suite      taoyds/test-suite-sql-eval as included in nl2sql360: `eval_exec_match` with DISTINCT kept
    checkout        another version of SQLQuarry, run by the Python of its environment

The two sides run one after the other in separate processes. The clock starts after all imports. The last table shows
hand-written pairs of results.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import logging
import os
import random
import re
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from common import argument_parser, hand_back, run_apart, spider_golds

PEERS = ("toolkit", "toolkit-pairs", "test-suite", "checkout")
KINDS = ("same text", "rewritten", "other question")


Row = tuple[object, ...]


class Pair(NamedTuple):
    """One pair to grade. `database` is the path of an SQLite file."""

    kind: str
    database: str
    gold: str
    predicted: str


class Graded(TypedDict):
    """The results of one side. Only SQLQuarry gives `reasons`."""

    cpu: float  # CPU seconds of grading. Until `in_process` sets it, it contains those of the imports.
    seconds: list[float]
    verdicts: list[str]
    reasons: list[str]
    torture: list[bool]


# Name, whether the results are the same, gold rows, predicted rows. Only the sixth gold has ORDER BY.
TORTURE: list[tuple[str, bool, list[Row], list[Row]]] = [
    ("same rows, other order", True, [("a", 1), ("b", 2)], [("b", 2), ("a", 1)]),
    ("values attached to the wrong row", False, [("alice", 100), ("bob", 200)], [("alice", 200), ("bob", 100)]),
    ("from/to swapped in one of two rows", False, [(1, 2), (3, 4)], [(2, 1), (3, 4)]),
    ("missing DISTINCT", False, [("a",), ("b",)], [("a",), ("a",), ("b",)]),
    ("duplicate counts differ", False, [("a",), ("a",), ("b",)], [("a",), ("b",), ("b",)]),
    ("ORDER BY asked, wrong order", False, [("a", 1), ("b", 2)], [("b", 2), ("a", 1)]),
    ("4 and 4.0", True, [(4,)], [(4.0,)]),
    ("0.3 and 0.1 + 0.2", True, [(0.3,)], [(0.1 + 0.2,)]),
    ("NULL and text 'None'", False, [(None,)], [("None",)]),
    ("number and text '1'", False, [(1,)], [("1",)]),
    ("columns in another order", True, [("x", 1), ("y", 2)], [(1, "x"), (2, "y")]),
]


def read_pairs(data: Path, limit: int | None) -> list[Pair]:
    """Return a pair for each usable record, with the three kinds in turn. Without a rewriting, the gold is repeated."""
    rows = [row for row in spider_golds(data) if (data / "spider_sqlite" / f"{row['db_id']}.sqlite").is_file()]
    others: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        others[row["db_id"]].append(row["gold_sql"])
    choose = random.Random(0)
    pairs = []
    for place, row in enumerate(rows):
        gold = row["gold_sql"]
        predicted = (gold, row["alt_sql"] or gold, choose.choice(others[row["db_id"]]))[place % 3]
        database = data / "spider_sqlite" / f"{row['db_id']}.sqlite"
        pairs.append(Pair(KINDS[place % 3], str(database.resolve()), gold, predicted))
    return pairs[:limit]


def grade(pairs: list[Pair]) -> Graded:
    """Grade with SQLQuarry and return the verdict, the reason and the seconds of each pair."""
    from sqlquarry import ExecutionGrader, Record, results_equal

    files = {pair.database for pair in pairs}
    grader = ExecutionGrader({Path(file).stem: file for file in files})
    records = [Record("q", "s", pair.gold, Path(pair.database).stem) for pair in pairs]
    before = time.process_time()
    seconds, judgements = [], []
    for record, pair in zip(records, pairs, strict=True):
        started = time.perf_counter()
        judgements.append(grader.grade(record, pair.predicted))
        seconds.append(time.perf_counter() - started)
    return {
        "cpu": before,
        "seconds": seconds,
        "verdicts": [judgement.verdict for judgement in judgements],
        "reasons": [judgement.reason for judgement in judgements],
        "torture": [results_equal(a, b, ordered="ORDER BY" in name) for name, _, a, b in TORTURE],
    }


def grade_as_peer(name: str, pairs: list[Pair]) -> Graded:
    """Grade with the peer. This runs in the Python of the peer, where SQLQuarry is not installed."""
    prepare = {"toolkit": _toolkit, "toolkit-pairs": _toolkit_pairs, "test-suite": _test_suite}[name]
    with tempfile.TemporaryDirectory() as folder:
        logging.disable(logging.CRITICAL)  # the toolkit logs every query that it cannot parse
        os.chdir(folder)  # it creates folders in the current directory
        run, same = prepare(Path(folder), pairs)
        before = time.process_time()
        seconds, verdicts = run()
        torture = []
        for case, _, gold, predicted in TORTURE:
            sql = "SELECT a, b FROM t" + (" ORDER BY a" if "ORDER BY" in case else "")
            torture.append(bool(same(gold, predicted, sql)))
        os.chdir("/")
    return {"cpu": before, "seconds": seconds, "verdicts": verdicts, "reasons": [], "torture": torture}


def one_by_one(pairs: list[Pair], correct: Callable[[Pair], Any]) -> tuple[list[float], list[str]]:
    """Return the seconds and the verdict of each pair."""
    seconds, verdicts = [], []
    for pair in pairs:
        started = time.perf_counter()
        try:
            verdict = "correct" if correct(pair) else "wrong"
        except Exception as error:  # noqa: BLE001 - any error of a peer is its verdict
            verdict = f"raises {type(error).__name__}"
        seconds.append(time.perf_counter() - started)
        verdicts.append(verdict)
    return seconds, verdicts


def _toolkit(folder: Path, pairs: list[Pair]) -> Any:
    from text2sql_eval_toolkit.evaluation.evaluation_tools import evaluate_prediction
    from text2sql_eval_toolkit.execution.execution_tools import sqlite_run_execution_async

    _link_databases(folder, pairs, "{0}/{0}.sqlite")

    def run() -> tuple[list[float], list[str]]:
        seconds, verdicts = [0.0] * len(pairs), [""] * len(pairs)
        for kind in KINDS:  # It runs all queries of a file at once, so each pair gets an equal share of the time.
            places = [i for i, pair in enumerate(pairs) if pair.kind == kind]
            file = folder / "predictions.json"
            file.write_text(json.dumps([_as_toolkit_record(pairs[i]) for i in places]), encoding="utf-8")
            started = time.perf_counter()
            asyncio.run(sqlite_run_execution_async(folder, file))
            share = (time.perf_counter() - started) / len(places)
            records = json.loads(file.read_text(encoding="utf-8"))
            grade = iter(records)
            found = one_by_one(
                [pairs[i] for i in places], lambda _, rows=grade: _evaluate(next(rows), evaluate_prediction)
            )
            for i, spent, verdict in zip(places, *found, strict=True):
                seconds[i], verdicts[i] = share + spent, verdict
        return seconds, verdicts

    return run, _toolkit_comparison()


def _as_toolkit_record(pair: Pair) -> dict[str, Any]:
    name = Path(pair.database).stem
    return {"id": "", "db_id": name, "sql": pair.gold, "predictions": {"model": {"predicted_sql": pair.predicted}}}


def _evaluate(record: dict[str, Any], evaluate_prediction: Any) -> Any:
    return evaluate_prediction(record, record["predictions"]["model"])["execution_accuracy"]


def _toolkit_pairs(folder: Path, pairs: list[Pair]) -> Any:
    from text2sql_eval_toolkit.metrics import text2sql_utils as toolkit

    del folder

    class Connector:
        def __init__(self, path: str) -> None:
            self.path = path

        def execute_query(self, sql: str) -> Any:
            return toolkit.execute_query_local(self.path, sql)

    def correct(pair: Pair) -> Any:
        result = toolkit.get_sql_execution_results(pair.predicted, pair.gold, Connector(pair.database), 60)
        return result.execution_accuracy

    return lambda: one_by_one(pairs, correct), _toolkit_comparison()


def _toolkit_comparison() -> Any:
    import pandas as pd
    from text2sql_eval_toolkit.metrics import text2sql_utils as toolkit

    return lambda gold, predicted, sql: toolkit.compare_result_dfs(pd.DataFrame(gold), pd.DataFrame(predicted), sql)[0]


def _test_suite(folder: Path, pairs: list[Pair]) -> Any:
    # It is imported from its own folder, because the package around it needs the drivers of database servers.
    spec = importlib.util.find_spec("nl2sql360")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("nl2sql360 is not installed in the environment of --peer-python.")
    sys.path.insert(0, str(Path(spec.submodule_search_locations[0]) / "evaluator"))
    from test_suite_sql_eval import exec_eval

    _link_databases(folder, pairs, "{0}/only.sqlite")  # it grades on every database of a folder

    def correct(pair: Pair) -> Any:
        database = str(folder / Path(pair.database).stem / "only.sqlite")
        return exec_eval.eval_exec_match(database, pair.predicted, pair.gold, False, True, False)

    def same(gold: Any, predicted: Any, sql: str) -> Any:
        return exec_eval.result_eq(gold, predicted, order_matters="order by" in sql.lower())

    return lambda: one_by_one(pairs, correct), same


def _link_databases(folder: Path, pairs: list[Pair], path: str) -> None:
    for database in {pair.database for pair in pairs}:
        place = folder / path.format(Path(database).stem)
        place.parent.mkdir()
        place.symlink_to(database)


def in_process(python: str, *arguments: str) -> Graded:
    """Run this file again in another Python and return its results."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: Graded = run_apart([str(Path(__file__).resolve()), *arguments], python)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - found["cpu"]
    return found


def show(pairs: list[Pair], ours: Graded, theirs: Graded, peer: str) -> None:
    """Print the tables as Markdown."""
    print(f"| ms per pair | n | ours, mean | {peer}, mean | ratio | ours, median | {peer}, median | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in (*KINDS, "all"):
        places = [i for i, pair in enumerate(pairs) if kind in (pair.kind, "all")]
        cells = []
        for summary in (statistics.fmean, statistics.median):
            a, b = (summary(side["seconds"][i] for i in places) * 1e3 for side in (ours, theirs))
            cells += [f"{a:.2f}", f"{b:.2f}", f"{b / a:.1f}"]
        print(f"| {kind} | {len(places)} | {' | '.join(cells)} |")
    a, b = (side["cpu"] / len(pairs) * 1e3 for side in (ours, theirs))
    print(f"| all, processor time | {len(pairs)} | {a:.2f} | {b:.2f} | {b / a:.1f} | | | |")
    differing = [i for i, _ in enumerate(pairs) if ours["verdicts"][i] != theirs["verdicts"][i]]
    print(f"\n{len(differing)} of {len(pairs)} verdicts differ.\n")
    print(f"| pairs | ours | {peer} | n | an example |\n|---|---|---|---|---|")
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for i in differing:
        reason = re.sub(r"\d[\d,]*", "N", ours["reasons"][i])
        groups[pairs[i].kind, f"{ours['verdicts'][i]}: {reason}", theirs["verdicts"][i]].append(i)
    for (kind, mine, other), places in sorted(groups.items(), key=lambda item: -len(item[1])):
        example = pairs[places[0]]
        shown = example.gold if kind == KINDS[0] else f"{example.gold} ⟷ {example.predicted}"
        print(f"| {kind} | {mine} | {other} | {len(places)} | `{shown.replace('|', '¦').replace('`', '')}` |")
    print(f"\n| two results | the same? | ours | {peer} |\n|---|---|---|---|")
    wrong = [0, 0]
    for (name, wanted, _, _), *answers in zip(TORTURE, ours["torture"], theirs["torture"], strict=True):
        print(f"| {name} | {' | '.join('yes' if answer else 'no' for answer in (wanted, *answers))} |")
        wrong = [count + (answer != wanted) for count, answer in zip(wrong, answers, strict=True)]
    print(f"| wrong of {len(TORTURE)} | | {wrong[0]} | {wrong[1]} |")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", choices=PEERS, default=PEERS[0])
    parser.add_argument("--peer-python", help="the Python of the environment where the peer is installed")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    pairs = read_pairs(options.data, options.limit)
    if options.side:
        ours = options.side == "ours" or options.peer == "checkout"
        hand_back(grade(pairs) if ours else grade_as_peer(options.peer, pairs))
        return
    if not options.peer_python:
        parser.error("--peer-python is missing. Install the peer in a separate environment, as shown in --help.")
    arguments = ["--data", str(options.data.resolve()), "--peer", options.peer]
    arguments += ["--limit", str(options.limit)] if options.limit else []
    ours = in_process(sys.executable, *arguments, "--side", "ours")
    show(pairs, ours, in_process(options.peer_python, *arguments, "--side", "peer"), options.peer)


if __name__ == "__main__":
    main()
