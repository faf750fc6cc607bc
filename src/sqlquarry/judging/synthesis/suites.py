"""Selects the databases of a suite: as few candidates as possible that together kill as many mutants as possible.

The idea comes from Zhong, Yu and Klein, "Semantic evaluation for text-to-SQL with distilled test suites" (EMNLP 2020):
a small suite is distilled from random databases by the wrong queries that it exposes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from sqlquarry.errors import JudgingError
from sqlquarry.judging.synthesis.candidate_database import (
    MOST_INSTRUCTIONS,
    CandidateDatabase,
    ExpectedResult,
    GoldVariants,
    gold_of,
)
from sqlquarry.judging.synthesis.candidate_rows import CandidateRows, TableRows
from sqlquarry.judging.synthesis.hint_reader import gather_hints
from sqlquarry.judging.synthesis.mutants import mutants
from sqlquarry.sql.resolver import read_query
from sqlquarry.sql.schema import Schema

_MOST_PLAUSIBLE = 16  # candidates with plausible rows
_MOST_LEGAL = 30  # other candidates that the schema allows
_MOST_RIVALS = 4, 8  # databases of each kind on which the golds have one right answer
_PATIENCE = 6, 12  # successive candidates of each kind that may kill nothing
# A suite that kills a smaller share of the mutants proves too little (measured in docs/synthesized-databases.md).
_LEAST_KILLED = 0.5
_TELLING = "-- the gold returns something"  # represents a mutant that returns nothing

Variant = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Suite:
    """The contents of SQLite files with the mutants that they kill. The first `plausible` files have plausible rows."""

    files: tuple[bytes, ...]
    killed: int
    survivors: tuple[str, ...]
    plausible: int


@dataclass(frozen=True, slots=True)
class Rival:
    """A database that is generated for one prediction: the content of its SQLite file, and the results of the golds."""

    file: bytes
    expected: list[ExpectedResult]
    plausible: bool


@dataclass(frozen=True, slots=True)
class _Choice:
    """A candidate that kills new mutants."""

    number: int
    plausible: bool
    rows: TableRows  # of the tables that the queries need


def make_suite(schema: Schema, golds: Sequence[str], *, most: int, seed: str, deadline: float) -> Suite:
    """Return databases on which every gold has one right answer and as many mutants as possible return another one.

    Plausible databases come first. Others are added for the mutants that plausible databases do not kill.

    Args:
        schema: the tables.
        golds: SQLite queries.
        most: maximum number of databases.
        seed: the same seed gives the same files, as long as the deadline is not reached.
        deadline: the time at which the search ends, by `time.monotonic`. At least one candidate is always tried.

    Raises:
        JudgingError: no gold runs on the schema, a gold has no single right answer on any candidate, a gold returns
            only NULL, 0 or empty values on all of them, or too few mutants are killed.
    """
    with closing(CandidateDatabase(schema)) as database:
        golds = _running(database, golds)
        wanted = [gold_of(sql, schema) for sql in golds]
        variants = [(i, text) for i, sql in enumerate(golds) for text in _running_mutants(database, sql)]
        candidates = CandidateRows(schema, gather_hints(golds, schema), seed)
        goals = [*((i, _TELLING) for i in range(len(golds))), *variants]
        chosen, alive = _search(database, candidates, wanted, goals, deadline)
        if not chosen:
            raise JudgingError(
                "the gold query has no single right answer on any generated database, because its result depends on "
                "the order in which rows are stored (LIMIT without a complete ORDER BY, or a column that is neither in "
                "GROUP BY nor aggregated)"
            )
        if silent := [golds[i] for i, text in alive if text is _TELLING]:
            raise JudgingError(
                "the gold query returns only NULL, 0 or empty text on every generated database, so a prediction that "
                f"finds nothing would pass: {silent[0][:80]!r}"
            )
        kills = _all_kills(database, chosen, wanted, [goal for goal in goals if goal not in alive])
        kept = _fewest(kills, [choice.plausible for choice in chosen], most)
        killed = set[Variant]().union(*(kills[i] for i in kept)) - {(i, _TELLING) for i in range(len(golds))}
        if len(killed) < _LEAST_KILLED * len(variants):
            raise JudgingError(
                f"the generated databases expose only {len(killed)} of {len(variants)} wrong variants of the gold "
                f"query, which is less than {_LEAST_KILLED:.0%}. Many wrong predictions would pass"
            )
        files = []
        for i in kept:
            database.fill(candidates.make(chosen[i].number, plausible=chosen[i].plausible))
            files.append(database.packed())
    survivors = tuple(text for variant in variants if variant not in killed for text in (variant[1],))
    return Suite(tuple(files), len(killed), survivors, sum(chosen[i].plausible for i in kept))


def rivals(schema: Schema, golds: Sequence[str], predicted_sql: str, *, seed: str) -> Iterator[Rival]:
    """Yield databases for one prediction, plausible ones first. The prediction is parsed but not run."""
    hints = gather_hints([*golds, predicted_sql], schema)
    candidates = CandidateRows(schema, hints, seed, gold_hints=gather_hints(golds, schema))
    with closing(CandidateDatabase(schema)) as database:
        wanted = [gold_of(sql, schema) for sql in _running(database, golds)]
        left = dict(zip((True, False), _MOST_RIVALS, strict=True))
        needed = candidates.needed_tables([*golds, predicted_sql])
        for plausible, number in _numbers():
            if not left[plausible]:
                continue
            database.fill(candidates.make(number, plausible=plausible, only=needed))
            if (expected := _determined(database, wanted)) is not None:
                left[plausible] -= 1
                yield Rival(database.packed(), expected, plausible)


def _numbers() -> Iterator[tuple[bool, int]]:
    """Yield the kind and number of each candidate to try, in order."""
    yield from ((True, number) for number in range(_MOST_PLAUSIBLE))
    yield from ((False, number) for number in range(_MOST_LEGAL))


def _running(database: CandidateDatabase, golds: Sequence[str]) -> list[str]:
    """Return the golds that run. Like `ExecutionGrader`, this ignores failing golds as long as one is left."""
    running, reasons = [], []
    for sql in golds:
        try:
            check_gold(database, sql)
            running.append(sql)
        except JudgingError as error:
            reasons.append(error)
    if not running:
        raise reasons[0]
    return running


def check_gold(database: CandidateDatabase, sql: str) -> None:
    """Raise JudgingError with the reason, as reports show it, if a gold cannot be used."""
    from sqlglot import expressions as exp

    if message := database.failure(sql):
        missing = re.match(r"no such (column|table): (.+)", message)
        if missing:
            raise JudgingError(f"the gold query uses the {missing[1]} {missing[2]}, which the schema lacks")
        if message == "interrupted":
            raise JudgingError(f"the gold query takes more than {MOST_INSTRUCTIONS:,} SQLite instructions")
        raise JudgingError(f"the gold query does not run on the schema: {message}")
    found = read_query(sql, database.schema)
    for node in found[0].find_all(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like) if found else ():
        sides = (node.this, node.expression)
        # In 1987 = "a", SQLite reads a column that the schema lacks as a constant, so the condition is never true.
        if all(isinstance(side, exp.Literal) for side in sides) and any(side.is_string for side in sides):
            raise JudgingError(
                f"the gold query uses the column {node.this.name}, which the schema lacks, "
                f"so it compares two constants: {node.sql(dialect='sqlite')}"
            )


def _running_mutants(database: CandidateDatabase, sql: str) -> list[str]:
    found = read_query(sql, database.schema)
    return [text for text in mutants(*found) if database.run(text) is not None] if found else []


def _determined(database: CandidateDatabase, golds: Sequence[GoldVariants]) -> list[ExpectedResult] | None:
    """Return the results of the golds on the current rows, or None if one fails or depends on the order of rows."""
    results = []
    for gold in golds:
        expected = database.expected(gold)
        if expected is None or not database.is_determined(gold, expected):
            return None
        results.append(expected)
    return results


def _kills(database: CandidateDatabase, expected: Sequence[ExpectedResult], goals: Sequence[Variant]) -> set[Variant]:
    """Return the mutants whose result differs. A mutant that takes too long has no result and is not counted."""
    killed = set()
    for i, text in goals:
        if text is _TELLING:
            if expected[i].is_telling:
                killed.add((i, text))
            continue
        result = database.run(text)
        if result is not None and not expected[i].matches(result.width, result.rows):
            killed.add((i, text))
    return killed


def _search(
    database: CandidateDatabase,
    candidates: CandidateRows,
    golds: Sequence[GoldVariants],
    goals: Sequence[Variant],
    deadline: float,
) -> tuple[list[_Choice], set[Variant]]:
    """Return the candidates that kill new mutants, and the mutants that none of them kills."""
    alive = dict.fromkeys(goals)
    chosen: list[_Choice] = []
    idle = {True: 0, False: 0}
    needed = candidates.needed_tables([*(gold.sql for gold in golds), *(text for _, text in goals)])
    for plausible, number in _numbers():
        if chosen and idle[plausible] > _PATIENCE[not plausible] and not _telling(alive):
            continue
        rows = candidates.make(number, plausible=plausible, only=needed)
        database.fill(rows)
        expected = _determined(database, golds)
        killed = _kills(database, expected, list(alive)) if expected else set()
        if expected and (killed or not chosen):
            chosen.append(_Choice(number, plausible, rows))
        idle[plausible] = 0 if killed else idle[plausible] + 1
        for goal in killed:
            del alive[goal]
        if chosen and (not alive or time.monotonic() > deadline):
            break
    return chosen, set(alive)


def _all_kills(
    database: CandidateDatabase, chosen: Sequence[_Choice], golds: Sequence[GoldVariants], goals: Sequence[Variant]
) -> list[set[Variant]]:
    kills = []
    for choice in chosen:
        database.fill(choice.rows)
        expected = _determined(database, golds)
        kills.append(_kills(database, expected, goals) if expected else set())
    return kills


def _fewest(kills: Sequence[set[Variant]], plausible: Sequence[bool], most: int) -> list[int]:
    """Return the numbers of the databases to keep, by greedy set cover (Chvátal 1979), plausible databases first.

    Each step takes the database that kills most of the remaining mutants. The first one must be a database on which the
    golds return something, if possible.
    """
    kept: list[int] = []
    left = set[Variant]().union(*kills)
    for kind in (True, False):
        places = [i for i in range(len(kills)) if plausible[i] is kind]
        within = left & set[Variant]().union(*(kills[i] for i in places))
        while len(kept) < most and places and (within or not (kept or kind)):
            best = max(places, key=lambda i: (_telling(kills[i] & left), len(kills[i] & left)))
            kept.append(best)
            left -= kills[best]
            within -= kills[best]
    return kept or [0]


def _telling(goals: Iterable[Variant]) -> int:
    return sum(text is _TELLING for _, text in goals)
