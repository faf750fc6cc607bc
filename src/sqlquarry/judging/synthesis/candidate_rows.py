"""Generates the rows of small random databases that a schema allows, guided by the comparisons in queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random

from sqlquarry.judging.synthesis.hints import Hints
from sqlquarry.judging.synthesis.plausibility import expected_schema
from sqlquarry.judging.synthesis.row_styles import LEGAL, PLAUSIBLE, RowStyle
from sqlquarry.judging.synthesis.table_rows import (
    MOST_GROUPED_ROWS,
    MOST_ROWS,
    CandidateContext,
    Cell,
    TableRowMaker,
    some_values,
)
from sqlquarry.judging.synthesis.value_pools import ValuePools
from sqlquarry.sql.schema import Place, Schema, Table
from sqlquarry.sql.syntax import Value

TableRows = Mapping[str, Sequence[tuple[Cell, ...]]]  # by lowercase table name

_MOST_GROUP_ROWS = 200  # largest group that is generated, even if a query compares a count with a larger number
_MOST_KEYS = 5


class CandidateRows:
    """A generator of candidate databases. The same schema, hints and seed give the same rows.

    Args:
        schema: the tables.
        hints: the hints of all queries that the rows must distinguish.
        seed: a different seed gives different rows.
        gold_hints: the hints of the golds only, which show what people expect of the data. None uses `hints`.
    """

    def __init__(self, schema: Schema, hints: Hints, seed: str, *, gold_hints: Hints | None = None) -> None:
        self.schema, self.seed = schema, seed
        gold_hints = gold_hints or hints
        self.expected = expected_schema(schema, gold_hints)
        group_sizes = [asked for asked in hints.group_sizes if 2 <= asked.size <= _MOST_GROUP_ROWS]
        self.largest = max((2 * asked.size for asked in group_sizes), default=0)
        limits = [count for count in hints.counts if 0 < count <= _MOST_GROUP_ROWS]
        # A table must have more rows than a LIMIT returns.
        least_rows = max((min(3 * count, count + MOST_ROWS // 3) for count in limits), default=0)
        grouped = min(MOST_GROUPED_ROWS, 2 * self.largest)  # three groups and some more rows
        self.pools = ValuePools(schema, hints, gold_hints, max(MOST_ROWS, least_rows, grouped + MOST_ROWS // 2))
        self.context = CandidateContext(
            schema,
            hints,
            self.pools,
            group_sizes,
            least_rows,
            children={name for name, table in self.expected.tables.items() if table.foreign_keys},
        )
        members = Counter(self.pools.domains.values())
        self.joined = {domain for domain, count in members.items() if count > 1}

    def needed_tables(self, texts: Iterable[str]) -> list[str]:
        """Return the tables that the queries name and those that they refer to, or all tables if there are views."""
        if self.schema.views:
            return list(self.schema.tables)
        text = "\n".join(texts).lower()
        needed = {name for name in self.schema.tables if name in text}
        waiting = list(needed)
        while waiting:
            name = waiting.pop()
            links = (*self.schema.tables[name].foreign_keys, *self.expected.tables[name].foreign_keys)
            more = {key.table for key in links if key.table in self.schema.tables} - needed
            needed |= more
            waiting += sorted(more)
        return [name for name in self.schema.tables if name in needed]

    def make(self, number: int, *, plausible: bool = True, only: Collection[str] | None = None) -> TableRows:
        """Return the rows of a candidate. The rows of a table do not depend on which other tables are generated.

        Rows may violate UNIQUE and CHECK. SQLite leaves such rows out. Plausible rows would not surprise a person who
        knows the schema. Other rows are anything that the schema allows.

        Args:
            number: the number of the candidate.
            plausible: whether the rows must be plausible.
            only: the tables to fill, including those that they refer to. The others stay empty. None fills all tables.
        """
        seed = f"{self.seed}/{number}/{plausible}"
        random = Random(seed)  # noqa: S311 - reproducible on purpose
        styles = PLAUSIBLE if plausible else LEGAL
        style = styles[number % len(styles)]
        if number >= len(styles) and number % 2:
            style = replace(
                style,
                rows=random.randint(1, 2 * style.rows),
                values=random.choice((1, 2, 3, 8, 30)),
                nulls=random.choice((0.0, 0.1, 0.4)),
                hits=random.random(),
            )
        if style.large_groups and self.largest:
            style = replace(style, values=self.largest)
        rows: dict[str, list[tuple[Cell, ...]]] = {name: [] for name in self.schema.tables}
        keys: dict[Place, Sequence[Value]] = {}
        for name, table in (self.expected if plausible else self.schema).tables.items():
            if only is None or name in only:
                random = Random(f"{seed}/{name}")  # noqa: S311 - reproducible on purpose
                self._choose_keys(table, style, seed, keys)
                made = TableRowMaker(self.context, table, style, random, keys, made=rows).make()
                rows[name] = _obeying(made, table) if plausible else made
        return rows

    def _choose_keys(self, table: Table, style: RowStyle, seed: str, keys: dict[Place, Sequence[Value]]) -> None:
        """Choose a few common values for columns that are joined, so that rows of different tables match."""
        for column in table.columns:
            place = (table.name.lower(), column)
            domain = self.pools.domains[place]
            if domain in self.joined and domain not in keys:
                random = Random(f"{seed}/{domain}")  # noqa: S311 - reproducible on purpose
                keys[domain] = some_values(self.pools[place], min(style.values, _MOST_KEYS), random)


def _obeying(rows: Sequence[tuple[Cell, ...]], table: Table) -> list[tuple[Cell, ...]]:
    """Return the distinct rows that satisfy the expected constraints, which SQLite does not enforce."""
    known: dict[int, set[Cell]] = {i: set() for i, column in enumerate(table.columns.values()) if column.unique}
    kept: dict[tuple[Cell, ...], None] = {}
    for row in rows:
        missing = any(column.required and row[i] is None for i, column in enumerate(table.columns.values()))
        repeated = any(row[i] in values for i, values in known.items() if row[i] is not None)
        if not missing and not repeated:
            kept[row] = None
            for i, values in known.items():
                values.add(row[i])
    return list(kept)
