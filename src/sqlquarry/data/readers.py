"""Load records from files, an S3 object or a Hugging Face data set, and report every bad row."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.data.formats import FORMATS, file_format, file_rows
from sqlquarry.data.objects import bucket_and_key, downloaded, s3_uri
from sqlquarry.data.records import Records
from sqlquarry.data.rows import SourceRow
from sqlquarry.data.shapes import KNOWN_SHAPES, fits_a_shape, known_columns, record_from_row
from sqlquarry.dialects import dialect_name
from sqlquarry.errors import ConfigError, DataError, RecordError
from sqlquarry.extras import require
from sqlquarry.records import Record
from sqlquarry.text import first_of, visible_logger

if TYPE_CHECKING:
    import boto3

_log = visible_logger(__name__)
_SHOWN_PROBLEMS = 10
_SHOWN_FILES = 8
_SEARCHED_RECORDS = 1000
_PATTERN = re.compile(r"[*?[]")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
# SQL outside of quotes that SQLite does not support.
_NOT_SQLITE = re.compile(r"\bILIKE\b|::\s*[a-z]|\bSELECT\s+(?:DISTINCT\s+)?TOP\s*\(?\d", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


class _Source(NamedTuple):
    """The rows of one file or data set, with its name in errors and the stem that its records' ids start with."""

    name: str
    stem: str
    rows: Iterable[SourceRow]


def load_records(
    source: str | Path, *, limit: int | None = None, dialect: str | None = None, session: boto3.Session | None = None
) -> Records:
    """Load question/schema/SQL records. Duplicates are kept and nothing is dropped.

    The columns determine the shape of the rows:

    - SQLQuarry: question, schema, and optionally sql, alternatives, database, dialect and id
    - sql-create-context, also used for WikiSQL: question, context, answer
    - Spider: question, query, db_id, and schema or tables
    - BIRD: question, SQL, db_id, schema, and optionally evidence, which is appended to the question in parentheses

    Case and white space around the column names do not matter. A record without an id gets the id
    ``<file stem>:<line>``.

    Args:
        source: a file in UTF-8 (.json, .jsonl, .ndjson, .csv, .tsv or .parquet, each also .gz), a pattern of such files
            (``data/*.jsonl``), which are read in the order of their names, the ``s3://bucket/key`` of a file, or the id
            of a Hugging Face data set, of which the "train" split is read.
        limit: number of rows to read. Later rows are not even parsed. None reads all.
        dialect: the SQL dialect of rows that do not specify one. If it is not given, the default is SQLite, and a
            warning is logged if the SQL does not look like SQLite.
        session: a boto3 session for S3. None uses the default credentials.

    Raises:
        RecordError: there are bad rows. The message has their number and lists the first 10 by line, array element or
            table row.
        DataError: the source cannot be found or read, or contains no records.
        ConfigError: `source` is neither text nor a path, `limit` is below 1, or the dialect is unknown.
        MissingExtraError: the package for Parquet, S3 or the hub is not installed.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}, but must be at least 1. Leave it out to read everything.")
    if not isinstance(source, str | Path):
        raise ConfigError(
            f"source is {source!r:.80}, but must be one path, pattern, s3:// address or hub id. "
            "To combine several sources, add their records: load_records(a) + load_records(b)."
        )
    stated = None if dialect is None else dialect_name(dialect)
    if uri := s3_uri(source):
        if "*" in uri:
            raise DataError(f"{uri} is a pattern, but patterns work only for local files. Give the key of one object.")
        bucket_and_key(uri)
        _known_format(uri)
        with downloaded(uri, session) as path:
            return _records([_file(path, uri)], uri, limit, stated)
    return _records(_local_or_hub(source), str(source), limit, stated)


def _local_or_hub(source: str | Path) -> list[_Source]:
    """Return the files that match the source. If there are none and it can be a data set's id, return the data set."""
    name = str(source)
    if not name:
        raise DataError("the source is ''. Give a file, an s3:// address or the id of a data set.")
    try:
        path = Path(source).expanduser()
        files = {name: path} if path.is_file() else {str(file): file for file in _matching(path)}
    except (OSError, RuntimeError, ValueError) as error:  # The path is not valid, or its user is unknown (~nobody).
        raise DataError(f"{name} does not exist: {error}") from error
    if files:
        return [_file(file, shown) for shown, file in files.items()]
    if isinstance(source, str) and file_format(name) is None and _HUB_ID.fullmatch(name) and not path.exists():
        return [_Source(name, name.rpartition("/")[2], _hub_rows(name))]
    raise DataError(f"{name} {_directory(path) if path.is_dir() else 'does not exist. Check the path.'}")


def _matching(path: Path) -> list[Path]:
    if not _PATTERN.search(str(path)):
        return []
    found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    files = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
    if not files:
        raise DataError(f"no file matches {path}. Check the path.")
    return files


def _directory(path: Path) -> str:
    try:
        names = sorted(file.name for file in path.iterdir() if file_format(file.name))
    except OSError as error:
        return f"is a directory that cannot be read: {error}"
    if not names:
        return f"is a directory without any file in a known format ({FORMATS}). Give the path of a file."
    suffix = Path(names[0]).suffix
    return (
        f"is a directory. Give one of its files ({first_of(names, _SHOWN_FILES)}), or a pattern such as "
        f"{path / f'*{suffix}'}"
    )


def _file(path: Path, name: str) -> _Source:
    stem, suffix = _known_format(name)
    return _Source(name, stem, file_rows(path, suffix, name))


def _known_format(name: str) -> tuple[str, str]:
    found = file_format(name)
    if found is None:
        is_excel = name.lower().endswith((".xls", ".xlsx", ".xlsm", ".ods"))
        hint = ". Save the sheet as CSV UTF-8 first" if is_excel else ""
        raise DataError(
            f"the format of {name} is unknown. Its name must end in one of {FORMATS}, with or without .gz{hint}"
        )
    return found


def _records(sources: list[_Source], name: str, limit: int | None, dialect: str | None) -> Records:
    problems: list[str] = []

    def good(rows: Iterable[tuple[_Source, SourceRow]]) -> Iterator[Record]:
        for source, (unit, number, columns) in rows:
            try:
                if isinstance(columns, RecordError):
                    raise columns
                yield record_from_row(columns, f"{source.stem}:{number}", dialect or "sqlite")
            except RecordError as error:
                where = f"{source.name}, {unit}" if len(sources) > 1 else unit
                problems.append(f"  {where} {number}: {error}")

    rows = ((source, row) for source in sources for row in source.rows)
    records = Records(good(itertools.islice(rows, limit)))
    if problems:
        more = f"\n  … and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise RecordError(
            f"{name}: {len(problems)} bad of {len(problems) + len(records)} rows\n"
            + "\n".join(problems[:_SHOWN_PROBLEMS])
            + f"{more}\nCorrect or remove them. Known columns: {KNOWN_SHAPES}."
        )
    if not records:
        raise DataError(f"{name} contains no records. Check that it was written completely.")
    if dialect is None:
        _hint_at_dialect(records, name)
    return records


def _hint_at_dialect(records: Records, name: str) -> None:
    for record in records[:_SEARCHED_RECORDS]:
        sql = record.sql or ""
        if record.dialect == "sqlite" and _NOT_SQLITE.search(sql) and _NOT_SQLITE.search(_QUOTED.sub("", sql)):
            _log.warning(
                "%s does not specify a dialect, so its SQL is taken to be SQLite, but SQLite does not support the "
                'query of record %s. Specify the dialect, for example load_records(…, dialect="postgres")',
                name,
                record.id,
            )
            return


def _hub_rows(name: str) -> Iterator[SourceRow]:
    require("hub", f"there is no file {name!r}, and loading it as a Hugging Face data set")
    import datasets

    try:
        rows = datasets.load_dataset(name, split="train")
    except Exception as error:  # datasets raises the errors of all libraries that it uses
        raise DataError(
            f"there is no file {name!r}, and it could not be loaded as a Hugging Face data set "
            f"({type(error).__name__}: {error}). Check path, id and network. A private data set needs HF_TOKEN. "
            "You can also download its file and give the path."
        ) from error
    names = rows.column_names
    if fits_a_shape(names):  # The other columns need not be readable.
        rows = rows.select_columns(known_columns(names))
    for number, columns in enumerate(rows, 1):
        yield SourceRow("row", number, columns)
