"""A sample data set: 14 small businesses, their rows, and questions with gold SQL of graded difficulty.

The files beside this module hold it: `queries.jsonl` has one gold query a line with all phrasings of its question, and
`<database>.sql` a database. `tools/sample_data` in the repository generates them. Nothing is copied from a public data
set.
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
    """Return the sample questions in a fixed shuffled order, so that any first part of them is a fair sample.

    Args:
        part: "held_out" is every question about the two held-out databases. The questions about the other twelve are
            divided by gold query: about 12 % of the queries of each kind are "test" with all their phrasings, the rest
            is "train", and no SQL text is on both sides. "all" is everything.

    Raises:
        ConfigError: there is no such part.
    """
    parts = get_args(Part)
    if part not in parts:
        raise ConfigError(f"there is no part {part!r} of the sample records; use one of {', '.join(parts)}")
    return Records(found.record for found in _records().values() if part in ("all", found.part))


def sample_kind(record: Record) -> Kind:
    """Return the kind of question that a sample record asks, from "projection" to "set_operation".

    Raises:
        DataError: the record is not one of the sample's.
    """
    found = _records().get(record.id or "")
    if found is None:
        raise DataError(f"record {record.id!r} is not a sample record; take one of sample_records()")
    return found.kind


def sample_databases(output_dir: str | Path) -> dict[str, Path]:
    """Write one SQLite file for each database, `<database>.sqlite`; files that exist already are left as they are.

    Returns the path of each file by the database's name (a record's `database`).

    Args:
        output_dir: the folder that receives the files, on this machine.

    Raises:
        DataError: a file has that name but other content, on which the gold queries would give other answers.
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
                    f"{path} is not the sample database of this version: delete it, or name another directory"
                )
    return paths


@cache
def _records() -> dict[str, _SampleRecord]:
    """Return all records by their id; the hash of the id is their place in the order."""
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
    """Return the first paragraph of the database's file: its CREATE TABLE statements, one a line."""
    return _file(f"{database}.sql").partition("\n\n")[0]


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _content(path: Path) -> list[str] | None:
    """Return the SQL that would write the database's content; None if the file is not a database."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return list(database.iterdump())
    except sqlite3.Error:
        return None
