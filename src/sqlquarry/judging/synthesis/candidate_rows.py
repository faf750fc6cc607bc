"""Random small databases that a schema allows, guided by what the queries compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random

from sqlquarry.judging.sql.schema import Place, Schema, Table
from sqlquarry.judging.sql.syntax import Value
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

TableRows = Mapping[str, Sequence[tuple[Cell, ...]]]  # by lower-case table name

_MOST_GROUP_ROWS = 200  # rows of one group, whatever a query asks for
_MOST_KEYS = 5


class CandidateRows:
    """Makes candidate databases; the same schema, hints and seed give the same rows.

    Args:
        schema: the tables.
        hints: of all queries that the rows are to tell apart.
        seed: another one gives other rows.
        gold_hints: of the golds alone, which say what people would expect; None if `hints` are those.
    """

    def __init__(self, schema: Schema, hints: Hints, seed: str, *, gold_hints: Hints | None = None) -> None:
        self.schema, self.seed = schema, seed
        gold_hints = gold_hints or hints
        self.expected = expected_schema(schema, gold_hints)
        group_sizes = [asked for asked in hints.group_sizes if 2 <= asked.size <= _MOST_GROUP_ROWS]
        self.largest = max((2 * asked.size for asked in group_sizes), default=0)
        limits = [count for count in hints.counts if 0 < count <= _MOST_GROUP_ROWS]
        # A table's rows must outnumber a limit.
        least_rows = max((min(3 * count, count + MOST_ROWS // 3) for count in limits), default=0)
        grouped = min(MOST_GROUPED_ROWS, 2 * self.largest)  # three groups and some rows more
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
        """Return the tables that any query names, and those which their foreign keys need; all if there are views."""
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
        """Return the rows of candidate `number`, the same in each table whichever others are made.

        They may break UNIQUE and CHECK, which SQLite then ignores one by one. Plausible ones are such that a person
        who knows the schema would not be surprised; the others are anything that it allows.

        Args:
            number: of the candidate.
            plausible: which of the two kinds.
            only: the tables to make, with those that they refer to; the others stay empty. None is all.
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
        """Give columns that are joined few values, the same in all tables, so that rows meet."""
        for column in table.columns:
            place = (table.name.lower(), column)
            domain = self.pools.domains[place]
            if domain in self.joined and domain not in keys:
                random = Random(f"{seed}/{domain}")  # noqa: S311 - reproducible on purpose
                keys[domain] = some_values(self.pools[place], min(style.values, _MOST_KEYS), random)


def _obeying(rows: Sequence[tuple[Cell, ...]], table: Table) -> list[tuple[Cell, ...]]:
    """Return the rows, each once, that keep the expected constraints, which SQLite does not know."""
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
