"""Divide records into train and test so that a test measures more than memory, and report how it was done."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlquarry.data.normal_form import query_form, question_form, schema_form
from sqlquarry.errors import ConfigError
from sqlquarry.records import Record
from sqlquarry.text import visible_logger

_log = visible_logger(__name__)
FIELDS = tuple(field.name for field in dataclasses.fields(Record))
# Values of `group_by`, in addition to the fields of Record and None.
LEVELS = ("auto", "schema", "template", "query")
_TOLERANCE = 0.25  # If "auto" misses the requested size by more than this share of it, it divides schemas.
_NEGLIGIBLE = 0.05  # If it misses the size by more than this share of all records, it divides query templates.
_SET_BIT = re.compile("1")
_LONG_QUESTION = 9  # Number of words. In a longer question, an extra word means a Jaccard similarity of at least 0.9.


@dataclass(frozen=True, slots=True)
class SplitReport:
    """A report on how records were split.

    Args:
        level: what was kept together: "schema", "template", "query", the name of a field, or "record" for nothing.
        groups: number of groups. A group is never divided.
        asked: requested number of test records.
        train: number of training records.
        test: number of test records.
        repeats: number of records that stay with an earlier one because they have the same query template, or the same
            question within one schema.
        reason: why size or level differ from what was requested, or "" if they do not.
    """

    level: str
    groups: int
    asked: int
    train: int
    test: int
    repeats: int
    reason: str = ""

    def __str__(self) -> str:
        text = (
            f"{self.train:,} train and {self.test:,} test records ({self.asked:,} requested), split by {self.level} "
            f"into {self.groups:,} groups. {self.repeats:,} records have the same query or question as another record "
            "and stay with it"
        )
        return f"{text}. {self.reason}" if self.reason else text


def divide(records: Sequence[Record], asked: int, seed: int, group_by: str | None) -> tuple[set[int], SplitReport]:
    """Choose the indices of the test records. Arguments and errors are those of `Records.split`."""
    if group_by == "auto":
        grouping, reason = _automatic(records, asked, seed)
    else:
        grouping, reason = _grouping(records, asked, seed, group_by), ""
    if len(grouping.sizes) < 2:
        count = len(records)
        what = f"all {count} records share one {grouping.level}" if count > 1 else f"the number of records is {count}"
        raise ConfigError(
            f"there is nothing to split, because {what}. Use more records, another group_by, or group_by=None to split "
            "single records."
        )
    held_out = grouping.held_out
    if not _fits(len(held_out), asked):
        largest = max(grouping.sizes.values())
        nearest = f"No choice of whole groups is nearer to {asked:,}. The largest group has {largest:,} records."
        reason = f"{reason} {nearest}".strip()
    report = SplitReport(
        grouping.level,
        len(grouping.sizes),
        asked,
        len(records) - len(held_out),
        len(held_out),
        grouping.repeats,
        reason,
    )
    (_log.warning if reason else _log.info)("%s", report)
    return held_out, report


class _DisjointSets:
    """Disjoint sets of indices that are joined if they have a key in common (union-find)."""

    def __init__(self, size: int) -> None:
        self.parents = list(range(size))
        self.joined = 0

    def copy(self) -> _DisjointSets:
        other = _DisjointSets(0)
        other.parents, other.joined = self.parents.copy(), self.joined
        return other

    def join(self, keys: Iterable[tuple[int, Hashable]]) -> None:
        first: dict[Hashable, int] = {}
        for index, key in keys:
            if (other := first.setdefault(key, index)) != index:
                self.unite(index, other)

    def unite(self, one: int, other: int) -> None:
        one, other = self.root(one), self.root(other)
        if one != other:
            self.parents[max(one, other)] = min(one, other)
            self.joined += 1

    def root(self, index: int) -> int:
        parents = self.parents
        while (parent := parents[index]) != index:
            parents[index] = index = parents[parent]
        return index


class _Grouping:
    """Records in groups that must not be divided."""

    def __init__(
        self, records: Sequence[Record], sets: _DisjointSets, level: str, repeats: int, *, asked: int, seed: int
    ) -> None:
        self.level, self.repeats, self._records = level, repeats, records
        self._asked, self._seed = asked, seed
        self._roots = [sets.root(index) for index in range(len(records))]
        self.sizes = Counter(self._roots)

    @cached_property
    def held_out(self) -> set[int]:
        """Indices of the records in the chosen groups, whose total size is nearest to the requested one."""
        # The smallest record determines the rank of its group, so the order of the records does not matter.
        least: dict[int, int] = {}
        for index, root in enumerate(self._roots):
            other = least.setdefault(root, index)
            if other != index and _content(self._records[index]) < _content(self._records[other]):
                least[root] = index
        ranked = sorted(least, key=lambda root: _rank(self._seed, self._records[least[root]]))
        chosen = {ranked[index] for index in nearest_subset([self.sizes[root] for root in ranked], self._asked)}
        return {index for index, root in enumerate(self._roots) if root in chosen}


def _automatic(records: Sequence[Record], asked: int, seed: int) -> tuple[_Grouping, str]:
    """Return the groups of the first level that gives about the requested size, and why earlier levels do not."""
    templates = _DisjointSets(len(records))
    templates.join(_templates(records))
    whole = _grouping(records, asked, seed, "schema", templates.copy())
    reason = ""
    if len(whole.sizes) > 1:
        found = len(whole.held_out)
        if _fits(found, asked):
            return whole, ""
        reason = (
            f"Whole schemas would give {found:,} test records, so schemas are divided and only queries and questions "
            "are kept together. Use group_by='schema' to keep schemas whole."
        )
    parts = _grouping(records, asked, seed, "template", templates)
    if len(parts.sizes) < 2:
        reason = "Templates and questions connect all records, so train and test share query templates."
        return _grouping(records, asked, seed, "query"), reason
    found = len(parts.held_out)
    miss = abs(found - asked)
    if not _fits(found, asked) and miss > _NEGLIGIBLE * len(records):
        queries = _grouping(records, asked, seed, "query")
        if abs(len(queries.held_out) - asked) < miss:
            return queries, (
                f"Whole query templates would give {found:,} test records, so train and test share templates, and only "
                "equal queries and questions are kept together. Use group_by='template' to keep templates whole."
            )
    return parts, reason


def _grouping(
    records: Sequence[Record], asked: int, seed: int, level: str | None, templates: _DisjointSets | None = None
) -> _Grouping:
    sets = templates or _DisjointSets(len(records))
    if level in ("schema", "template") and not templates:
        sets.join(_templates(records))
    if level == "query":
        sets.join(_queries(records))
    if level in ("template", "query"):
        _join_questions(records, sets, values=level == "query")
    repeats = sets.joined
    if level == "schema":
        sets.join(_schemas(records))
        sets.join((index, record.database) for index, record in enumerate(records) if record.database)
    elif level in FIELDS:
        sets.join((index, getattr(record, level)) for index, record in enumerate(records))
    return _Grouping(records, sets, level or "record", repeats, asked=asked, seed=seed)


def _schemas(records: Sequence[Record]) -> Iterator[tuple[int, str]]:
    forms: dict[str, str] = {}
    for index, record in enumerate(records):
        form = forms.get(record.schema)
        if form is None:
            form = forms[record.schema] = schema_form(record.schema)
        yield index, form


def _templates(records: Sequence[Record]) -> Iterator[tuple[int, str]]:
    for index, record in enumerate(records):
        # The property is slow enough to matter for a million records.
        golds = record.golds if record.alternatives else (record.sql,)
        for sql in golds:
            # A query without FROM, such as "SELECT 1", reveals nothing about any table.
            if sql is not None and " from " in (template := query_form(sql, record.schema)):
                yield index, template


def _queries(records: Sequence[Record]) -> Iterator[tuple[int, tuple[str, str]]]:
    for index, form in _schemas(records):
        for sql in records[index].golds:
            yield index, (form, query_form(sql, records[index].schema, literals=True))


def _join_questions(records: Sequence[Record], sets: _DisjointSets, *, values: bool) -> None:
    """Join records of one schema whose questions have the same words. Long ones may have one extra word.

    If the query is known, questions with different numbers or values are different questions, because queries that
    differ in nothing else are joined already.
    """
    # A sum of hashes does not depend on the order of the words. Subtracting one hash gives the sum without that word.
    first: dict[int, int] = {}
    long: list[tuple[int, int, array[int]]] = []
    for index, form in _schemas(records):
        record = records[index]
        words = array("q", map(hash, question_form(record.question, values=values or record.sql is not None)))
        total = hash((form,)) + sum(words)
        if (other := first.setdefault(total, index)) != index:
            sets.unite(index, other)
        elif len(words) > _LONG_QUESTION:
            long.append((index, total, words))
    for index, total, words in long:
        for word in words:
            if (other := first.get(total - word, index)) != index:
                sets.unite(index, other)


def _fits(found: int, asked: int) -> bool:
    return abs(found - asked) <= asked * _TOLERANCE


def _content(record: Record) -> tuple[str, str, str]:
    return record.question, record.sql or "", record.schema


def _rank(seed: int, record: Record) -> bytes:
    return hashlib.sha256("\n".join((str(seed), *_content(record))).encode("utf-8", "surrogatepass")).digest()


def nearest_subset(sizes: Sequence[int], target: int) -> list[int]:
    """Return the indices of some, but not all, sizes with a sum near `target`, preferring early indices.

    Taking every size that still fits almost always reaches the target. If not, groups are large or few, and dynamic
    programming over subset sums finds the nearest sum. Bit s of `sums` is set if a subset of the indices so far has the
    sum s. `last[s]` is the index that first made the sum s possible, so the sum without it was possible before.
    """
    fitting, rest = [], target
    for index, size in enumerate(sizes):
        if size <= rest:
            fitting.append(index)
            rest -= size
    if fitting and len(fitting) < len(sizes) and rest <= target // 10_000:
        return fitting
    last: dict[int, int] = {}
    sums = 1
    # The smallest size alone, or a sum of at most twice the target, is nearer than any larger sum.
    largest = max(2 * target, min(sizes))
    possible = (1 << min(sum(sizes), largest + 1)) - 1  # The sum of all sizes is excluded, because it is not a split.
    for index, size in enumerate(sizes):
        if size > largest:
            continue
        new = (sums << size) & possible & ~sums
        sums |= new
        # Taking the bits off `new` one by one would copy the whole number for each of them.
        lowest = max((new & -new).bit_length() - 1, 0)
        bits = f"{new >> lowest:b}"[::-1]
        last.update(dict.fromkeys((lowest + bit.start() for bit in _SET_BIT.finditer(bits)), index))
        if target in last:
            break
    total = min(last, key=lambda total: (abs(total - target), total))
    chosen = []
    while total:
        chosen.append(last[total])
        total -= sizes[last[total]]
    return chosen
