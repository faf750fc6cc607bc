"""An immutable sequence of records that can be split without leaks, hashed, and written."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Self, overload

from sqlquarry.data.checkup.quarantine import quarantine_line, reasons_by_position
from sqlquarry.data.checkup.repair import REPAIRS, Repair, repaired
from sqlquarry.data.split import FIELDS, LEVELS, SplitReport, divide
from sqlquarry.data.writers import dataset_of, json_line, message_line, parquet_parts, write_file
from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.execution.limits import DEFAULT_LIMITS, ExecutionLimits
from sqlquarry.options import did_you_mean
from sqlquarry.progress.notebook import html_table
from sqlquarry.records import Record

if TYPE_CHECKING:
    import boto3
    import datasets

    from sqlquarry.data.checkup.checked import Plan
    from sqlquarry.data.checkup.report import DataReport
    from sqlquarry.execution.databases import DatabaseSource
    from sqlquarry.prompt import PromptFormatter
    from sqlquarry.tokenizing.tokenizer import Tokenizer

_SHOWN = 10  # records in a notebook
_NO_OTHERS: Mapping[str, Sequence[Record]] = {}


class Split(tuple["Records", "Records"]):
    """The pair (train, test), with a report on the split.

    Attributes:
        report: the level, the number of groups, and the requested and actual sizes.
    """

    report: SplitReport

    def __new__(cls, train: Records, test: Records, report: SplitReport) -> Self:
        """Create the pair."""
        split = super().__new__(cls, (train, test))
        split.report = report
        return split

    def __getnewargs__(self) -> tuple[Records, Records, SplitReport]:
        return (*self, self.report)


class Records(Sequence[Record]):
    """An ordered, immutable sequence of records. Slices and sums are `Records` too.

    Equal schemas are stored only once.

    Args:
        records: the records. Duplicates are kept.

    Raises:
        RecordError: an element is not a `Record`.
    """

    __slots__ = ("_records",)

    def __init__(self, records: Iterable[Record] = ()) -> None:
        if isinstance(records, Record) or not isinstance(records, Iterable):
            raise RecordError(
                f"records is a {type(records).__name__}, but must be a list of records. Pass one record as [record]."
            )
        schemas: dict[str, str] = {}
        kept: list[Record] = []
        for index, record in enumerate(records):
            if not isinstance(record, Record):
                raise RecordError(
                    f"element {index} is a {type(record).__name__}, not a Record. Create it with sqlquarry.Record(…)."
                )
            if (schema := schemas.setdefault(record.schema, record.schema)) is not record.schema:
                object.__setattr__(record, "schema", schema)  # The texts are equal, so the record does not change.
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
        """Return an HTML table for notebooks with the first records and the fields that they have."""
        first = self._records[:_SHOWN]
        fields = [name for name in FIELDS if any(getattr(record, name) for record in first)]
        rows = [[str(value) if (value := getattr(record, name)) else "" for name in fields] for record in first]
        more = [f"{len(self) - len(first):,} more"] if len(self) > len(first) else []
        return html_table(rows, header=fields, caption=f"{len(self):,} record{'s' * (len(self) != 1)}", notes=more)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of all records in order."""
        digest = hashlib.sha256()
        for record in self:
            digest.update(json_line(record))
        return digest.hexdigest()

    def split(self, test_size: float = 0.01, *, seed: int = 42, group_by: str | None = "auto") -> Split:
        """Split into (train, test) without leaks. Both parts keep the order of the source.

        Similar records, which a model could answer from memory, stay on the same side. Schemas count as equal even if
        their spelling, types or column order differ. A query's template is the query without literals, aliases and
        differences in spelling. Questions are equal if they consist of the same words. A question of more than nine
        words is also equal to one that lacks a single one of its words.

        The same records and seed give the same split on every machine and in any order of the records.

        Args:
            test_size: share of the records in (0, 1), or their number as an int, as in scikit-learn.
            seed: seed of the split.
            group_by: which records stay together. "schema": records that share a schema, a database or a query
                template. "template": records that share a query template, or a schema and a question. "query": records
                of one schema that share a query including its literals, or a question. "auto": whole schemas if the
                size is then within a quarter of the requested one, otherwise templates, or queries if templates
                connect all records or miss the size too. The name of another field of `Record`: records with equal
                values of it. None: nothing, so single records are split.

        Raises:
            ConfigError: `test_size` is out of range, the field is unknown, or there are fewer than two groups.
        """
        count = self._test_count(test_size)
        known = (*LEVELS, *(name for name in FIELDS if name not in LEVELS))
        if group_by is not None and group_by not in known:
            meant = did_you_mean(group_by, known) if isinstance(group_by, str) else ""
            raise ConfigError(
                f"group_by is {group_by!r}, but must be one of {', '.join(known)} or None (for single records){meant}"
            )
        held_out, report = divide(self._records, count, seed, group_by)
        return Split(
            self._selected([index not in held_out for index in range(len(self))]),
            self._selected([index in held_out for index in range(len(self))]),
            report,
        )

    def repair(
        self,
        databases: DatabaseSource | Mapping[str, str | Path] | str | Path | None = None,
        *,
        repairs: Sequence[str] = REPAIRS,
        limits: ExecutionLimits = DEFAULT_LIMITS,
        concurrency: int = 4,
    ) -> Repair[Records]:
        """Repair what is mechanical, such as code fences around SQL or text in double quotes. Meanings stay the same.

        A gold query is changed only if it can still be parsed, still compiles on its schema, and still returns the same
        rows if there is a database. What was wrong before may become right. Otherwise the record stays as it is. A
        second call changes nothing more.

        Args:
            databases: the databases on which the queries run, as for `ExecutionGrader`. None runs no query.
            repairs: the names of the repairs. The default is all of them.
            limits: limits of each query.
            concurrency: number of queries that run at a time.

        Returns:
            the repaired records, with every change. ``undo()`` returns the records as they were.

        Raises:
            ConfigError: a repair is unknown, or another argument has a wrong type or value.
            JudgingError: a directory or file with databases does not exist, or a URL cannot be parsed.
            MissingExtraError: the extra `judge` is not installed.
        """
        records, changes = repaired(self, databases, repairs, limits, concurrency)
        return Repair(Records(records), changes, self)

    def quarantine(
        self,
        report: DataReport,
        path: str | Path,
        *,
        kinds: Sequence[str] | None = None,
        session: boto3.Session | None = None,
    ) -> Records:
        """Write the records with findings to a file, atomically, and return the other records.

        The file is JSON Lines. Each line has the fields of a record and its `reasons`: kind, detail and advice. A
        person can mend the records in it, and `load_records` reads them back. Of records that only repeat each other,
        the first one is kept.

        Args:
            report: the `DataReport` that `check` returned for these records.
            path: a file or ``s3://bucket/key`` that ends in ``.jsonl`` or ``.jsonl.gz``.
            kinds: the kinds of findings. None means all kinds of errors.
            session: a boto3 session for S3. None uses the default credentials.

        Raises:
            ConfigError: a kind is unknown, the report is about other records, or `path` has another ending.
            DataError: the object cannot be written to S3.
            MissingExtraError: `path` is on S3, but boto3 is not installed.
        """
        reasons = reasons_by_position(self, report, kinds)
        lines = (quarantine_line(self[place], findings, report.kinds) for place, findings in reasons.items())
        write_file(path, (".jsonl", ".jsonl.gz"), lines, session)
        return self._selected([position not in reasons for position in range(len(self))])

    def _selected(self, wanted: Sequence[bool]) -> Records:
        selected = Records()
        selected._records = tuple(itertools.compress(self._records, wanted))  # `__init__` has checked them already.
        return selected

    def check(
        self,
        databases: DatabaseSource | Mapping[str, str | Path] | str | Path | None = None,
        *,
        others: Mapping[str, Sequence[Record]] = _NO_OTHERS,
        formatter: PromptFormatter | None = None,
        tokenizer: Tokenizer | None = None,
        max_length: int | None = None,
        plan: Plan | None = None,
        limits: ExecutionLimits = DEFAULT_LIMITS,
        concurrency: int = 4,
    ) -> DataReport:
        """Check gold queries, texts and the whole set, and report what would teach a model something wrong.

            report = records.check("databases/", others={"test": test})
            print(report)
            report.to_html("checkup.html")

        Args:
            databases: where gold queries run, read-only: a mapping, a directory, a URL or a `DatabaseSource`, as for
                `ExecutionGrader`. None runs no query, and checks queries only against the records' schemas.
            others: further sets by name, such as ``{"test": test}``, for duplicates and contradictions across sets.
            formatter: the wording whose tokens are counted. None uses SQLQuarry's default wording.
            tokenizer: the base model's tokenizer, which counts the tokens of each record. None counts none.
            max_length: the number of tokens that training accepts for a record. It needs a tokenizer.
            plan: the forecast of a run, `QLoRAFSDPTrainer.plan(records)`, for its optimizer steps.
            limits: seconds, rows, bytes and memory of one query.
            concurrency: number of queries that run at a time.

        Raises:
            ConfigError: an argument has a wrong type or value, or the tokenizer cannot be used.
            JudgingError: a directory or file with databases does not exist, or a URL cannot be parsed.
            MissingExtraError: the extra `judge` is not installed.
        """
        from sqlquarry.data.checkup.run import check_records  # needs sqlglot and Jinja

        return check_records(
            self,
            databases,
            others=others,
            formatter=formatter,
            tokenizer=tokenizer,
            max_length=max_length,
            plan=plan,
            limits=limits,
            concurrency=concurrency,
        )

    def to_jsonl(self, path: str | Path, *, session: boto3.Session | None = None) -> None:
        """Write the records atomically, one JSON object per line. `load_records` returns equal records from the file.

        Args:
            path: a file or ``s3://bucket/key`` that ends in ``.jsonl`` or ``.jsonl.gz``. Missing directories are
                created.
            session: a boto3 session for S3. None uses the default credentials.

        Raises:
            ConfigError: `path` has another ending.
            DataError: the object cannot be written to S3.
            MissingExtraError: `path` is on S3, but boto3 is not installed.
        """
        write_file(path, (".jsonl", ".jsonl.gz"), map(json_line, self), session)

    def to_messages(
        self, path: str | Path, *, formatter: PromptFormatter | None = None, session: boto3.Session | None = None
    ) -> None:
        """Write the records as conversations, one JSON object per line, for TRL and other programs that train.

        Each line has `messages` with role and content, the id, and the record's alternatives, database, dialect and
        notes if they are set. Templates and special tokens are not part of it. `load_records` returns equal records if
        it gets the same formatter. Only white space around the texts is lost.

        Args:
            path: a file or ``s3://bucket/key`` that ends in ``.jsonl`` or ``.jsonl.gz``.
            formatter: the wording of the messages. None uses SQLQuarry's default wording.
            session: a boto3 session for S3. None uses the default credentials.

        Raises:
            ConfigError: `path` has another ending.
            DataError: the object cannot be written to S3.
            MissingExtraError: `path` is on S3, but boto3 is not installed.
        """
        from sqlquarry.prompt import PromptFormatter  # needs Jinja

        used = formatter or PromptFormatter()
        write_file(path, (".jsonl", ".jsonl.gz"), (message_line(record, used) for record in self), session)

    def to_parquet(self, path: str | Path, *, session: boto3.Session | None = None) -> None:
        """Write the records as Parquet, one column per field. `load_records` returns equal records from the file.

        Args:
            path: a file or ``s3://bucket/key`` that ends in ``.parquet``.
            session: a boto3 session for S3. None uses the default credentials.

        Raises:
            ConfigError: `path` has another ending.
            RecordError: a text cannot be stored.
            DataError: the object cannot be written to S3.
            MissingExtraError: pyarrow is not installed, or `path` is on S3, but boto3 is not installed.
        """
        write_file(path, (".parquet",), parquet_parts(self), session)

    def to_dataset(self) -> datasets.Dataset:
        """Return the records as a `datasets.Dataset`, one column per field. `load_records` accepts it.

        Raises:
            MissingExtraError: datasets is not installed.
        """
        return dataset_of(self)

    def _test_count(self, test_size: object) -> int:
        if isinstance(test_size, bool) or not isinstance(test_size, Real):
            raise ConfigError(
                f"test_size is {test_size!r}, but must be a share between 0 and 1, such as 0.2, or a number of records "
                "as an int"
            )
        if isinstance(test_size, Integral):
            count = int(test_size)
            if not 0 < count < len(self):
                raise ConfigError(
                    f"test_size is {count}, but must be at least 1 and less than the number of records, {len(self)}"
                )
            return count
        share = float(test_size)
        if not 0 < share < 1:
            raise ConfigError(
                f"test_size is {share}, but a share must be between 0 and 1. For a number of records, pass an int."
            )
        return min(max(1, round(share * len(self))), max(1, len(self) - 1))
