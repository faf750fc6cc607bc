"""An immutable sequence of records: split without leaks, hash for manifests, write as JSON Lines."""

from __future__ import annotations

import hashlib
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Self, overload

from sqlquarry.data.objects import s3_uri, upload
from sqlquarry.data.split import FIELDS, LEVELS, SplitReport, divide
from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.files.writing import write_atomically
from sqlquarry.options import did_you_mean
from sqlquarry.progress.notebook import html_table
from sqlquarry.records import Record

if TYPE_CHECKING:
    import boto3

_SHOWN = 10  # records in a notebook


class Split(tuple["Records", "Records"]):
    """The pair (train, test), with a report of how it was split.

    Attributes:
        report: the level, the number of groups, and the sizes that were asked for and reached.
    """

    report: SplitReport

    def __new__(cls, train: Records, test: Records, report: SplitReport) -> Self:
        """Make the pair."""
        split = super().__new__(cls, (train, test))
        split.report = report
        return split

    def __getnewargs__(self) -> tuple[Records, Records, SplitReport]:
        return (*self, self.report)


class Records(Sequence[Record]):
    """Records in order; slices and sums are `Records` again.

    Equal schemas are stored once.

    Args:
        records: the records; duplicates are kept.

    Raises:
        RecordError: an element is not a `Record`.
    """

    __slots__ = ("_records",)

    def __init__(self, records: Iterable[Record] = ()) -> None:
        if isinstance(records, Record) or not isinstance(records, Iterable):
            raise RecordError(f"records is a {type(records).__name__}, but must be a list of records")
        schemas: dict[str, str] = {}
        kept: list[Record] = []
        for index, record in enumerate(records):
            if not isinstance(record, Record):
                raise RecordError(
                    f"element {index} is {type(record).__name__}, not a Record. Make it with sqlquarry.Record(...)."
                )
            if (schema := schemas.setdefault(record.schema, record.schema)) is not record.schema:
                object.__setattr__(record, "schema", schema)  # an equal text, so nobody can tell
            kept.append(record)
        self._records = tuple(kept)

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
        fields = [name for name in FIELDS if any(getattr(record, name) for record in first)]
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

    def split(self, test_size: float = 0.01, *, seed: int = 42, group_by: str | None = "auto") -> Split:
        """Split into (train, test), each in the order of the source, and report what was done.

        Records that a model could answer from memory stay on one side. Schemas are equal whatever their spelling,
        types and column order are. A query's template is its text without literals, aliases and spelling. Questions are
        equal if they have the same words; questions of more than nine words may also differ by one word more or less.

        The same records and seed give the same split on every machine, in whatever order the records come.

        Args:
            test_size: share of the records in (0, 1), or their number (an int), as scikit-learn's.
            seed: another seed gives another split.
            group_by: what stays together. "schema": records that share a schema, a database or a query template.
                "template": records that share a query template, or a schema and a question. "query": records of one
                schema that share a query, literals included, or a question. "auto": whole schemas if they give the
                asked size within a quarter, else templates, or queries where all records share one template. Another
                field of `Record` keeps its equal values together, and None splits single records.

        Raises:
            ConfigError: a share or number is out of range, the field is unknown, or there are fewer than two groups.
        """
        count = self._test_count(test_size)
        known = (*LEVELS, *(name for name in FIELDS if name not in LEVELS))
        if group_by is not None and group_by not in known:
            meant = did_you_mean(group_by, known) if isinstance(group_by, str) else ""
            raise ConfigError(
                f"group_by is {group_by!r}, but must be one of {', '.join(known)}, or None for single records{meant}"
            )
        held_out, report = divide(self._records, count, seed, group_by)
        return Split(
            self._selected([index not in held_out for index in range(len(self))]),
            self._selected([index in held_out for index in range(len(self))]),
            report,
        )

    def _selected(self, wanted: Sequence[bool]) -> Records:
        selected = Records()
        selected._records = tuple(itertools.compress(self._records, wanted))  # checked when they came here
        return selected

    def to_jsonl(self, path: str | Path, *, session: boto3.Session | None = None) -> None:
        """Write one JSON object a line, all at once or not at all; `load_records` reads it back equal.

        Args:
            path: a file, in a new folder if need be, or ``s3://bucket/key``; it ends in ``.jsonl`` or ``.jsonl.gz``.
            session: a boto3 session for S3; None uses the default credentials.

        Raises:
            ConfigError: `path` ends in something else.
            DataError: S3 does not take it.
            MissingExtraError: S3 without its extra.
        """
        uri = s3_uri(path)
        name = uri or str(path)
        if not name.endswith((".jsonl", ".jsonl.gz")):
            raise ConfigError(f"{name} must end in .jsonl or .jsonl.gz, so that load_records knows how to read it")
        lines: Iterable[bytes] = map(_json_line, self)
        content = _gzipped(lines) if name.endswith(".gz") else lines
        if uri:
            upload(uri, content, session)
        else:
            write_atomically(Path(path).expanduser(), content)

    def _test_count(self, test_size: object) -> int:
        if isinstance(test_size, bool) or not isinstance(test_size, Real):
            raise ConfigError(
                f"test_size is {test_size!r}, but must be a share between 0 and 1, such as 0.2, or an int for a number "
                "of records"
            )
        if isinstance(test_size, Integral):
            count = int(test_size)
            if not 0 < count < len(self):
                raise ConfigError(f"test_size is {count} records, but must be at least 1 and less than all {len(self)}")
            return count
        share = float(test_size)
        if not 0 < share < 1:
            raise ConfigError(
                f"test_size is {share}, but a share is between 0 and 1; give an int for a number of records"
            )
        return min(max(1, round(share * len(self))), max(1, len(self) - 1))


def _fields(record: Record) -> dict[str, object]:
    # Alternatives are rare, and a record without them keeps the digest that it had before they existed.
    return {name: getattr(record, name) for name in FIELDS if name != "alternatives" or record.alternatives}


def _json_line(record: Record) -> bytes:
    line = json.dumps(_fields(record), ensure_ascii=False)
    # What UTF-8 cannot hold (lone surrogates) becomes the JSON escape of the same form.
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _gzipped(parts: Iterable[bytes]) -> Iterator[bytes]:
    # As gzip.compress(…, mtime=0) does it: the same records give the same bytes.
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()
