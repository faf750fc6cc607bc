"""Choosing the databases: candidates are kept for the mutants that they kill, as few of them as will do.

The idea, a small suite of databases distilled from random ones by the wrong queries it exposes, is that of Zhong, Yu
and Klein, "Semantic evaluation for text-to-SQL with distilled test suites" (EMNLP 2020).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from sqlquarry.errors import JudgingError
from sqlquarry.judging.sql.resolver import read_query
from sqlquarry.judging.sql.schema import Schema
from sqlquarry.judging.synthesis.candidate_database import CandidateDatabase, ExpectedResult, GoldQuery, gold_of
from sqlquarry.judging.synthesis.candidate_rows import CandidateRows, TableRows
from sqlquarry.judging.synthesis.hint_reader import gather_hints
from sqlquarry.judging.synthesis.mutants import mutants

_MOST_PLAUSIBLE = 16  # candidates that people would not be surprised by
_MOST_LEGAL = 30  # candidates of the other kind
_MOST_RIVALS = 4, 8  # of each kind, on which the golds have one right answer
_PATIENCE = 6, 12  # candidates in a row, of each kind, that kill nothing
# Suites that tell fewer of the mutants from the gold say too little; see docs/made-databases.md for how it was chosen.
_LEAST_KILLED = 0.5
_TELLING = "-- the gold returns something"  # in the place of a mutant that returns nothing

Variant = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Suite:
    """SQLite files, by content, with what they achieve; the first `plausible` of them would surprise nobody."""

    files: tuple[bytes, ...]
    killed: int
    survivors: tuple[str, ...]
    plausible: int


@dataclass(frozen=True, slots=True)
class Rival:
    """A database made for one prediction: an SQLite file, by content, and what the golds return on it."""

    file: bytes
    expected: list[ExpectedResult]
    plausible: bool


@dataclass(frozen=True, slots=True)
class _Choice:
    """A candidate that kills something new."""

    number: int
    plausible: bool
    rows: TableRows  # of the tables that matter


def make_suite(schema: Schema, golds: Sequence[str], *, most: int, seed: str, deadline: float) -> Suite:
    """Databases on which every gold runs and has one right answer, and which tell it from its mutants.

    Plausible databases come first; others are added for what those cannot tell apart.

    Args:
        schema: the tables.
        golds: SQLite queries.
        most: databases to keep at most.
        seed: with the same seed (and a deadline that is not reached) the files are the same.
        deadline: by `time.monotonic`; at least one candidate is tried.

    Raises:
        JudgingError: a gold does not run on the schema; none of the candidates gives it one right answer, or a value
            that is neither NULL, 0 nor empty; or too few mutants are told from it.
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
                "the gold query has no single right answer on any database tried: its rows depend on the "
                "order in which they are stored (LIMIT without a full ORDER BY, or a bare column beside GROUP BY)"
            )
        if silent := [golds[i] for i, text in alive if text is _TELLING]:
            raise JudgingError(
                "the gold query returns nothing but NULL, 0 or empty text on every database tried, "
                f"so that a query which returns nothing would pass: {silent[0][:80]!r}"
            )
        kills = _all_kills(database, chosen, wanted, [goal for goal in goals if goal not in alive])
        kept = _fewest(kills, [choice.plausible for choice in chosen], most)
        killed = set[Variant]().union(*(kills[i] for i in kept)) - {(i, _TELLING) for i in range(len(golds))}
        if len(killed) < _LEAST_KILLED * len(variants):
            raise JudgingError(
                f"the databases tell only {len(killed)} of {len(variants)} wrong variants of the gold query from it, "
                f"which is less than {_LEAST_KILLED:.0%}, so that many a wrong query would pass"
            )
        files = []
        for i in kept:
            database.fill(candidates.make(chosen[i].number, plausible=chosen[i].plausible))
            files.append(database.packed())
    survivors = tuple(text for variant in variants if variant not in killed for text in (variant[1],))
    return Suite(tuple(files), len(killed), survivors, sum(chosen[i].plausible for i in kept))


def rivals(schema: Schema, golds: Sequence[str], predicted_sql: str, *, seed: str) -> Iterator[Rival]:
    """Databases made for one prediction, which is read but not run; plausible ones first."""
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
    """Which candidates are tried, in this order."""
    yield from ((True, number) for number in range(_MOST_PLAUSIBLE))
    yield from ((False, number) for number in range(_MOST_LEGAL))


def _running(database: CandidateDatabase, golds: Sequence[str]) -> list[str]:
    """Return the usable golds: like `ExecutionGrader`, without those that fail as long as one is left."""
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
    """Raise the reason why a gold cannot be used, as the reports show it."""
    from sqlglot import expressions as exp

    if message := database.failure(sql):
        missing = re.match(r"no such (column|table): (.+)", message)
        if missing:
            raise JudgingError(f"the gold query uses {missing[1]} {missing[2]} that the schema lacks")
        reason = "takes too long" if message == "interrupted" else f"does not run on the schema: {message}"
        raise JudgingError(f"the gold query {reason}")
    found = read_query(sql, database.schema)
    for node in found[0].find_all(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like) if found else ():
        sides = (node.this, node.expression)
        # 1987 = "a": SQLite takes a column that the schema lacks for a constant, and finds nothing for ever.
        if all(isinstance(side, exp.Literal) for side in sides) and any(side.is_string for side in sides):
            raise JudgingError(
                f"the gold query uses column {node.this.name} that the schema lacks, "
                f"and so compares two constants: {node.sql(dialect='sqlite')}"
            )


def _running_mutants(database: CandidateDatabase, sql: str) -> list[str]:
    found = read_query(sql, database.schema)
    return [text for text in mutants(*found) if database.run(text) is not None] if found else []


def _determined(database: CandidateDatabase, golds: Sequence[GoldQuery]) -> list[ExpectedResult] | None:
    """Return the golds' results on the present rows; None if one fails or depends on how rows are stored."""
    results = []
    for gold in golds:
        expected = database.expected(gold)
        if expected is None or not database.is_determined(gold, expected):
            return None
        results.append(expected)
    return results


def _kills(database: CandidateDatabase, expected: Sequence[ExpectedResult], goals: Sequence[Variant]) -> set[Variant]:
    """Return the mutants that return something else; one that takes too long returns nothing and is not counted."""
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
    golds: Sequence[GoldQuery],
    goals: Sequence[Variant],
    deadline: float,
) -> tuple[list[_Choice], set[Variant]]:
    """Candidates that kill something new, and what none of them kills."""
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
    database: CandidateDatabase, chosen: Sequence[_Choice], golds: Sequence[GoldQuery], goals: Sequence[Variant]
) -> list[set[Variant]]:
    kills = []
    for choice in chosen:
        database.fill(choice.rows)
        expected = _determined(database, golds)
        kills.append(_kills(database, expected, goals) if expected else set())
    return kills


def _fewest(kills: Sequence[set[Variant]], plausible: Sequence[bool], most: int) -> list[int]:
    """Greedy set cover: always the database that kills most of what is left (Chvátal 1979), plausible ones first.

    The first is one on which the golds return something, of those the one that kills most.
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
