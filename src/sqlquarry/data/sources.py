"""Find the files, the data set or the rows that a caller names, and open them as rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.data import wikisql
from sqlquarry.data.folders import KNOWN_FOLDERS, refuse_split, shipped_files
from sqlquarry.data.formats import FORMATS, file_format, file_rows
from sqlquarry.data.memory_rows import memory_rows
from sqlquarry.data.objects import bucket_and_key, downloaded, s3_uri
from sqlquarry.data.row_reader import RowReader
from sqlquarry.data.rows import SourceRow
from sqlquarry.errors import DataError
from sqlquarry.extras import require
from sqlquarry.records import Record
from sqlquarry.text import first_of

if TYPE_CHECKING:
    import boto3

_SHOWN_FILES = 8
_PATTERN = re.compile(r"[*?[]")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(?<!\.[a-zA-Z]{3})(?<!\.[a-zA-Z]{4})")  # not a.zip, a.xlsx


class NamedRows(NamedTuple):
    """The rows of one file or data set, with its name in errors and the stem that its records' ids start with."""

    name: str
    stem: str
    rows: Iterable[SourceRow | Record]


@contextmanager
def open_source(
    source: object, reader: RowReader, split: str | None, session: boto3.Session | None
) -> Iterator[tuple[str, list[NamedRows]]]:
    """Yield the name of a source for errors, and its parts. Arguments and errors are those of `load_records`."""
    if not isinstance(source, str | Path):
        stem, rows = memory_rows(source, reader, split)
        name = f"the {type(source).__name__}"
        yield name, [NamedRows(name, stem, rows)]
    elif uri := s3_uri(source):
        refuse_split(split, uri)
        if "*" in uri or uri.endswith("/"):
            what = "pattern" if "*" in uri else "directory"
            raise DataError(
                f"{uri} is a {what}, but on S3 only single objects are read. Give the key of one object, or copy the "
                f"files first: aws s3 cp --recursive {uri.partition('*')[0].rpartition('/')[0]}/ DIRECTORY"
            )
        bucket_and_key(uri)
        _known_format(uri)
        with downloaded(uri, session) as path:
            yield uri, [_file(path, uri, reader)]
    else:
        yield str(source), _local_or_hub(source, reader, split)


def _local_or_hub(source: str | Path, reader: RowReader, split: str | None) -> list[NamedRows]:
    """Return the files that match the source. If there are none and it can be a data set's id, return the data set."""
    name = str(source)
    if not name:
        raise DataError("the source is ''. Give a file, an s3:// address or the id of a data set.")
    try:
        path = Path(source).expanduser()
        is_directory = path.is_dir()
        files = {name: path} if path.is_file() else {str(file): file for file in _matching(path)}
    except (OSError, RuntimeError, ValueError) as error:  # The path is not valid, or its user is unknown (~nobody).
        raise DataError(f"{name} does not exist: {error}") from error
    if is_directory and (shipped := shipped_files(path, split)):
        return [_file(file, str(file), reader) for file in shipped]
    if files:
        refuse_split(split, name)
        return [_file(file, shown, reader) for shown, file in files.items()]
    if isinstance(source, str) and file_format(name) is None and _HUB_ID.fullmatch(name) and not path.exists():
        return [NamedRows(name, name.rpartition("/")[2], _hub_rows(name, reader, split or "train"))]
    if "://" in name:
        raise DataError(f"{name} is an address that cannot be read. Download the file and give its path.")
    raise DataError(f"{name} {_directory(path) if is_directory else 'does not exist. Check the path.'}")


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
        names = names or sorted(str(file.relative_to(path)) for file in path.glob("*/*") if file_format(file.name))
    except OSError as error:
        return f"is a directory that cannot be read: {error}"
    known = f"A directory must be that of a known data set as it is shipped ({KNOWN_FOLDERS})"
    if not names:
        return f"is a directory without any file in a known format ({FORMATS}). Give the path of a file. {known}."
    pattern = path / Path(names[0]).with_name(f"*{Path(names[0]).suffix}")
    return (
        f"is a directory. Give one of its files ({first_of(names, _SHOWN_FILES)}), or a pattern such as "
        f"{pattern}. {known}."
    )


def _file(path: Path, name: str, reader: RowReader) -> NamedRows:
    stem, suffix = _known_format(name)
    rows = file_rows(path, suffix, name, reader)
    if tables := wikisql.tables_of(path):
        rows = wikisql.with_tables(rows, file_rows(tables, suffix, str(tables), reader), str(tables))
    return NamedRows(name, stem, rows)


def _known_format(name: str) -> tuple[str, str]:
    found = file_format(name)
    if found is None:
        is_excel = name.lower().endswith((".xls", ".xlsx", ".xlsm", ".ods"))
        hint = ". Save the sheet as CSV UTF-8 first, or pass pandas.read_excel(path)" if is_excel else ""
        raise DataError(
            f"the format of {name} is unknown. Its name must end in one of {FORMATS}, with or without .gz{hint}"
        )
    return found


def _hub_rows(name: str, reader: RowReader, split: str) -> Iterator[SourceRow | Record]:
    require("hub", f"there is no file {name!r}, and loading it as a Hugging Face data set")
    import datasets

    try:
        rows = datasets.load_dataset(name, split=split)
    except Exception as error:  # datasets raises the errors of all libraries that it uses
        raise DataError(
            f"there is no file {name!r}, and it could not be loaded as a Hugging Face data set "
            f"({type(error).__name__}: {error}). Check path, id, split ({split!r}) and network. A private data set "
            "needs HF_TOKEN. You can also load it with datasets.load_dataset and pass the result, or download its file "
            "and give the path."
        ) from error
    yield from memory_rows(rows, reader, None)[1]
