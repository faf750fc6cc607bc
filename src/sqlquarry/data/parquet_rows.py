"""Read rows from Parquet files. Only columns of a known shape are read, so the others need not be readable."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlquarry.data import rows
from sqlquarry.data.row_reader import RowReader
from sqlquarry.data.rows import SourceRow
from sqlquarry.errors import RecordError
from sqlquarry.extras import require

if TYPE_CHECKING:
    from pyarrow import RecordBatch

_BATCH_ROWS = 4096


def parquet_rows(file: io.BufferedIOBase, reader: RowReader) -> Iterator[SourceRow]:
    """Yield the rows of a Parquet file."""
    require("parquet", "reading Parquet")
    from pyarrow.parquet import ParquetFile

    # Parquet is read from its end, and a gzip stream has to read everything to get there.
    packed = isinstance(file, gzip.GzipFile)
    source = io.BytesIO(rows.whole(file, "as gzipped Parquet. Unpack it")) if packed else file
    number = 0
    try:
        parquet = ParquetFile(source)
        names = list(dict.fromkeys(field.name for field in parquet.schema_arrow))
        if len(names) < len(parquet.schema_arrow):
            named = ", ".join(parquet.schema_arrow.names)
            yield SourceRow("row", 1, RecordError(f"the file has a column twice: {named}"))
            return
        unread = {} if reader.fits(names) else dict.fromkeys(names)  # so that the error can list them
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=reader.columns_to_read(names)):
            for columns in _columns(batch):
                number += 1
                whole = columns if isinstance(columns, RecordError) or not unread else unread | columns
                yield SourceRow("row", number, whole)
    except Exception as error:  # noqa: BLE001 - damaged files raise errors of Arrow, Python and time zone libraries
        yield SourceRow("row", number + 1, RecordError(f"not Parquet from here on: {type(error).__name__}: {error}"))


def _columns(batch: RecordBatch) -> Iterator[dict[str, object] | RecordError]:
    """Yield the rows of a batch. A value that Python cannot represent, such as the year 20000, is an error."""
    try:
        yield from batch.to_pylist()
    except Exception:  # noqa: BLE001 - as above
        # Convert the values one by one to find the bad one.
        for index in range(batch.num_rows):
            yield _row(batch, index)


def _row(batch: RecordBatch, index: int) -> dict[str, object] | RecordError:
    columns: dict[str, object] = {}
    for name in batch.schema.names:
        try:
            columns[name] = batch.column(name)[index].as_py()
        except Exception as error:  # noqa: BLE001 - as above
            return RecordError(f"{name!r} cannot be read ({type(error).__name__}: {error})")
    return columns
