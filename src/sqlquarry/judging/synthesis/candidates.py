"""Random small databases that a schema allows, guided by what the queries compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from sqlquarry.judging.synthesis.hints import Hints
from sqlquarry.judging.synthesis.names import Place, Value
from sqlquarry.judging.synthesis.pools import Pool, pool_of
from sqlquarry.judging.synthesis.schema import Column, Schema, Table

Cell = Value | None
Rows = Mapping[str, Sequence[tuple[Cell, ...]]]  # by lower-case table name

_MOST_ROWS = 60
_MOST_PLANNED_ROWS = 24
_MOST_KEYS = 5


@dataclass(frozen=True, slots=True)
class _Style:
    """What one candidate is like: its size, how often values repeat, are NULL, meet a condition."""

    rows: int
    values: int  # distinct other values
    nulls: float
    hits: float


# The first candidates are made for what most mutants need; of later ones, every other is made at random.
_STYLES = (
    _Style(rows=9, values=30, nulls=0.0, hits=0.6),
    _Style(rows=12, values=3, nulls=0.1, hits=0.5),
    _Style(rows=7, values=2, nulls=0.0, hits=0.8),
    _Style(rows=10, values=5, nulls=0.25, hits=0.4),
    _Style(rows=3, values=30, nulls=0.0, hits=0.3),
    _Style(rows=1, values=30, nulls=0.0, hits=0.3),
    _Style(rows=18, values=4, nulls=0.05, hits=0.7),
    _Style(rows=5, values=12, nulls=0.0, hits=0.9),
    _Style(rows=14, values=3, nulls=0.5, hits=0.3),
)


class Candidates:
    """Makes candidate databases; the same schema, hints and seed give the same rows."""

    def __init__(self, schema: Schema, hints: Hints, seed: str) -> None:
        self.schema, self.hints, self.seed = schema, hints, seed
        self.pools: dict[Place, Pool] = {}
        by_domain: dict[Place, Pool] = {}
        members = Counter(
            hints.domain((name, column.name.lower()))
            for name, table in schema.tables.items()
            for column in table.columns
        )
        self.joined = [domain for domain, count in members.items() if count > 1]
        for name, table in schema.tables.items():
            for column in table.columns:
                place = (name, column.name.lower())
                domain = hints.domain(place)
                if domain not in by_domain:
                    by_domain[domain] = pool_of(place, column, hints, len(by_domain))
                self.pools[place] = by_domain[domain]
        # A table's rows must outnumber a limit, and its groups come as large as a count that is asked for.
        self.least_rows = max((3 * count for count in hints.counts if count <= _MOST_ROWS), default=0)

    def make(self, number: int) -> Rows:
        """The rows of candidate `number`: they may break UNIQUE and CHECK, which SQLite then ignores one by one."""
        random = Random(f"{self.seed}/{number}")  # noqa: S311 - reproducible on purpose
        style = _STYLES[number % len(_STYLES)]
        if number >= len(_STYLES) and number % 2:
            style = _Style(
                rows=random.randint(1, 2 * style.rows),
                values=random.choice((1, 2, 3, 8, 30)),
                nulls=random.choice((0.0, 0.1, 0.4)),
                hits=random.random(),
            )
        # Columns that are joined have few values, the same in all tables, so that rows meet.
        keys = {
            domain: _some(self.pools[domain], min(style.values, _MOST_KEYS), random)
            for domain in self.joined
            if domain in self.pools
        }
        rows: dict[str, list[tuple[Cell, ...]]] = {}
        for name, table in self.schema.tables.items():
            rows[name] = _TableMaker(self, table, style, random, keys, made=rows).make()
        return rows


def _some(pool: Pool, count: int, random: Random) -> Sequence[Value]:
    chosen = random.sample(range(len(pool.others)), min(count, len(pool.others)))
    return [pool.others[i] for i in sorted(chosen)]


class _TableMaker:
    def __init__(
        self,
        candidates: Candidates,
        table: Table,
        style: _Style,
        random: Random,
        keys: Mapping[Place, Sequence[Value]],
        *,
        made: Mapping[str, list[tuple[Cell, ...]]],
    ) -> None:
        self.table, self.style, self.random, self.made = table, style, random, made
        self.schema = candidates.schema
        self.name = table.name.lower()
        self.names = [column.name.lower() for column in table.columns]
        self.pools = [candidates.pools[self.name, name] for name in self.names]
        domains = [candidates.hints.domain((self.name, name)) for name in self.names]
        self.is_key = [domain in keys for domain in domains]
        self.others = [
            keys[domain] if domain in keys else _some(pool, style.values, random)
            for domain, pool in zip(domains, self.pools, strict=True)
        ]
        children = style.rows // 3 if table.foreign_keys else 0
        count = max(style.rows + children, candidates.least_rows if style.rows > 1 else 0)
        self.count = min(count, _MOST_ROWS)
        self.dependencies = [
            ([self.names.index(key) for key in keys], [self.names.index(column) for column in columns])
            for owner, keys, columns in candidates.hints.dependents
            if owner == self.name
        ]
        self.fresh = {i: iter(self._in_any_order(i)) for i, column in enumerate(table.columns) if column.unique}

    def _in_any_order(self, i: int) -> list[Value]:
        """Each value once, for a unique column; hits and those that other tables know come first."""
        pool = self.pools[i]
        first = [*pool.hits, *self.others[i]] if self.is_key[i] else list(pool.hits)
        rest = [value for value in (*pool.near, *pool.others) if value not in first]
        self.random.shuffle(rest)
        return [*first, *rest]

    def make(self) -> list[tuple[Cell, ...]]:
        rows: list[list[Cell]] = []
        for row in self._planned():
            self._refer(row, rows, hit=True)
            self._depend(row, rows)
            rows.append(row)
        while len(rows) < self.count:
            base = self.random.choice(rows) if rows and self.random.random() < 0.35 else None
            hit = self.random.random() < self.style.hits
            row = self._variant(base) if base else self._new(hit=hit)
            if base is None or self.random.random() < 0.5 or any(column.unique for column in self.table.columns):
                self._refer(row, rows, hit=hit)
            self._depend(row, rows)
            rows.append(row)
        return [tuple(row) for row in rows]

    def _planned(self) -> Iterator[list[Cell]]:
        """Rows that meet every condition, then rows that differ from such a one in the value of one column."""
        conditioned = [i for i, pool in enumerate(self.pools) if pool.hits or pool.near]
        if not conditioned or self.style.hits < 0.4:
            return
        for _ in range(3):
            yield self._new(hit=True)
        changes = [
            (i, rank, value)
            for i in conditioned
            for rank, value in enumerate((*self.pools[i].near, *self.pools[i].hits))
        ]
        self.random.shuffle(changes)
        changes.sort(key=lambda change: change[1] > 2)  # the closest misses of each column are never left out
        for i, _, value in changes[: _MOST_PLANNED_ROWS // 2]:
            if not self.table.columns[i].unique:
                for end in (-1, 1):
                    row = self._new(hit=True, end=end)
                    row[i] = value
                    yield row

    def _new(self, *, hit: bool, end: int = 0) -> list[Cell]:
        """A row that meets a condition on each column, or one of values chosen column by column.

        With `end`, its other values are among the smallest (-1) or largest (1), so that MIN and MAX show a row that
        just misses its conditions; rows that meet them have those in the middle.
        """
        row = [self._cell(i, column, hit=hit) for i, column in enumerate(self.table.columns)]
        for i, (pool, others) in enumerate(zip(self.pools, self.others, strict=True)):
            third = 0 if self.is_key[i] else len(others) // 3
            if hit and third and not pool.hits and row[i] is not None and not self.table.columns[i].unique:
                row[i] = self.random.choice((others[third:-third], others[-third:], others[:third])[end])
        return row

    def _variant(self, base: list[Cell]) -> list[Cell]:
        """A row like another but for one column or none: what tells neighbouring conditions, and DISTINCT, apart."""
        row = list(base)
        changed = self.random.randrange(len(row) + 1)
        for i, column in enumerate(self.table.columns):
            if i == changed or column.unique:
                row[i] = self._cell(i, column, hit=False)
        return row

    def _cell(self, i: int, column: Column, *, hit: bool) -> Cell:
        pool, random = self.pools[i], self.random
        if column.unique:
            return next(self.fresh[i], None)
        if not column.required and random.random() < self.style.nulls and not (hit and pool.hits):
            return None
        if hit and pool.hits:
            return random.choice(pool.hits)
        if hit and self.is_key[i] and self.others[i] and random.random() < 0.6:
            return self.others[i][0]
        choices = [values for values in (pool.hits, pool.near, self.others[i]) if values]
        return random.choice(random.choice(choices)) if choices else None

    def _refer(self, row: list[Cell], rows: Sequence[list[Cell]], *, hit: bool) -> None:
        """Take foreign keys from rows that exist, the first ones more often: some parents have many children."""
        for key in self.table.foreign_keys:
            parent = self.schema.tables.get(key.table)
            parents = [*rows, row] if key.table == self.name else self.made.get(key.table)
            if parent is None or not parents or any(parent.column(target) is None for target in key.targets):
                continue
            mine = [self.names.index(column.lower()) for column in key.columns]
            parent_names = [column.name.lower() for column in parent.columns]
            theirs = [parent_names.index(target.lower()) for target in key.targets]
            optional = not any(self.table.columns[i].required for i in mine)
            if optional and self.random.random() < max(0.05, self.style.nulls):
                row[mine[0]] = None
                continue
            few = parents[:3] if hit and self.random.random() < 0.6 else parents
            chosen = few[int(len(few) * self.random.random() ** 1.5)]
            for i, j in zip(mine, theirs, strict=True):
                row[i] = chosen[j]

    def _depend(self, row: list[Cell], rows: list[list[Cell]]) -> None:
        for keys, columns in self.dependencies:
            for other in rows:
                if all(row[i] == other[i] for i in keys):
                    for i in columns:
                        if not self.table.columns[i].unique:
                            row[i] = other[i]
                    break
