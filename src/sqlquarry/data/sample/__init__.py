"""A sample data set: databases of 14 small businesses, and questions with gold SQL from easy to hard.

The data is in files next to this module. `queries.jsonl` has one gold query per line with all phrasings of its
question, and `<database>.sql` contains a database. `tools/sample_data` in the repository generates these files. Nothing
is copied from a public data set.
"""

import json
import sqlite3
from contextlib import closing
from functools import cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict, get_args

from sqlquarry.data.records import Records
from sqlquarry.errors import ConfigError, DataError
from sqlquarry.files.locations import local_path
from sqlquarry.files.writing import write_atomically
from sqlquarry.records import Record

__all__ = ["KINDS", "Kind", "Part", "sample_databases", "sample_kind", "sample_records"]

Part = Literal["all", "train", "test", "held_out"]
Kind = Literal[
    "projection",
    "filter",
    "multi_filter",
    "count",
    "aggregate",
    "distinct",
    "order_limit",
    "group",
    "having",
    "join",
    "join_group",
    "subquery",
    "set_operation",
    "null",
    "date",
    "range",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class _QueryLine(TypedDict):
    id: str
    database: str
    kind: Kind
    part: Part
    sql: str
    questions: list[str]


class _SampleRecord(NamedTuple):
    kind: Kind
    part: Part
    record: Record


def sample_records(part: Part = "all") -> Records:
    """Return the sample questions in a fixed shuffled order, so that the first n of them are a fair sample.

    Args:
        part: "held_out" contains all questions about the two held-out databases. The questions about the other twelve
            are divided by gold query. About 12 % of the queries of each kind are in "test", with all their phrasings,
            and the others are in "train". No SQL text is in both. "all" contains everything.

    Raises:
        ConfigError: the part does not exist.
    """
    parts = get_args(Part)
    if part not in parts:
        raise ConfigError(f"the sample records have no part {part!r}. Use one of {', '.join(parts)}.")
    return Records(found.record for found in _records().values() if part in ("all", found.part))


def sample_kind(record: Record) -> Kind:
    """Return the kind of question that a sample record asks, from "projection" to "set_operation".

    Raises:
        DataError: the record is not a sample record.
    """
    found = _records().get(record.id or "")
    if found is None:
        raise DataError(f"record {record.id!r} is not a sample record. Use a record from sample_records().")
    return found.kind


def sample_databases(output_dir: str | Path) -> dict[str, Path]:
    """Write one SQLite file per database, `<database>.sqlite`, and return the paths by database name.

    The names are those in the records' field `database`. Files that exist already are not changed.

    Args:
        output_dir: a local directory for the files.

    Raises:
        DataError: a file with that name exists, but has other content, so the gold queries would give other results.
    """
    folder = local_path(output_dir, "output_dir")
    paths = {name: folder / f"{name}.sqlite" for name in dict.fromkeys(line["database"] for line in _query_lines())}
    for name, path in paths.items():
        with closing(sqlite3.connect(":memory:")) as database:
            database.executescript(_file(f"{name}.sql"))
            if not path.exists():
                write_atomically(path, database.serialize())
            elif _content(path) != list(database.iterdump()):
                raise DataError(
                    f"{path} exists, but is not the sample database of this version. Delete it or use another folder."
                )
    return paths


@cache
def _records() -> dict[str, _SampleRecord]:
    """Return all records by id, ordered by the hash of the id."""
    found: dict[str, _SampleRecord] = {}
    for line in _query_lines():
        database, schema = line["database"], _schema(line["database"])
        for letter, question in zip("abcd", line["questions"], strict=False):
            name = f"{line['id']}-{letter}"
            record = Record(question, schema, line["sql"], database, "sqlite", name)
            found[name] = _SampleRecord(line["kind"], line["part"], record)
    return {name: found[name] for name in sorted(found, key=lambda name: sha256(name.encode()).digest())}


def _query_lines() -> list[_QueryLine]:
    return [json.loads(line) for line in _file("queries.jsonl").splitlines()]


@cache
def _schema(database: str) -> str:
    """Return the CREATE TABLE statements of a database, one per line. They are the first paragraph of its file."""
    return _file(f"{database}.sql").partition("\n\n")[0]


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _content(path: Path) -> list[str] | None:
    """Return the SQL statements that recreate the database, or None if the file is not a database."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return list(database.iterdump())
    except sqlite3.Error:
        return None
