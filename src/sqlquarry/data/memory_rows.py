"""Read rows that are in memory: lists, DataFrames of pandas and polars, and data sets of the library datasets.

None of these packages is imported. Their objects are recognized by their methods.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol, TypeAlias, runtime_checkable

from sqlquarry.data.row_reader import RowReader
from sqlquarry.data.rows import SourceRow
from sqlquarry.data.splits import pick_split
from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.records import Record

_COMBINE = (
    "source is {source!r:.80}, but must be one path, pattern, s3:// address or hub id, or rows (a list of dicts or "
    "records, a DataFrame, or a data set). To combine several sources, add their records: "
    "load_records(a) + load_records(b)."
)

_BATCH_ROWS = 1000


@runtime_checkable
class PandasFrame(Protocol):
    """The part of a pandas DataFrame that is used."""

    @property
    def columns(self) -> Iterable[object]: ...  # noqa: D102 - see pandas
    def itertuples(self, *, index: bool, name: None) -> Iterator[Sequence[object]]: ...  # noqa: D102 - see pandas


@runtime_checkable
class PolarsFrame(Protocol):
    """The part of a polars DataFrame that is used."""

    @property
    def columns(self) -> Sequence[str]: ...  # noqa: D102 - see polars
    def iter_rows(self) -> Iterator[Sequence[object]]: ...  # noqa: D102 - see polars


Row: TypeAlias = Mapping[str, object] | Record
Rows: TypeAlias = Iterable[Row] | PandasFrame | PolarsFrame | Mapping[str, Iterable[Row]]


def memory_rows(source: object, reader: RowReader, split: str | None) -> tuple[str, Iterator[SourceRow | Record]]:
    """Return a name for the ids of records without one, and the rows.

    Raises:
        ConfigError: `source` does not contain rows, or `split` does not fit it.
    """
    if _is_of(source, "datasets") and isinstance(source, Mapping):
        split = pick_split(split, list(source), "source")
        return split, _dataset_rows(source[split], reader)
    if split is not None:
        raise ConfigError(
            f"split is {split!r}, but the source is a {type(source).__name__}, which has no splits. Leave it out."
        )
    if _is_of(source, "datasets"):
        return "row", _dataset_rows(source, reader)
    if hasattr(source, "collect"):
        raise ConfigError(f"source is a {type(source).__name__}. Pass the DataFrame that its collect() returns.")
    if isinstance(source, PandasFrame):
        names = list(source.columns)
        return "row", _tuples(names, source.itertuples(index=False, name=None), reader)
    if isinstance(source, PolarsFrame):
        return "row", _tuples(list(source.columns), source.iter_rows(), reader)
    if isinstance(source, Mapping):
        raise ConfigError(
            f"source is the mapping {source!r:.80}. Pass one row as [row], columns of equal length as "
            "pandas.DataFrame(columns), and one of several splits by its key."
        )
    if isinstance(source, Record | str | bytes | PurePath) or not isinstance(source, Iterable):
        hint = "source is one record. Pass it as [record]." if isinstance(source, Record) else _COMBINE
        raise ConfigError(hint.format(source=source))
    return "row", _listed(source)


def _listed(source: Iterable[object]) -> Iterator[SourceRow | Record]:
    for number, row in enumerate(source, 1):
        if isinstance(row, Record):
            yield row
        elif isinstance(row, Mapping):
            yield SourceRow("row", number, row)
        elif isinstance(row, str | PurePath):
            raise ConfigError(_COMBINE.format(source=source))
        else:
            yield SourceRow("row", number, RecordError(f"is a {type(row).__name__}, but must be a dict or a Record"))


def _dataset_rows(source: Any, reader: RowReader) -> Iterator[SourceRow]:  # datasets has no types
    """Yield the rows of a data set, with only the columns that are needed, because others need not be readable."""
    names = source.column_names  # None if a stream does not know its columns
    if names and reader.fits(names):
        source = source.select_columns(reader.columns_to_read(names))
    numbers = itertools.count(1)
    for batch in source.with_format(None).iter(batch_size=_BATCH_ROWS):  # much faster than row by row
        for values in zip(*batch.values(), strict=True):
            yield SourceRow("row", next(numbers), dict(zip(batch, values, strict=True)))


def _tuples(names: Sequence[object], source: Iterator[Sequence[object]], reader: RowReader) -> Iterator[SourceRow]:
    texts = [str(name) for name in names]
    if len(set(texts)) < len(texts):
        yield SourceRow("row", 1, RecordError(f"the table has a column twice: {', '.join(texts)}"))
        return
    wanted = {*(reader.columns_to_read(texts) if reader.fits(texts) else texts)}
    places = [(place, name) for place, name in enumerate(texts) if name in wanted]
    for number, values in enumerate(source, 1):
        yield SourceRow("row", number, {name: _plain(values[place]) for place, name in places})


def _plain(value: object) -> object:
    """Return a value of pandas or numpy as a value of Python."""
    if value is None or isinstance(value, str):
        return value
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas.NA and NaT
        return None
    as_python = getattr(value, "tolist", None)  # numpy's scalars and arrays
    return as_python() if callable(as_python) else value


def _is_of(source: object, package: str) -> bool:
    return any(cls.__module__.partition(".")[0] == package for cls in type(source).__mro__)
