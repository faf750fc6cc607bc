"""Load records from files, directories, S3, Hugging Face data sets or rows in memory, and report every bad row."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.data.folders import shipped_schemas
from sqlquarry.data.formats import file_format
from sqlquarry.data.memory_rows import Rows
from sqlquarry.data.objects import downloaded, s3_uri
from sqlquarry.data.records import Records
from sqlquarry.data.row_reader import RowReader
from sqlquarry.data.rows import SourceRow
from sqlquarry.data.schemas import Schemas
from sqlquarry.data.shapes import KNOWN_SHAPES
from sqlquarry.data.sources import NamedRows, open_source
from sqlquarry.dialects import dialect_name
from sqlquarry.errors import ConfigError, DataError, RecordError
from sqlquarry.inputs import is_whole
from sqlquarry.records import Record
from sqlquarry.text import first_of, visible_logger

if TYPE_CHECKING:
    import boto3

    from sqlquarry.prompt import PromptFormatter

_log = visible_logger(__name__)
_SHOWN_PROBLEMS = 10
_SEARCHED_RECORDS = 1000
# SQL outside of quotes that SQLite does not support.
_NOT_SQLITE = re.compile(r"\bILIKE\b|::\s*[a-z]|\bSELECT\s+(?:DISTINCT\s+)?TOP\s*\(?\d", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def load_records(
    source: str | Path | Rows,
    *,
    columns: Mapping[str, str] | None = None,
    schema: str | Path | Mapping[str, str | Path] | None = None,
    database: str | None = None,
    dialect: str | None = None,
    split: str | None = None,
    formatter: PromptFormatter | None = None,
    limit: int | None = None,
    session: boto3.Session | None = None,
) -> Records:
    """Load question/schema/SQL records. Duplicates are kept and nothing is dropped.

    The columns determine the shape of the rows:

    - SQLQuarry: question, schema, and optionally sql, alternatives, database, dialect, id and notes
    - sql-create-context, also used for WikiSQL: question, context, answer
    - Spider, KaggleDBQA: question, query, db_id, and schema or tables
    - BIRD: question, SQL, db_id, schema, and optionally evidence, which becomes the notes
    - gretel: sql_prompt, sql_context, sql
    - WikiSQL: question, sql (a structured query), table
    - Alpaca: instruction, input, and output or response. One of the first two contains the schema
    - conversations: messages (role, content), conversations (from, value), or prompt and completion

    Case and white space around the column names do not matter. A record without an id gets the id
    ``<file stem>:<line>``.

    Args:
        source: one of these.

            - a file in UTF-8 (.json, .jsonl, .ndjson, .csv, .tsv or .parquet, each also .gz), or the
              ``s3://bucket/key`` of one
            - a pattern of such files (``data/*.jsonl``), which are read in the order of their names
            - the directory of Spider, BIRD, KaggleDBQA or WikiSQL as it is shipped
            - the id of a Hugging Face data set
            - rows: dicts or records, a DataFrame of pandas or polars, a `datasets.Dataset` or a `DatasetDict`
        columns: the columns of fields with other names, as {field: column}. The fields are question, schema, sql,
            alternatives, database, dialect, id and notes.
        schema: the schema of all rows, which replaces the rows' own: CREATE TABLE text, a .sql or SQLite file (also on
            S3), a `tables.json`, a directory with NAME.sqlite or NAME/NAME.sqlite, or a mapping of database names to
            texts or files. If it is not given, rows without a schema get it from the data set that their file belongs
            to.
        database: the database of all rows, which replaces the rows' own.
        dialect: the SQL dialect of rows that do not specify one. If it is not given, the default is SQLite, and a
            warning is logged if the SQL does not look like SQLite.
        split: the split of a hub data set, a DatasetDict or a directory. None means the only one, or "train".
        formatter: the wording around schema and question in prompts, as in `Records.to_messages`. If it is not given,
            SQLQuarry's default wording and CREATE TABLE statements are found.
        limit: number of rows to read. Later rows are not even parsed. None reads all.
        session: a boto3 session for S3. None uses the default credentials.

    Raises:
        RecordError: there are bad rows. The message has their number and lists the first 10 by line, array element or
            table row.
        DataError: the source cannot be found or read, or contains no records.
        ConfigError: an option is invalid, or does not fit the source.
        MissingExtraError: the package for Parquet, S3 or the hub is not installed.
    """
    if limit is not None and (not is_whole(limit) or limit < 1):
        raise ConfigError(f"limit is {limit!r}, but must be at least 1. Leave it out to read everything.")
    for name, value in (("database", database), ("split", split)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise ConfigError(
                f"{name} is {value!r:.80}, but must be a non-empty string. Leave it out if there is none."
            )
    if formatter is not None and not callable(getattr(formatter, "messages", None)):
        raise ConfigError(f"formatter is {formatter!r:.80}, but must be a PromptFormatter.")
    stated = None if dialect is None else dialect_name(dialect)
    with ExitStack() as stack:
        if isinstance(schema, str | Path) and (uri := s3_uri(schema)):
            schema = stack.enter_context(downloaded(uri, session))
        reader = RowReader(
            columns,
            schemas=None if schema is None else Schemas.stated(schema),
            shipped_schemas=partial(_shipped_schemas, source),
            database=database,
            dialect=stated or "sqlite",
            formatter=formatter,
        )
        name, sources = stack.enter_context(open_source(source, reader, split, session))
        return _records(sources, name, reader, limit, is_dialect_known=stated is not None)


def _shipped_schemas(source: object) -> Schemas | None:
    if not isinstance(source, str | Path) or s3_uri(source):
        return None
    path = Path(source).expanduser()
    # The id of a hub data set is neither a directory nor the name of a file.
    return shipped_schemas(path) if path.is_dir() or file_format(path.name) else None


def _records(
    sources: list[NamedRows], name: str, reader: RowReader, limit: int | None, *, is_dialect_known: bool
) -> Records:
    problems: list[str] = []

    def good(rows: Iterable[tuple[NamedRows, SourceRow | Record]]) -> Iterator[Record]:
        for source, row in rows:
            if isinstance(row, Record):
                yield row
                continue
            unit, number, columns = row
            try:
                if isinstance(columns, RecordError):
                    raise columns
                yield reader.record(columns, f"{source.stem}:{number}")
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
    if not is_dialect_known:
        _hint_at_dialect(records, name)
    if reader.ignored_columns and not any(record.sql for record in records):
        _log.warning(
            "%s has no SQL in a column with a known name. If one of %s has it, pass columns={'sql': …}",
            name,
            first_of(sorted(reader.ignored_columns)),
        )
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
