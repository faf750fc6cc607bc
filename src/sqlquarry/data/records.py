"""An immutable sequence of records: split without leaks, hash for manifests, write as JSON Lines."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from sqlquarry.artifacts import Record, write_atomically
from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.notebook import html_table

_FIELDS = tuple(field.name for field in dataclasses.fields(Record))
_SHOWN = 10  # records in a notebook


class Records(Sequence[Record]):
    """Records in order; slices and sums are `Records` again.

    Args:
        records: the records; duplicates are kept.

    Raises:
        RecordError: an element is not a `Record`.
    """

    __slots__ = ("_records",)

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = tuple(records)
        for place, record in enumerate(self._records):
            if not isinstance(record, Record):
                raise RecordError(
                    f"element {place} is {type(record).__name__}, not a Record. Make it with sqlquarry.Record(...)."
                )

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        return Records(self._records[index]) if isinstance(index, slice) else self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __add__(self, other: Records) -> Records:
        return Records(self._records + other._records) if isinstance(other, Records) else NotImplemented

    def __eq__(self, other: object) -> bool:
        return self._records == other._records if isinstance(other, Records) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._records)

    def __repr__(self) -> str:
        return f"<Records: {len(self)}>"

    def _repr_html_(self) -> str:
        """Show the number of records and the first ones, with the fields that these have, in a notebook."""
        first = self._records[:_SHOWN]
        fields = [name for name in _FIELDS if any(getattr(record, name) for record in first)]
        rows = [[str(value) if (value := getattr(record, name)) else "" for name in fields] for record in first]
        more = [f"{len(self) - len(first):,} more"] if len(self) > len(first) else []
        return html_table(rows, header=fields, caption=f"{len(self):,} record{'s' * (len(self) != 1)}", notes=more)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON of all records in order: the data hash of a manifest."""
        digest = hashlib.sha256()
        for record in self:
            digest.update(_json_line(record))
        return digest.hexdigest()

    def split(self, test: float = 0.01, seed: int = 42, group_by: str | None = "schema") -> tuple[Records, Records]:
        """Split into (train, test), each in the order of the source.

        A group is never divided: with records of one schema on both sides, a test measures memory. The sizes are as
        near to `test` as whole groups allow. The same records and seed give the same split on every machine, in
        whatever order the records come, because groups are ranked by a SHA-256 of seed and value.

        Args:
            test: share of the records in (0, 1), or their number (an int).
            seed: another seed gives another split.
            group_by: the field of `Record` whose equal values stay together; None splits single records.

        Raises:
            ConfigError: a share or number out of range, an unknown field, or fewer than two groups.
        """
        count = self._test_count(test)
        if group_by is not None and group_by not in _FIELDS:
            raise ConfigError(f"group_by is {group_by!r}; use one of {', '.join(_FIELDS)}, or None for single records")
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for place, record in enumerate(self):
            groups[_content(record) if group_by is None else json.dumps(getattr(record, group_by))].append(place)
        ranked = sorted(groups, key=lambda value: hashlib.sha256(f"{seed}\n{value}".encode()).digest())
        members = [groups[value] for value in ranked]
        if group_by is None:
            members = [[place] for group in members for place in group]
        if len(members) < 2:
            what = f"all {len(self)} share one {group_by}" if group_by else f"there is {len(self)} record"
            raise ConfigError(f"nothing to split: {what}. Give more records, or another group_by.")
        held_out = {place for group in _nearest_subset([len(m) for m in members], count) for place in members[group]}
        return (
            Records(record for place, record in enumerate(self) if place not in held_out),
            Records(record for place, record in enumerate(self) if place in held_out),
        )

    def to_jsonl(self, path: str | Path) -> None:
        """Write one JSON object a line, all at once or not at all; `load_records` reads it back equal.

        Raises:
            ConfigError: `path` ends in neither ``.jsonl`` nor ``.jsonl.gz``.
        """
        path = Path(path)
        if not path.name.endswith((".jsonl", ".jsonl.gz")):
            raise ConfigError(f"{path} must end in .jsonl or .jsonl.gz, so that load_records knows how to read it")
        content = b"".join(map(_json_line, self))
        write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)

    def _test_count(self, test: float) -> int:
        if isinstance(test, int) and not isinstance(test, bool):
            if not 0 < test < len(self):
                raise ConfigError(f"test is {test} records, but must be at least 1 and less than all {len(self)}")
            return test
        if isinstance(test, bool) or not 0 < test < 1:
            raise ConfigError(
                f"test is {test}, but a share must lie between 0 and 1; give an int for a number of records"
            )
        return max(1, round(test * len(self)))


def _fields(record: Record) -> dict[str, object]:
    # Alternatives are rare, and a record without them keeps the digest that it had before they existed.
    return {name: getattr(record, name) for name in _FIELDS if name != "alternatives" or record.alternatives}


def _json_line(record: Record) -> bytes:
    line = json.dumps(_fields(record), ensure_ascii=False)
    # What UTF-8 cannot hold (lone surrogates) becomes the JSON escape of the same form.
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _content(record: Record) -> str:
    # Without the id, which readers make of the line number: the split must not depend on the order.
    return json.dumps([value for name, value in _fields(record).items() if name != "id"])


def _nearest_subset(sizes: Sequence[int], target: int) -> list[int]:
    """Places of some, but not all, `sizes` whose sum is as near to `target` as possible; early places are preferred.

    Subset sums by dynamic programming: bit s of `sums` says that the places so far can make the sum s, and `last[s]`
    which place made it possible first, so the sum without that place was possible before it.
    """
    last: dict[int, int] = {}
    sums = 1
    # The sum of all is no split, and a sum this far above the target is worse than the same without one place.
    possible = (1 << min(sum(sizes), target + max(sizes))) - 1
    for place, size in enumerate(sizes):
        new = (sums << size) & possible & ~sums
        sums |= new
        while new:
            lowest = new & -new
            last[lowest.bit_length() - 1] = place
            new ^= lowest
        if target in last:
            break
    rest = min(last, key=lambda total: (abs(total - target), total))
    chosen = []
    while rest:
        chosen.append(last[rest])
        rest -= sizes[last[rest]]
    return chosen
