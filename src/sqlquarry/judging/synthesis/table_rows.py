"""Generates the rows of one table in a candidate database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from sqlquarry.judging.synthesis.hints import GroupSize, Hints
from sqlquarry.judging.synthesis.row_styles import RowStyle
from sqlquarry.judging.synthesis.value_pools import ValuePool, ValuePools
from sqlquarry.sql.schema import Column, ForeignKey, Place, Schema, Table
from sqlquarry.sql.syntax import Value

Cell = Value | None

MOST_ROWS = 60
MOST_GROUPED_ROWS = 420
_MOST_PLANNED_ROWS = 24


@dataclass(frozen=True, slots=True)
class CandidateContext:
    """The settings that the tables of all candidates share.

    Args:
        schema: the tables as the DDL declares them.
        hints: the hints of the queries.
        pools: the values of each column.
        group_sizes: the sizes of large groups that the queries need.
        least_rows: minimum number of rows in a table that has more than one.
        children: the tables that refer to other tables.
    """

    schema: Schema
    hints: Hints
    pools: ValuePools
    group_sizes: Sequence[GroupSize]
    least_rows: int
    children: Collection[str]


def some_values(pool: ValuePool, count: int, random: Random) -> Sequence[Value]:
    """Choose up to `count` of a pool's other values, and return them in the order of the pool."""
    chosen = random.sample(range(len(pool.others)), min(count, len(pool.others)))
    return [pool.others[i] for i in sorted(chosen)]


class TableRowMaker:
    """A generator of the rows of one table.

    Args:
        context: the settings that all candidates share.
        table: the table with the constraints to satisfy, which may be stricter than those of the DDL.
        style: the style of the candidate.
        random: the random number generator.
        keys: the few common values of joined columns, by domain.
        made: the rows of the tables that already exist, by name.
    """

    def __init__(
        self,
        context: CandidateContext,
        table: Table,
        style: RowStyle,
        random: Random,
        keys: Mapping[Place, Sequence[Value]],
        *,
        made: Mapping[str, list[tuple[Cell, ...]]],
    ) -> None:
        self.table, self.style, self.random, self.made = table, style, random, made
        self.schema = context.schema
        self.name = table.name.lower()
        self.names, self.columns = list(table.columns), list(table.columns.values())
        self.pools = [context.pools[self.name, name] for name in self.names]
        self.domains = [context.pools.domains[self.name, name] for name in self.names]
        self.is_key = [domain in keys for domain in self.domains]
        self.others = self._other_values(keys)
        usable = context.group_sizes if style.large_groups else ()
        self.group_sizes = [wanted for wanted in usable if self.name in wanted.tables]
        self.group_domain = context.hints.domain
        self.count = 0 if self._is_empty(context) else self._drawn_count(context.least_rows)
        self.blank = {
            i
            for i, column in enumerate(self.columns)
            if not column.required and not column.unique and random.random() < style.blank
        }
        self.alike = self._alike_columns()
        self.dependencies = [
            ([self.names.index(key) for key in group], [self.names.index(column) for column in columns])
            for owner, group, columns in context.hints.dependents
            if owner == self.name
        ]
        self.fresh = {i: iter(self._in_any_order(i)) for i, column in enumerate(self.columns) if column.unique}

    def _other_values(self, keys: Mapping[Place, Sequence[Value]]) -> list[Sequence[Value]]:
        """Choose the values of each column that no query uses."""
        found: list[Sequence[Value]] = [
            keys[domain] if domain in keys else some_values(pool, self.style.values, self.random)
            for domain, pool in zip(self.domains, self.pools, strict=True)
        ]
        if self.style.odd:  # usual forms are needed, too, so that the odd forms make a difference
            found = [
                [*others, *pool.others[:2]] if pool.odd else others
                for others, pool in zip(found, self.pools, strict=True)
            ]
        return found

    def _alike_columns(self) -> list[tuple[int, int]]:
        """Return the pairs of columns that may have the same value in a row."""
        linked = {column for key in self.table.foreign_keys for column in key.columns}
        return [
            (i, j)
            for j, domain in enumerate(self.domains)
            for i in range(len(self.domains))
            if i != j and self.domains[i] == domain and not self.columns[j].unique and self.names[j] not in linked
        ]

    def _is_empty(self, context: CandidateContext) -> bool:
        if self.style.empty == "children":
            return self.name in context.children or not context.children
        return self.style.empty == "any" and self.random.random() < 0.5

    def _drawn_count(self, least: int) -> int:
        """Draw the number of rows, which differs from table to table."""
        style, random = self.style, self.random
        if style.rows == 1:
            return 1
        children = style.rows // 3 if self.table.foreign_keys else 0
        drawn = max(2, round((style.rows + children) * random.choice((0.5, 0.8, 1.0, 1.3, 1.7))))
        return min(max(drawn, least), max(MOST_ROWS, least))

    def _in_any_order(self, i: int) -> list[Value]:
        """Return each value for a unique column once, starting with hits and with values that other tables have."""
        pool = self.pools[i]
        first = [*pool.hits, *self.others[i]] if self.is_key[i] else list(pool.hits)
        odd = pool.odd if self.style.odd else ()
        rest = [value for value in (*pool.near, *pool.others, *odd) if value not in first]
        self.random.shuffle(rest)
        return [*first, *rest]

    def make(self) -> list[tuple[Cell, ...]]:
        """Generate rows that meet the conditions of the queries, rows that just miss them, large groups, and others."""
        rows: list[list[Cell]] = []
        if not self.count:
            return []
        for row in self._planned():
            self._refer(row, rows, hit=True)
            self._depend(row, rows)
            rows.append(row)
        self._add_groups(rows)
        while len(rows) < self.count:
            base = self.random.choice(rows) if rows and self.random.random() < 0.35 else None
            hit = self.random.random() < self.style.hits
            row = self._variant(base) if base else self._new(hit=hit)
            if base is None or self.random.random() < 0.5 or any(column.unique for column in self.columns):
                self._refer(row, rows, hit=hit)
            self._depend(row, rows)
            rows.append(row)
        if self.style.odd:
            rows += self._twins(rows)
        return [tuple(None if i in self.blank else cell for i, cell in enumerate(row)) for row in rows]

    def _twins(self, rows: Sequence[list[Cell]]) -> Iterator[list[Cell]]:
        """Yield copies of rows with another letter case or with spaces around one text, which some functions remove."""
        for i, column in enumerate(self.columns):
            base = self.random.choice(rows)
            value = base[i]
            spelled = any(isinstance(odd, str) for odd in self.pools[i].odd)
            if isinstance(value, str) and spelled and not column.unique and not self.is_key[i]:
                for form in (value.swapcase(), self.random.choice((f" {value}", f"{value} "))):
                    row = self._variant(base)
                    row[i] = form
                    if column.length is None or len(form) <= column.length:
                        yield row

    def _add_groups(self, rows: list[list[Cell]]) -> None:
        """Add groups whose size is one above, equal to, and one below each count with which queries compare."""
        group = -1  # every group gets its own value, even for different counts
        for asked in self.group_sizes:
            wanted = {self.group_domain(key) for key in asked.keys}
            mine = [i for i, domain in enumerate(self.domains) if domain in wanted or self.is_key[i]]
            shared = [i for i in mine if not self.columns[i].unique]
            links = [key for key in self.table.foreign_keys if key.table in asked.tables and key.table != self.name]
            if not shared and not links and any(domain in wanted for domain in self.domains):
                continue  # the key of this table is the group, so each group has one row here
            for size in (asked.size + 1, asked.size, asked.size - 1):
                if len(rows) + size > MOST_GROUPED_ROWS:
                    break
                group += 1
                values = {i: self._group_value(i, group) for i in shared}
                for number, row in enumerate(self._members(size, values)):
                    self._refer(row, rows, hit=True)
                    self._spread(row, number)
                    for i, value in values.items():
                        row[i] = value
                    for key in links:
                        self._take_parent(row, key, group)
                    self._depend(row, rows)
                    rows.append(row)

    def _members(self, size: int, shared: Collection[int]) -> Iterator[list[Cell]]:
        """Yield rows of a group that meet the conditions, and up to two rows that miss one and must not be counted."""
        for _ in range(size):
            yield self._new(hit=True)
        missing = [
            i
            for i, column in enumerate(self.columns)
            if self.pools[i].hits and self.pools[i].near and i not in shared and not column.unique
        ]
        for i in missing[:2]:
            row = self._new(hit=True)
            row[i] = self.pools[i].near[0]
            yield row

    def _spread(self, row: list[Cell], number: int) -> None:
        """Vary the columns without conditions from row to row, so that COUNT(DISTINCT …) is as large as COUNT."""
        for i, column in enumerate(self.columns):
            if self.others[i] and not column.unique and not self.pools[i].hits and not self.is_key[i]:
                row[i] = self.others[i][number % len(self.others[i])]

    def _group_value(self, i: int, group: int) -> Cell:
        choices = (*self.pools[i].hits, *self.others[i])
        return choices[group % len(choices)] if choices else None

    def _take_parent(self, row: list[Cell], key: ForeignKey, group: int) -> None:
        parents, parent = self.made.get(key.table), self.schema.tables.get(key.table)
        if parents and parent and all(target in parent.columns for target in key.targets):
            names = list(parent.columns)
            for column, target in zip(key.columns, key.targets, strict=True):
                row[self.names.index(column)] = parents[group % len(parents)][names.index(target)]

    def _planned(self) -> Iterator[list[Cell]]:
        """Yield rows that meet every condition, then rows that differ from these in the value of one column."""
        conditioned = [i for i, pool in enumerate(self.pools) if pool.hits or pool.near]
        if not conditioned or self.style.hits < 0.4:
            return
        first = self._new(hit=True)
        for i in conditioned:
            if self.pools[i].hits and not self.columns[i].unique:
                first[i] = self.pools[i].hits[0]  # no other value meets more conditions of the column
        yield first
        for _ in range(2):
            yield self._new(hit=True)
        changes = [
            (i, rank, value)
            for i in conditioned
            for rank, value in enumerate((*self.pools[i].near, *self.pools[i].hits))
        ]
        if self.style.odd:
            changes += [(i, rank, value) for i in conditioned for rank, value in enumerate(self.pools[i].odd[:8])]
        self.random.shuffle(changes)
        changes.sort(key=lambda change: change[1] > 2)  # the closest misses come first and are not cut off
        for i, _, value in changes[: _MOST_PLANNED_ROWS // 2]:
            if not self.columns[i].unique:
                for end in (-1, 1):
                    row = self._new(hit=True, end=end)
                    row[i] = value
                    yield row

    def _new(self, *, hit: bool, end: int = 0) -> list[Cell]:
        """Return a row that meets a condition on each column if `hit` is True, or a row of independent values.

        In columns without conditions, `end` selects the smallest (-1), the largest (1) or the middle values (0). Rows
        that just miss a condition get extreme values, so that MIN and MAX reveal them.
        """
        row = [self._cell(i, column, hit=hit) for i, column in enumerate(self.columns)]
        for i, (pool, others) in enumerate(zip(self.pools, self.others, strict=True)):
            third = 0 if self.is_key[i] else len(others) // 3
            usual = row[i] is not None and row[i] not in pool.odd
            if hit and third and not pool.hits and usual and not self.columns[i].unique:
                row[i] = self.random.choice((others[third:-third], others[-third:], others[:third])[end])
        for i, j in self.alike:  # columns that are compared should often be equal
            if hit and self.random.random() < 0.6:
                row[j] = row[i]
        return row

    def _variant(self, base: list[Cell]) -> list[Cell]:
        """Copy a row with at most one column changed, which reveals similar conditions and a missing DISTINCT."""
        row = list(base)
        changed = self.random.randrange(len(row) + 1)
        for i, column in enumerate(self.columns):
            if i == changed or column.unique:
                row[i] = self._cell(i, column, hit=False)
        return row

    def _cell(self, i: int, column: Column, *, hit: bool) -> Cell:
        pool, random = self.pools[i], self.random
        if column.unique:
            return next(self.fresh[i], None)
        if not column.required and random.random() < self.style.nulls and not (hit and pool.hits):
            return None
        if pool.odd and self.style.odd and random.random() < self.style.odd:
            return random.choice(pool.odd)
        if hit and pool.hits:
            best = len(pool.hits) if random.random() < 0.5 else -(-len(pool.hits) // 3)
            return random.choice(pool.hits[:best])
        if hit and self.is_key[i] and self.others[i] and random.random() < 0.6:
            return self.others[i][0]
        choices = [values for values in (pool.hits, pool.near, self.others[i]) if values]
        return random.choice(random.choice(choices)) if choices else None

    def _refer(self, row: list[Cell], rows: Sequence[list[Cell]], *, hit: bool) -> None:
        """Set foreign keys to existing rows. The first rows are preferred, so that some parents have many children."""
        for key in self.table.foreign_keys:
            parent = self.schema.tables.get(key.table)
            parents = [*rows, row] if key.table == self.name else self.made.get(key.table)
            if parent is None or not parents or not all(target in parent.columns for target in key.targets):
                continue
            mine = [self.names.index(column) for column in key.columns]
            parent_names = list(parent.columns)
            theirs = [parent_names.index(target) for target in key.targets]
            optional = not any(self.columns[i].required for i in mine)
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
                        if not self.columns[i].unique:
                            row[i] = other[i]
                    break
