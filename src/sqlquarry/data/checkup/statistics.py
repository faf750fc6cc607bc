"""Describe a set of records by figures that are not findings: sizes, token lengths, classes of queries and steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.normal_form import schema_form

# What a query can contain, by its slice in `sqlquarry.sql.features` and the values that mean that it does not.
_SHAPES: Mapping[str, tuple[str, frozenset[str]]] = {
    "several tables": ("tables", frozenset({"0", "1"})),
    "joins": ("joins", frozenset({"0"})),
    "aggregates": ("aggregates", frozenset({"none"})),
    "GROUP BY": ("grouping", frozenset({"none"})),
    "nested queries": ("nesting", frozenset({"none"})),
    "set operations": ("set operations", frozenset({"none"})),
}


@dataclass(frozen=True, slots=True)
class TokenLengths:
    """Numbers of tokens of a record, prompt and answer together.

    Args:
        min, p50, p90, p95, p99, max: the percentiles by nearest rank, so that each is the length of a record.
        over_length: number of records longer than the limit, or None without a limit.
    """

    min: int
    p50: int
    p90: int
    p95: int
    p99: int
    max: int
    over_length: int | None


@dataclass(frozen=True, slots=True)
class Steps:
    """The optimizer steps of a run.

    Args:
        rows_per_step: packed rows in one step.
        steps: optimizer steps of the run.
        epochs: passes over the rows in those steps.
    """

    rows_per_step: int
    steps: int
    epochs: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures about a set of records.

    Args:
        records: number of records.
        schemas: number of different schemas, without differences in spelling, types and order.
        databases: number of different names of databases.
        with_sql: number of records with gold SQL.
        tokens: token lengths, or None if no tokenizer was given.
        classes: number of gold queries by hardness, from "easy" to "extra". "unreadable" is what cannot be parsed.
        shapes: number of gold queries with joins, nested queries, etc.
        steps: the optimizer steps of a run, or None if no plan was given.
    """

    records: int
    schemas: int
    databases: int
    with_sql: int
    tokens: TokenLengths | None
    classes: Mapping[str, int]
    shapes: Mapping[str, int]
    steps: Steps | None


def statistics_of(checked: Checked) -> Statistics:
    """Compute the figures of the records."""
    records, plan = checked.records, checked.plan
    classes, shapes = classes_and_shapes(checked.features)
    return Statistics(
        records=len(records),
        schemas=len({schema_form(text) for text in {record.schema for record in records}}),
        databases=len({record.database for record in records} - {None}),
        with_sql=sum(record.sql is not None for record in records),
        tokens=_token_lengths(checked.tokens, checked.max_length) if checked.tokens else None,
        classes=classes,
        shapes=shapes,
        steps=Steps(plan.rows_per_step, plan.steps, plan.epochs) if plan else None,
    )


def classes_and_shapes(features: Iterable[Mapping[str, str] | None]) -> tuple[dict[str, int], dict[str, int]]:
    """Count queries by hardness, and by what they contain. Every class and shape has a count, which may be 0."""
    classes: Counter[str] = Counter(dict.fromkeys(("easy", "medium", "hard", "extra", "unreadable"), 0))
    shapes: Counter[str] = Counter(dict.fromkeys(_SHAPES, 0))
    for found in features:
        if found is not None:
            classes[found["hardness"]] += 1
            shapes.update(name for name in _SHAPES if has_shape(found, name))
    return dict(classes), dict(shapes)


def has_shape(features: Mapping[str, str], name: str) -> bool:
    """Return whether a query with these features has what a key of `Statistics.shapes` names."""
    feature, absent = _SHAPES[name]
    return features.get(feature, "none") not in {*absent, "none"}


def _token_lengths(tokens: Sequence[int], limit: int | None) -> TokenLengths:
    ranked = sorted(tokens)
    p50, p90, p95, p99 = (ranked[-(-len(ranked) * share // 100) - 1] for share in (50, 90, 95, 99))
    over = None if limit is None else sum(count > limit for count in ranked)
    return TokenLengths(ranked[0], p50, p90, p95, p99, ranked[-1], over)
