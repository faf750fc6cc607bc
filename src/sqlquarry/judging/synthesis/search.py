"""Choosing the databases: candidates are kept for the mutants that they kill, as few of them as will do.

The idea, a small suite of databases distilled from random ones by the wrong queries it exposes, is that of Zhong, Yu
and Klein, "Semantic evaluation for text-to-SQL with distilled test suites" (EMNLP 2020).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from sqlquarry.errors import JudgingError
from sqlquarry.judging.synthesis.candidates import Candidates, Rows
from sqlquarry.judging.synthesis.hints import gather
from sqlquarry.judging.synthesis.laboratory import Expected, Gold, Laboratory, gold_of
from sqlquarry.judging.synthesis.mutants import mutants
from sqlquarry.judging.synthesis.names import read_query
from sqlquarry.judging.synthesis.schema import Schema

_MOST_CANDIDATES = 40
_PATIENCE = 12  # candidates in a row that kill nothing


@dataclass(frozen=True, slots=True)
class Suite:
    """SQLite files, by content, with what they achieve."""

    files: tuple[bytes, ...]
    killed: int
    survivors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rival:
    """A database made for one prediction: an SQLite file, by content, and what the golds return on it."""

    file: bytes
    expected: list[Expected]


def make_suite(schema: Schema, golds: Sequence[str], *, most: int, seed: str, deadline: float) -> Suite:
    """Databases on which every gold runs and has one right answer, and which tell it from its mutants.

    Args:
        schema: the tables.
        golds: SQLite queries.
        most: databases to keep at most.
        seed: with the same seed (and a deadline that is not reached) the files are the same.
        deadline: by `time.monotonic`; at least one candidate is tried.

    Raises:
        JudgingError: a gold does not run on the schema, or none of the candidates gives it one right answer.
    """
    with closing(Laboratory(schema)) as laboratory:
        golds = _running(laboratory, golds)
        wanted = [gold_of(sql, schema) for sql in golds]
        variants = [(i, text) for i, sql in enumerate(golds) for text in _running_mutants(laboratory, sql)]
        candidates = Candidates(schema, gather(golds, schema), seed)
        chosen, alive = _search(laboratory, candidates, wanted, variants, deadline)
        if not chosen:
            raise JudgingError(
                "the gold query has no single right answer on any database tried: its rows depend on the "
                "order in which they are stored (LIMIT without a full ORDER BY, or a bare column beside GROUP BY)"
            )
        kills = _all_kills(laboratory, chosen, wanted, [variant for variant in variants if variant not in alive])
        kept = _fewest(kills, most)
        killed = set[tuple[int, str]]().union(*(kills[i] for i in kept))
        files = []
        for i in kept:
            laboratory.fill(chosen[i])
            files.append(laboratory.packed())
    survivors = tuple(text for variant in variants if variant not in killed for text in (variant[1],))
    return Suite(tuple(files), len(killed), survivors)


def rivals(schema: Schema, golds: Sequence[str], predicted_sql: str, *, seed: str) -> Iterator[Rival]:
    """Databases made for one prediction, which is read but not run."""
    candidates = Candidates(schema, gather([*golds, predicted_sql], schema), seed)
    with closing(Laboratory(schema)) as laboratory:
        wanted = [gold_of(sql, schema) for sql in _running(laboratory, golds)]
        for number in range(_MOST_CANDIDATES):
            laboratory.fill(candidates.make(number))
            if (expected := _determined(laboratory, wanted)) is not None:
                yield Rival(laboratory.packed(), expected)


def _running(laboratory: Laboratory, golds: Sequence[str]) -> list[str]:
    """The golds that can be used: like `ExecutionGrader`, without those that fail as long as one is left."""
    running, reasons = [], []
    for sql in golds:
        try:
            check_gold(laboratory, sql)
            running.append(sql)
        except JudgingError as error:
            reasons.append(error)
    if not running:
        raise reasons[0]
    return running


def check_gold(laboratory: Laboratory, sql: str) -> None:
    """Raise the reason why a gold cannot be used, as the reports show it."""
    from sqlglot import expressions as exp

    if message := laboratory.failure(sql):
        missing = re.match(r"no such (column|table): (.+)", message)
        if missing:
            raise JudgingError(f"the gold query uses {missing[1]} {missing[2]} that the schema lacks")
        reason = "takes too long" if message == "interrupted" else f"does not run on the schema: {message}"
        raise JudgingError(f"the gold query {reason}")
    found = read_query(sql, laboratory.schema)
    for node in found[0].find_all(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like) if found else ():
        sides = (node.this, node.expression)
        # 1987 = "a": SQLite takes a column that the schema lacks for a constant, and finds nothing for ever.
        if all(isinstance(side, exp.Literal) for side in sides) and any(side.is_string for side in sides):
            raise JudgingError(
                f"the gold query uses column {node.this.name} that the schema lacks, "
                f"and so compares two constants: {node.sql(dialect='sqlite')}"
            )


def _running_mutants(laboratory: Laboratory, sql: str) -> list[str]:
    found = read_query(sql, laboratory.schema)
    return [text for text in mutants(*found) if laboratory.run(text) is not None] if found else []


def _determined(laboratory: Laboratory, golds: Sequence[Gold]) -> list[Expected] | None:
    """The golds' results on the rows that are filled in, or None where one fails or depends on how rows are stored."""
    results = []
    for gold in golds:
        expected = laboratory.expected(gold)
        if expected is None or not laboratory.is_determined(gold, expected):
            return None
        results.append(expected)
    return results


def _kills(
    laboratory: Laboratory, expected: Sequence[Expected], variants: Sequence[tuple[int, str]]
) -> set[tuple[int, str]]:
    """The mutants that return something else; one that takes too long here has returned nothing, and is not counted."""
    killed = set()
    for i, text in variants:
        result = laboratory.run(text)
        if result is not None and not expected[i].matches(result.width, result.rows):
            killed.add((i, text))
    return killed


def _search(
    laboratory: Laboratory,
    candidates: Candidates,
    golds: Sequence[Gold],
    variants: Sequence[tuple[int, str]],
    deadline: float,
) -> tuple[list[Rows], set[tuple[int, str]]]:
    """Candidates that kill something new, and the mutants that none of them kills."""
    alive = dict.fromkeys(variants)
    chosen: list[Rows] = []
    idle = 0
    for number in range(_MOST_CANDIDATES):
        rows = candidates.make(number)
        laboratory.fill(rows)
        expected = _determined(laboratory, golds)
        killed = _kills(laboratory, expected, list(alive)) if expected else set()
        if expected and (killed or not chosen):
            chosen.append(rows)
            idle = 0
        idle += not killed
        for variant in killed:
            del alive[variant]
        if chosen and (not alive or idle > _PATIENCE or time.monotonic() > deadline):
            break
    return chosen, set(alive)


def _all_kills(
    laboratory: Laboratory, chosen: Sequence[Rows], golds: Sequence[Gold], variants: Sequence[tuple[int, str]]
) -> list[set[tuple[int, str]]]:
    kills = []
    for rows in chosen:
        laboratory.fill(rows)
        expected = _determined(laboratory, golds)
        kills.append(_kills(laboratory, expected, variants) if expected else set())
    return kills


def _fewest(kills: Sequence[set[tuple[int, str]]], most: int) -> list[int]:
    """Greedy set cover: always the database that kills most of what is left (Chvátal 1979)."""
    kept: list[int] = []
    left = set[tuple[int, str]]().union(*kills)
    while len(kept) < most and (left or not kept):
        best = max(range(len(kills)), key=lambda i: len(kills[i] & left))
        kept.append(best)
        left -= kills[best]
    return kept
